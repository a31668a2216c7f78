"""spark-stream: the four topics -> windows in their topic, CSV and Parquet, and the refused ones.

Spark computes a batch and waits until its outputs are made here, one after the other.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final

from pyspark.sql import SparkSession

from fleetpulse.codec.windows import format_windows
from fleetpulse.config import Settings
from fleetpulse.domain.metric import FAMILIES
from fleetpulse.edges.files import atomic_writer
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.kafka.window_log import WindowLog
from fleetpulse.edges.sink import FileSpec, open_sink
from fleetpulse.edges.spark.checkpoint import StreamFolder
from fleetpulse.edges.spark.ledger import Ledger
from fleetpulse.edges.spark.parquet import WindowFolder
from fleetpulse.edges.spark.progress import StreamProgress
from fleetpulse.edges.spark.session import open_session
from fleetpulse.roles.access import kafka_access
from fleetpulse.roles.analyze import SparkOptions
from fleetpulse.roles.delivery import Delivery
from fleetpulse.roles.job import check_nobodys
from fleetpulse.roles.refusals import REJECTS_FILE, ROLE, Refusals
from fleetpulse.roles.stream_run import StreamRun
from fleetpulse.roles.stream_start import check, meaning, reading, session_options

PARQUET_NAME: Final = "windows.parquet"


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What a run does beside its settings.

    It ends once nothing came for `until_idle_s` (None: never). `is_csv` writes the CSV files at the
    end, `is_parquet` a folder a batch. `is_gap_allowed` goes on where Kafka lost messages.
    """

    is_from_beginning: bool = False
    until_idle_s: float | None = None
    is_csv: bool = False
    is_parquet: bool = False
    is_gap_allowed: bool = False


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """What a run did: rows by family, refused messages by class, and files that it wrote.

    `is_caught_up` is True where it ended because all was read and nothing new came.
    """

    windows: Mapping[str, int]
    refused: Mapping[str, int]
    batches: int
    messages: int
    files: tuple[Path, ...]
    is_caught_up: bool
    seconds: float


def stream(
    settings: Settings,
    options: StreamOptions,
    spark: SparkOptions,
    *,
    stop: Event,
    say: Callable[[str], None],
    report: Callable[[StreamProgress], None],
) -> StreamSummary:
    """Run the stream until `stop` is set or nothing comes any more; `report` gets each batch.

    A start goes on where the last one ended. Raises UsageError, ServiceUnreachable, AlreadyRunning,
    DiskError, DamagedState, DataChanged and FleetpulseError where Spark fails.
    """
    if options.is_csv:
        for family in FAMILIES:
            check_nobodys(settings.windows_path(family))
    access = kafka_access(settings, say)
    check(settings, access)
    opened = open_session(session_options(settings, spark, say))
    return stream_in(opened, settings, access, options, stop=stop, say=say, report=report)


def stream_in(
    opened: AbstractContextManager[SparkSession],
    settings: Settings,
    access: KafkaAccess,
    options: StreamOptions,
    *,
    stop: Event,
    say: Callable[[str], None],
    report: Callable[[StreamProgress], None],
) -> StreamSummary:
    """Do what `stream` does in a session that has the connector, with topics that exist.

    The session is opened once it is sure that no other process runs this stream.
    """
    started_s = time.monotonic()
    with ExitStack() as kept:
        sink = kept.enter_context(open_sink(settings.output_dir, ROLE, [FileSpec(REJECTS_FILE)]))
        folder = StreamFolder(settings.stream_path())
        folder.prepare()
        ledger = kept.enter_context(Ledger(folder.path / "ledger.db"))
        log = WindowLog(access, settings.topics.windows, ledger.stream_id)
        kept.callback(log.close)
        session = kept.enter_context(opened)
        say(f"Spark started in {time.monotonic() - started_s:.1f} s")
        parquet = None
        if options.is_parquet:
            parquet = WindowFolder(session, settings.output_dir / PARQUET_NAME)
        refusals = Refusals(settings, sink, say)
        delivery = Delivery(settings, ledger, log, refusals, parquet, options.is_csv)
        run = StreamRun(settings, options.until_idle_s, folder, delivery, stop, report)
        source = reading(
            settings,
            access,
            is_from_beginning=options.is_from_beginning,
            is_gap_allowed=options.is_gap_allowed,
        )
        is_caught_up = run.until_end(session, source, meaning(settings))
        files = tuple(_write_csv(settings, ledger)) if options.is_csv else ()
        return StreamSummary(
            dict(delivery.windows),
            dict(refusals.counts),
            run.batches,
            run.messages,
            files,
            is_caught_up,
            time.monotonic() - started_s,
        )


def _write_csv(settings: Settings, ledger: Ledger) -> list[Path]:
    paths = []
    for family in FAMILIES:
        path = settings.windows_path(family)
        with atomic_writer(path) as write:
            for line in format_windows(
                family,
                ledger.rows(family),
                ledger.span_ms(family),
                settings.time.output,
                settings.time.tz,
            ):
                write(line)
        paths.append(path)
    return paths

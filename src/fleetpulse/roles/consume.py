"""consumer1 and consumer2: a family's two topics -> CSV files and rejects, exactly once."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Event
from typing import Final

from fleetpulse.codec.intake import Intake
from fleetpulse.codec.rejects import rejects_file_name
from fleetpulse.codec.table import record_file_name, table_header
from fleetpulse.config import Settings
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.metric import CPU_MEM, NET_DISK, Family
from fleetpulse.domain.position import OnGap
from fleetpulse.domain.reject import RejectLimit
from fleetpulse.domain.share import Share
from fleetpulse.edges.kafka.consumer import LogConsumer
from fleetpulse.edges.sink import FileSpec, open_sink, read_state, state_paths
from fleetpulse.roles.access import kafka_access
from fleetpulse.roles.locate import LOST_OFFSETS, Locator
from fleetpulse.roles.pause import pause, reject_alarm
from fleetpulse.roles.transfer import Transfer

CONSUMER_NAMES: Final = {CPU_MEM.name: "consumer1", NET_DISK.name: "consumer2"}
CONNECT_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class ConsumeSummary:
    """What a run did: rows by file name and rejects by class, of this run and in all.

    `is_caught_up` is True where the run ended because all was read and nothing new came;
    `lost_offsets` counts what gaps of the topics ever took.
    """

    rows: Mapping[str, int]
    total_rows: Mapping[str, int]
    rejects: Mapping[str, int]
    total_rejects: Mapping[str, int]
    lost_offsets: int
    is_caught_up: bool
    seconds: float


def consume(
    settings: Settings,
    family: Family,
    *,
    stop: Event,
    say: Callable[[str], None],
    until_idle_s: float | None = None,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    on_gap: OnGap = OnGap.STOP,
    share: Share | None = None,
) -> ConsumeSummary:
    """Read the family's topics into files until `stop` is set, or all is read and nothing comes.

    With `share` it reads those partitions alone, into files of its own, beside other processes that
    read the others. `until_idle_s` is how long nothing may come. When too much input is bad the
    role says so every minute and waits for `stop`; a run with `until_idle_s` raises FleetpulseError
    instead. Raises UsageError, ServiceUnreachable (no broker or topics within `connect_timeout_s`;
    later outages are waited out), AlreadyRunning, DiskError, DamagedState and DataChanged (a file,
    or a topic that broke while `on_gap` is stop).
    """
    started_s = time.monotonic()
    name = _name(family, share)
    _check_others(settings, family, share)
    access = kafka_access(settings, say)
    tables = [
        FileSpec(record_file_name(one, share), table_header(one.metrics)) for one in family.topics
    ]
    rejects_file = rejects_file_name(name)
    with open_sink(settings.output_dir, name, [*tables, FileSpec(rejects_file)]) as sink:
        for file_name, size_bytes in sink.cut_bytes.items():
            say(f"{file_name}: cut {size_bytes} bytes that an earlier run did not commit")
        files_before, counters_before = sink.files, dict(sink.counters)
        intake = _intake(settings, family)
        consumer = LogConsumer(access, f"fleetpulse-{name}", list(intake.topics), share)
        try:
            locator = Locator(consumer, sink, on_gap, stop, say)
            transfer = Transfer(locator, intake, rejects_file, share)
            is_caught_up = False
            if transfer.begin(connect_timeout_s):
                # Another one may have started at the same moment; now each sees the other.
                _check_others(settings, family, share)
                is_caught_up = transfer.run(until_idle_s)
        finally:
            consumer.close()
        if transfer.tripped:
            alarm = reject_alarm(settings, rejects_file, transfer.tripped)
            pause(alarm, stop, say, is_to_end=until_idle_s is not None)
        total_rows = {table.name: sink.files[table.name].lines for table in tables}
        totals = _rejects(sink.counters)
        return ConsumeSummary(
            rows={one: total - files_before[one].lines for one, total in total_rows.items()},
            total_rows=total_rows,
            rejects=dict(totals - _rejects(counters_before)),
            total_rejects=dict(totals),
            lost_offsets=sink.counters.get(LOST_OFFSETS, 0),
            is_caught_up=is_caught_up,
            seconds=time.monotonic() - started_s,
        )


def _check_others(settings: Settings, family: Family, share: Share | None) -> None:
    """Raise UsageError where another consumer of this folder keeps one of these partitions.

    Both would write its messages: they would stand in two files.
    """
    base = CONSUMER_NAMES[family.name]
    own = _name(family, share)
    for path in state_paths(settings.output_dir, base):
        view = None if path.name.startswith(f"{own}.state") else read_state(path)
        for partition in () if view is None else view.positions:
            if share is None or partition.number in share:
                raise UsageError(
                    f"{path}: it keeps {partition} already, which would then be in two files; "
                    "choose other --partitions, or another output_dir to begin anew"
                )


def _name(family: Family, share: Share | None) -> str:
    return CONSUMER_NAMES[family.name] + (share.suffix if share else "")


def _intake(settings: Settings, family: Family) -> Intake:
    return Intake(
        topics={settings.topics.name(topic): topic for topic in family.topics},
        limit=RejectLimit(settings.rejects.max_ratio, settings.rejects.max_in_a_row),
        zone=settings.time.tz,
        start_date=settings.time.start_date(datetime.now(settings.time.tz).date()),
    )


def _rejects(counters: Mapping[str, int]) -> Counter[str]:
    return Counter({name: n for name, n in counters.items() if name != LOST_OFFSETS})

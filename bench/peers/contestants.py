"""Who takes part, how each is started, and what it needs to be there."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from fleetpulse.edges.java import Java
from fleetpulse.roles.setup import CONNECTOR_JARS, ready_jars
from peers import ours
from peers.install import (
    FLINK_JARS,
    PEERS_PYTHON,
    PROGRAMS,
    STREAMS_JARS,
    compiled,
    missing_python,
)
from peers.start import Run, Start


class Live(Enum):
    """Where alerts appear while messages keep coming."""

    # Rows in the files of both families.
    FILES = "files"
    # JSON objects on standard output; rows in the files.
    LINES = "lines"
    # Rows in the windows topic.
    TOPIC = "topic"


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to do the work.

    `missing` says why it cannot run, or "". `drain_lateness_ms` replaces the lateness while a
    backlog is drained, where the system's own watermark needs it. One that `may_hold_back` gives
    rows only now and then, and the last ones with the next message. One that `is_slow` drains a
    fifth of the backlog. `idle_s` is the silence after which it takes a backlog for drained; it
    does not count. Its latency is taken for `live_times` the usual time, 0: not at all. `note` says
    what is particular.
    """

    name: str
    title: str
    start: Callable[[Run], Start]
    missing: str
    note: str
    has_rows: bool = True
    drain_lateness_ms: int | None = None
    may_hold_back: bool = False
    is_ours: bool = False
    is_slow: bool = False
    live_times: int = 1
    idle_s: float = 0.0
    live: Live = Live.FILES


def contestants(
    environ: Mapping[str, str], java: Java, scratch: Path, say: Callable[[str], None]
) -> list[Contestant]:
    """Return all contestants; programs in Java are compiled below `scratch`."""
    classes = scratch / "classes"
    peers_missing = missing_python()
    streams, streams_missing = compiled("FleetWindows.java", STREAMS_JARS, environ, java, classes)
    flink, flink_missing = compiled("FlinkWindows.java", FLINK_JARS, environ, java, classes)
    connector = ",".join(map(str, ready_jars(CONNECTOR_JARS, environ, java, say)))
    on_java = {"JAVA_HOME": str(java.home), "SPARK_LOCAL_IP": "127.0.0.1"}
    return [
        Contestant(
            "raw",
            "raw consume() from Python",
            lambda run: Start(_program(sys.executable, "raw.py", run)),
            "",
            "nothing is parsed: the limit of one Python consumer",
            has_rows=False,
        ),
        Contestant(
            "monitor",
            "fleetpulse monitor",
            ours.monitor,
            ours.missing_command("monitor"),
            "rows, windows topic and state are committed together; default settings",
            is_ours=True,
            idle_s=ours.MONITOR_IDLE_S,
            live_times=3,
            live=Live.LINES,
        ),
        Contestant(
            "monitor-files",
            "fleetpulse monitor --no-topic",
            ours.monitor_files,
            ours.missing_command("monitor"),
            "the peers' work: rows to files only, committed with the state",
            is_ours=True,
            idle_s=ours.MONITOR_IDLE_S,
            live=Live.LINES,
        ),
        Contestant(
            "spark-stream",
            "fleetpulse spark-stream",
            ours.spark_stream,
            ours.missing_command("spark-stream"),
            "rows to the windows topic and the files, each once; default settings",
            is_ours=True,
            idle_s=ours.STREAM_IDLE_S,
            live=Live.TOPIC,
        ),
        Contestant(
            "streams-memory",
            "Kafka Streams 4.3.1, in memory",
            lambda run: _java_start(java, streams, "FleetWindows", run, "--store", "memory"),
            streams_missing,
            "merge, hopping windows with grace, onWindowClose; two threads",
            may_hold_back=True,
        ),
        Contestant(
            "streams-rocksdb",
            "Kafka Streams 4.3.1, RocksDB",
            lambda run: _java_start(java, streams, "FleetWindows", run, "--store", "rocksdb"),
            streams_missing,
            "the same on the default store",
            may_hold_back=True,
            # The store has no say in when windows are given.
            live_times=0,
        ),
        Contestant(
            "flink",
            "Flink 2.2, DataStream",
            lambda run: _java_start(java, flink, "FlinkWindows", run),
            flink_missing,
            "sliding windows with an incremental aggregate, checkpoints every 10 s, parallelism 1",
        ),
        Contestant(
            "spark-textbook",
            "Spark 4.0.5, textbook",
            lambda run: Start(
                [*_program(sys.executable, "spark_textbook.py", run), "--jars", connector], on_java
            ),
            "",
            "one stream for each family, append to CSV files; availableNow for the backlog",
        ),
        Contestant(
            "bytewax",
            "Bytewax 0.21",
            lambda run: Start(_program(str(PEERS_PYTHON), "bytewax_windows.py", run)),
            peers_missing,
            "fold_window on sliding windows; one worker",
            drain_lateness_ms=600_000,
        ),
        Contestant(
            "quix",
            "Quix Streams 3.28",
            lambda run: Start(_program(str(PEERS_PYTHON), "quix_windows.py", run)),
            peers_missing,
            "concat, hopping windows, final results, default state with changelogs; a fifth of "
            "the backlog",
            is_slow=True,
        ),
    ]


def _program(python: str, name: str, run: Run) -> list[str]:
    return [python, str(PROGRAMS / name), *run.arguments()]


def _java_start(java: Java, class_path: str, program: str, run: Run, *more: str) -> Start:
    # Flink serializes classes of the Java library by reflection (its documentation, "Java 17").
    opened = [f"--add-opens=java.base/java.{part}=ALL-UNNAMED" for part in ("lang", "util")]
    return Start(
        [str(java.executable), *opened, "-cp", class_path, program, *run.arguments(), *more]
    )

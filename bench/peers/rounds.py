"""What is done with a contestant on a running broker: a backlog is drained, or a fleet followed."""

import itertools
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from fleetpulse.domain.metric import Family
from peers.contestants import Contestant, Live
from peers.fleet import (
    LATENESS_MS,
    Expected,
    Fleet,
    expected,
    load,
    make_topic,
    make_topics,
    topic_names,
)
from peers.latency import Job, Load, measure
from peers.outputs import AlertLines, FileRows, Output, TopicRows
from peers.process import Usage
from peers.process import run as run_process
from peers.rows import check
from peers.start import Run

_TIMEOUT_S: Final = 240.0
_ROOT: Final = Path(__file__).parents[2]
_FLOOR: Final = "raw"
# A class path: the lock of the jars tells which ones.
_JARS: Final = re.compile(r"(?:[^\s:,]+\.jar[:,]?)+")


@dataclass(frozen=True, slots=True)
class Backlog:
    """Messages of a fleet that are there before a contestant starts, and their rows."""

    prefix: str
    fleet: Fleet
    wanted: dict[Family, Expected]


@dataclass(slots=True)
class Ground:
    """A running broker and a folder for what contestants write.

    `commands` has the first command of each contestant, without the paths of this machine.
    """

    bootstrap: str
    broker_pid: int
    scratch: Path
    partitions: int
    commands: dict[str, str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def backlog(self, prefix: str, fleet: Fleet) -> Backlog:
        """Send a backlog into topics of its own, and ask the reference for its rows."""
        make_topics(self.bootstrap, prefix, self.partitions)
        load(self.bootstrap, prefix, fleet)
        return Backlog(prefix, fleet, expected(fleet))

    def drain(self, one: Contestant, backlog: Backlog) -> dict[str, Any]:
        """Return what a contestant used to drain a backlog, and how right its rows are.

        With `error` where it failed, and `faults` where rows are wrong.
        """
        lateness_ms = one.drain_lateness_ms or LATENESS_MS
        messages = backlog.fleet.messages
        run = self._run(backlog.prefix, messages, lateness_ms)
        start = one.start(run)
        self._note(one, start.command)
        log_path = run.out / "log.txt"
        broker_before_s = _cpu_s(self.broker_pid)
        try:
            usage = run_process(start.command, start.environ, log_path, _TIMEOUT_S)
        except TimeoutError:
            return {"error": f"not done after {_TIMEOUT_S:g} s"}
        if usage.exit_code:
            end = log_path.read_text(encoding="utf-8", errors="replace")[-500:]
            return {"error": " ".join(f"exit code {usage.exit_code}: {end}".split())}
        found = _used(usage, messages, one.idle_s)
        broker_s = _cpu_s(self.broker_pid) - broker_before_s
        found["broker_cpu_s_per_million"] = round(broker_s / messages * 1e6, 3)
        if one.has_rows:
            try:
                checked = check(run.out, backlog.wanted, may_hold_back=one.may_hold_back)
            except ValueError as err:
                return {"error": f"a row cannot be read: {err}"}
            rows = asdict(checked)
            examples = rows.pop("examples")
            found["rows"] = rows
            if not checked.is_right:
                found["faults"] = examples
        shutil.rmtree(run.out)
        return found

    def follow(self, one: Contestant, rate: int, seconds: float) -> dict[str, Any]:
        """Return the latencies of a contestant while a fleet sends `rate` messages a second."""
        prefix = f"live-{one.name}-{next(self._numbers)}"
        make_topics(self.bootstrap, prefix, self.partitions)
        run = self._run(prefix, 0, LATENESS_MS)
        start = one.start(run)
        log_path = run.out / "log.txt"
        log_path.touch()
        files: Output = FileRows(run.out)
        alerts = files
        if one.live is Live.LINES:
            alerts = AlertLines(log_path)
        elif one.live is Live.TOPIC:
            alerts = files = TopicRows(self.bootstrap, run.windows_topic)
        job = Job(start.command, start.environ, log_path, alerts, files, one.name == _FLOOR)
        try:
            found = measure(job, Load(self.bootstrap, topic_names(prefix), rate, seconds))
        except (TimeoutError, BufferError) as err:
            # BufferError: the broker takes less than is sent.
            return {"error": str(err)}
        shutil.rmtree(run.out)
        return found

    def _run(self, prefix: str, messages: int, lateness_ms: int) -> Run:
        number = next(self._numbers)
        out = self.scratch / f"out-{number}"
        out.mkdir()
        windows_topic = f"windows-{number}"
        make_topic(self.bootstrap, windows_topic, 1)
        return Run(self.bootstrap, topic_names(prefix), out, messages, lateness_ms, windows_topic)

    def _note(self, one: Contestant, command: Sequence[str]) -> None:
        text = " ".join(command)
        for path, name in (
            (self.scratch, "SCRATCH"),
            (Path(tempfile.gettempdir()), "TMP"),
            (sys.executable, ".venv/bin/python"),
            (_ROOT, "."),
            (Path.home(), "~"),
        ):
            text = text.replace(str(path), str(name))
        self.commands.setdefault(one.name, _JARS.sub("JARS", text))


def _used(usage: Usage, messages: int, idle_s: float) -> dict[str, Any]:
    first_s = usage.events.get("first")
    done_s = usage.events.get("done", usage.ended_s) - idle_s
    millions = messages / 1e6
    found: dict[str, Any] = {
        "messages": messages,
        "cpu_s_per_million": round(usage.cpu_s / millions, 3),
        "wall_s": round(usage.ended_s - usage.started_s, 3),
        "rss_peak_mb": round(usage.rss_peak_bytes / 1e6, 1),
        "messages_per_s_with_start": round(messages / (done_s - usage.started_s)),
    }
    if first_s is not None:
        busy_cpu_s = usage.cpu_s - usage.cpu_s_at(first_s)
        found["start_s"] = round(first_s - usage.started_s, 3)
        found["messages_per_s"] = round(messages / max(done_s - first_s, 1e-3))
        found["cpu_s_per_million_without_start"] = round(busy_cpu_s / millions, 3)
    return found


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def load_average() -> float:
    """Return how many processes wanted to run, on the average of the last minute."""
    return round(os.getloadavg()[0], 2)

"""One contestant as a process, with all that it starts: what it used, and when it said what."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

_SAMPLE_EVERY_S: Final = 0.1
_LOOK_EVERY_S: Final = 0.01
_STOP_GRACE_S: Final = 20.0
# How a line of `fleetpulse monitor --json` begins that holds an alert.
ALERT: Final = b'{"event":"alert",'


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its descendants used, from start to end.

    Instants are seconds since 1970; `events` are what the process said and when. `cpu_s_at` has the
    CPU seconds used up to an instant, between two samples in proportion.
    """

    exit_code: int
    started_s: float
    ended_s: float
    cpu_s: float
    rss_peak_bytes: int
    events: Mapping[str, float]
    samples: Sequence[tuple[float, float]]

    def cpu_s_at(self, instant_s: float) -> float:
        """Return the CPU seconds that had been used at an instant."""
        before = (self.started_s, 0.0)
        for sample in self.samples:
            if sample[0] >= instant_s:
                share = (instant_s - before[0]) / max(sample[0] - before[0], 1e-9)
                return before[1] + share * (sample[1] - before[1])
            before = sample
        return before[1]


class Tree:
    """A process and its descendants, those that ended included."""

    def __init__(self, pid: int) -> None:
        """Begin with the process `pid`."""
        self._root = psutil.Process(pid)
        self._known: dict[int, psutil.Process] = {pid: self._root}
        self._cpu_s: dict[int, float] = {}
        self.rss_peak_bytes = 0

    def sample(self) -> float:
        """Take a look; return the CPU seconds that all of them have used until now."""
        with contextlib.suppress(psutil.Error):
            for child in self._root.children(recursive=True):
                self._known.setdefault(child.pid, child)
        rss_bytes = 0
        for pid, process in self._known.items():
            with contextlib.suppress(psutil.Error), process.oneshot():
                times = process.cpu_times()
                self._cpu_s[pid] = times.user + times.system
                rss_bytes += process.memory_info().rss
        self.rss_peak_bytes = max(self.rss_peak_bytes, rss_bytes)
        return sum(self._cpu_s.values())

    def end(self) -> None:
        """Kill whatever still runs."""
        for process in self._known.values():
            with contextlib.suppress(psutil.Error):
                process.kill()


class Said:
    """The first and the last thing that a process says, read from its output as it grows.

    The programs of the peers print `first` and `done` with an instant. The product's commands print
    JSON objects, whose instant is the moment at which they can be read.
    """

    def __init__(self, log_path: Path) -> None:
        """Begin at the start of the output."""
        self._path = log_path
        self._offset = 0
        self._partial = b""
        self.events: dict[str, float] = {}

    def look(self) -> None:
        """Take what is new."""
        now_s = time.time()
        if self._path.stat().st_size == self._offset:
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            added = file.read()
        self._offset += len(added)
        # Spark's progress bar ends in a carriage return.
        *lines, self._partial = (self._partial + added.replace(b"\r", b"\n")).split(b"\n")
        for line in lines:
            self._take(line, now_s)

    def _take(self, line: bytes, now_s: float) -> None:
        name, _, instant = line.partition(b" ")
        if name in (b"first", b"done"):
            with contextlib.suppress(ValueError):
                self.events.setdefault(name.decode(), float(instant))
        elif line.startswith(b'{"event":') and not line.startswith(ALERT):
            with contextlib.suppress(ValueError):
                self._take_object(json.loads(line), now_s)

    def _take_object(self, found: Mapping[str, Any], now_s: float) -> None:
        if found["event"] == "reading":
            self.events.setdefault("first", now_s)
        elif found["event"] == "batch" and found["messages"]:
            # Spark tells of a batch once it is done.
            self.events.setdefault("first", now_s - found["seconds"])
        elif found["event"] == "end":
            self.events["done"] = now_s


def run(
    command: Sequence[str],
    environ: Mapping[str, str],
    log_path: Path,
    timeout_s: float,
    work: Callable[[], bool] | None = None,
) -> Usage:
    """Run a command to its end, or until `work`, called all the time, returns False.

    Output goes to `log_path`. Raises TimeoutError when it takes longer than `timeout_s`; nothing of
    it is left running in any case.
    """
    used_before_s = _children_cpu_s()
    started_s = time.time()
    deadline_s = time.monotonic() + timeout_s
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        tree, said = Tree(process.pid), Said(log_path)
        samples: list[tuple[float, float]] = []
        next_sample_s = 0.0
        try:
            while process.poll() is None:
                if time.monotonic() >= next_sample_s:
                    samples.append((time.time(), tree.sample()))
                    next_sample_s = time.monotonic() + _SAMPLE_EVERY_S
                if time.monotonic() > deadline_s:
                    raise TimeoutError(f"not done after {timeout_s:g} s (log: {log_path})")
                if work is None:
                    said.look()
                    time.sleep(_LOOK_EVERY_S)
                elif not work():
                    _stop(process)
        finally:
            tree.end()
            process.wait()
    ended_s = time.time()
    said.look()
    # What was waited for is exact; what was left to itself (Spark's Java) only the samples know.
    used_s = max(_children_cpu_s() - used_before_s, samples[-1][1] if samples else 0.0)
    return Usage(
        process.returncode,
        started_s,
        ended_s,
        used_s,
        tree.rss_peak_bytes,
        said.events,
        samples,
    )


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_GRACE_S)
    if process.poll() is None:
        process.kill()


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

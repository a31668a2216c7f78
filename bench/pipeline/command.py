"""A command as a process, with all that it starts: what it used, and what it said when."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import IO, Any, Final, Self

from peers.process import Tree

FLEETPULSE: Final = (sys.executable, "-m", "fleetpulse")
# Often enough for the peak of a Java heap, seldom enough to cost two cores nothing.
_SAMPLE_EVERY_S: Final = 0.25
_STOP_GRACE_S: Final = 30.0
_KEPT_LINES: Final = 10
# Linux counts in KiB, macOS in bytes.
_RSS_UNIT_BYTES: Final = 1 if sys.platform == "darwin" else 1024


class CommandFailed(Exception):
    """A measured command did not end well, so there is nothing to measure."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command used and said; instants are seconds since 1970.

    `cpu_s` and `rss_peak_mb` (10^6 bytes) are of the process and its descendants. The memory of
    several processes is added up from samples, so what they share counts for each.
    """

    started_s: float
    ended_s: float
    cpu_s: float
    rss_peak_mb: float
    events: Sequence[tuple[float, str]]
    printed: str

    @property
    def wall_s(self) -> float:
        """The seconds from start to end."""
        return self.ended_s - self.started_s

    def result(self) -> dict[str, Any]:
        """Return the JSON object that it printed last."""
        found: dict[str, Any] = json.loads(self.printed.splitlines()[-1])
        return found

    def event(self, text: str) -> tuple[float, str]:
        """Return when the first event line with `text` came, and the line."""
        for instant_s, line in self.events:
            if text in line:
                return instant_s, line
        raise CommandFailed(f"no line with {text!r} among {[line for _, line in self.events]}")


class Command:
    """A running command; leaving its context stops whatever of it still runs."""

    def __init__(
        self, command: Sequence[str], folder: Path, environ: Mapping[str, str | None]
    ) -> None:
        """Start `command` in `folder`; `environ` is added to our own, None takes a name away."""
        self._command = command
        full = {**os.environ, **environ}
        self._started_s = time.time()
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env={name: value for name, value in full.items() if value is not None},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._tree = Tree(self._process.pid)
        self._has_ended = Event()
        self._ended_s = self._cpu_s = self._rss_peak_bytes = 0.0
        self._printed: list[bytes] = []
        self._events: list[tuple[float, str]] = []
        stdout, stderr = self._process.stdout, self._process.stderr
        self._threads = [
            Thread(target=self._await_end),
            Thread(target=self._sample),
            Thread(target=self._collect, args=(stdout,)),
            Thread(target=self._listen, args=(stderr,)),
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        """Give the running command."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it, in order if it lets itself be."""
        if not self._has_ended.is_set():
            # Only our thread reaps it, so its id cannot belong to anybody else yet.
            os.kill(self._process.pid, signal.SIGTERM)
            self._has_ended.wait(_STOP_GRACE_S)
        self._tree.end()
        for thread in self._threads:
            thread.join()

    def finish(self) -> Ended:
        """Wait for the end and return what it used; CommandFailed unless the exit code is 0."""
        for thread in self._threads:
            thread.join()
        if self._process.returncode:
            said = "\n".join(line for _, line in self._events[-_KEPT_LINES:])
            name = " ".join(self._command[:4])
            raise CommandFailed(f"{name}: exit code {self._process.returncode}\n{said}")
        return Ended(
            self._started_s,
            self._ended_s,
            self._cpu_s,
            self._rss_peak_bytes / 1e6,
            self._events,
            b"".join(self._printed).decode(),
        )

    def _await_end(self) -> None:
        _, status, used = os.wait4(self._process.pid, 0)
        self._ended_s = time.time()
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._cpu_s = used.ru_utime + used.ru_stime
        self._rss_peak_bytes = float(used.ru_maxrss * _RSS_UNIT_BYTES)
        self._has_ended.set()

    def _sample(self) -> None:
        sampled_cpu_s = self._tree.sample()
        while not self._has_ended.wait(_SAMPLE_EVERY_S):
            sampled_cpu_s = self._tree.sample()
        # What was waited for is exact; what was left to itself (Spark's Java) only samples know.
        self._cpu_s = max(self._cpu_s, sampled_cpu_s)
        self._rss_peak_bytes = max(self._rss_peak_bytes, self._tree.rss_peak_bytes)

    def _collect(self, stream: IO[bytes]) -> None:
        with stream:
            self._printed.extend(stream)

    def _listen(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                self._events.append((time.time(), line.decode(errors="replace").rstrip()))


def run(command: Sequence[str], folder: Path, environ: Mapping[str, str | None]) -> Ended:
    """Run a command to its end and return what it used; CommandFailed where it fails."""
    with Command(command, folder, environ) as running:
        return running.finish()

"""Runs of the sink alone, each in a process of its own, from one warm process that forks them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from injectors import CHANGING_CALLS, Traced, attach
from sink_process import content


@dataclass
class SinkBench:
    """Commits numbered batches into a folder, as far as it is let."""

    server: "subprocess.Popen[str]"
    folder: Path
    acks: Path
    scratch: Path
    scale: int = 1
    runs: int = 0
    # How many batches may be done beyond those that were reported.
    most_unreported: int = 1

    @contextmanager
    def started(self, until: int, inject: str | None = None) -> Iterator["Run"]:
        """Start a run, whose watched system calls are counted and hit where it was asked."""
        run = self._fork(until)
        traced = attach(run.pid, self.scratch / "trace", CHANGING_CALLS, inject) if inject else None
        run.traced = traced
        os.kill(run.pid, signal.SIGCONT)
        try:
            yield run
        finally:
            run.end()

    def run(self, until: int, inject: str | None = None) -> "Run":
        """Do a run to its end, whatever that is."""
        with self.started(until, inject) as run:
            run.wait()
        return run

    def acknowledged(self) -> int:
        """Return how many batches were reported as done.

        Fails where a start found fewer than were reported before it, or one that was not begun.
        """
        found = self.acks.read_bytes().rpartition(b"\n")[0] if self.acks.exists() else b""
        done = 0
        for line in found.decode().splitlines():
            if line.startswith("open "):
                opened = int(line.removeprefix("open "))
                most = done + self.most_unreported
                assert done <= opened <= most, f"{done} reported, then {opened}: {self.folder}"
                done = opened
            else:
                assert int(line) == done + 1
                done += 1
        return done

    def check(self, done: int) -> None:
        """See that the files hold exactly these batches."""
        for name, wanted in content(done, self.scale).items():
            assert (self.folder / name).read_bytes() == wanted, (name, self.folder)

    def _fork(self, until: int) -> "Run":
        assert self.server.stdin
        assert self.server.stdout
        request = {
            "folder": str(self.folder),
            "acks": str(self.acks),
            "until": until,
            "scale": self.scale,
        }
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        self.runs += 1
        return Run(int(self.server.stdout.readline()), self.server)


@dataclass
class Run:
    """A run of the sink; `status` is its wait status once it ended."""

    pid: int
    server: "subprocess.Popen[str]"
    traced: Traced | None = None
    status: int | None = None

    def wait(self) -> int:
        if self.status is None:
            assert self.server.stdout
            self.status = int(self.server.stdout.readline())
            if self.traced:
                self.traced.process.wait()
        return self.status

    def kill(self) -> None:
        if self.status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        self.kill()
        self.wait()

    @property
    def is_killed(self) -> bool:
        return self.status == signal.SIGKILL

    @property
    def exit_code(self) -> int:
        assert self.status is not None
        return os.waitstatus_to_exitcode(self.status)


@contextmanager
def sink_server(errors: Path) -> Iterator["subprocess.Popen[str]"]:
    with (
        errors.open("ab") as log,
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("sink_process.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as server,
    ):
        yield server
        assert server.stdin
        server.stdin.close()
        assert server.wait(10) == 0

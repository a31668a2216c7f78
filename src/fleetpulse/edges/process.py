"""Other commands of ours as child processes: started, heard, stopped by their own id."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import IO, Final, Self

from fleetpulse.domain.errors import FleetpulseError

# A role answers SIGTERM within five seconds; a Java process below it may take a little longer.
STOP_TIMEOUT_S: Final = 15.0
_KEPT_LINES: Final = 20


class ChildFailed(FleetpulseError):
    """A command that we started ended badly; its own message is part of ours."""


class Child:
    """One `fleetpulse` command as a process in a session of its own, so a Ctrl-C reaches only us.

    Its event lines (standard error) are passed on as they come and kept in `log`; what it prints is
    its result.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        hear: Callable[[str], None],
    ) -> None:
        """Start `fleetpulse ARGUMENTS` with these variables on top of our own."""
        self.name = arguments[0]
        self.has_spoken = Event()
        self._tail: list[str] = []
        self._process = subprocess.Popen(  # noqa: S603  our own interpreter and package
            [sys.executable, "-m", "fleetpulse", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        self._printed: list[bytes] = []
        stdout, stderr = self._process.stdout, self._process.stderr
        self._readers = [
            Thread(target=self._collect, args=(stdout,), daemon=True),
            Thread(target=self._pass_on, args=(stderr, log, hear), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        """Give the running child."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the child if it still runs: SIGTERM, then SIGKILL after STOP_TIMEOUT_S."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def is_running(self) -> bool:
        """Tell whether the process has not ended yet."""
        return self._process.poll() is None

    def result(self) -> dict[str, object]:
        """Return the JSON object that the ended child printed last, or an empty one.

        Raises ChildFailed, with the child's last lines, when its exit code was not 0.
        """
        code = self._process.wait()
        for reader in self._readers:
            reader.join()
        if code:
            said = "\n".join(self._tail) or "it said nothing"
            raise ChildFailed(f"{self.name} ended with exit code {code}:\n{said}")
        lines = b"".join(self._printed).splitlines()
        found = json.loads(lines[-1]) if lines and lines[-1].startswith(b"{") else {}
        return dict(found)

    def _collect(self, stream: IO[bytes]) -> None:
        self._printed.extend(stream)

    def _pass_on(self, stream: IO[bytes], log: Path, hear: Callable[[str], None]) -> None:
        with log.open("ab") as file:
            for line in stream:
                file.write(line)
                file.flush()
                text = line.decode(errors="replace").rstrip()
                self._tail = [*self._tail[1 - _KEPT_LINES :], text]
                hear(text)
                self.has_spoken.set()
        self.has_spoken.set()

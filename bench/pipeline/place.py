"""Where a benchmark runs: a folder of its own, datasets, and a broker with the four topics."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from peers.install import PEERS_PYTHON

from fleetpulse.edges.kafka.address import free_port
from pipeline.command import FLEETPULSE, Command, CommandFailed, Ended

_RAW: Final = Path(__file__).with_name("raw.py")
_UNSYNCED: Final = Path(__file__).with_name("unsynced.py")
_PEERS: Final = Path(__file__).with_name("peers")


@dataclass(frozen=True, slots=True)
class Fleet:
    """A simulated fleet; a row is one sample of one server."""

    servers: int
    interval_s: int
    rows: int

    @property
    def file_name(self) -> str:
        """The name of its dataset."""
        return f"fleet-{self.servers}x{self.interval_s}s-{self.rows}.csv"

    @property
    def duration_s(self) -> int:
        """The seconds of event time from the first sample to behind the last."""
        return self.rows // self.servers * self.interval_s


@dataclass(frozen=True, slots=True)
class Place:
    """A folder, and the variables for the commands that run in it; all else is as the defaults.

    Commands are noted in `commands`, by name, as a reader would type them there.
    """

    folder: Path
    runs: int
    environ: dict[str, str | None]
    commands: dict[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, folder: Path, runs: int) -> "Place":
        """Return a place whose commands see no settings of the user's."""
        hidden = [name for name in os.environ if name.startswith(("FLEETPULSE__", "MAKE"))]
        return cls(folder, runs, dict.fromkeys(hidden))

    def renewed(self) -> "Place":
        """Return the same place without noted commands."""
        return replace(self, commands={})

    def writing_to(self, output: str) -> "Place":
        """Return this place with another output folder."""
        return replace(self, environ={**self.environ, "FLEETPULSE__OUTPUT_DIR": output})

    def start(self, name: str, *arguments: str) -> Command:
        """Start a `fleetpulse` command, noted under `name`."""
        self._note(name, arguments)
        return Command([*FLEETPULSE, *arguments], self.folder, self.environ)

    def run(self, name: str, *arguments: str) -> Ended:
        """Run a `fleetpulse` command to its end; CommandFailed where it fails."""
        with self.start(name, *arguments) as running:
            return running.finish()

    def start_unsynced(self, name: str, *arguments: str) -> Command:
        """Start a `fleetpulse` command that never waits for the disk, noted under `name`."""
        self.commands[name] = " ".join(("python", f"bench/pipeline/{_UNSYNCED.name}", *arguments))
        command = [sys.executable, str(_UNSYNCED), *arguments]
        return Command(command, self.folder, self.environ)

    def run_raw(self, name: str, *arguments: str) -> Ended:
        """Run a bare client loop (raw.py) to its end; CommandFailed where it fails."""
        self.commands[name] = " ".join(("python", f"bench/pipeline/{_RAW.name}", *arguments))
        command = [sys.executable, str(_RAW), *arguments]
        with Command(command, self.folder, self.environ) as running:
            return running.finish()

    def run_peer(self, name: str, program: str, *arguments: str) -> Ended:
        """Run another system's program to its end; CommandFailed where it fails."""
        self.commands[name] = " ".join(("python", f"bench/pipeline/peers/{program}", *arguments))
        command = [str(PEERS_PYTHON), str(_PEERS / program), *arguments]
        with Command(command, self.folder, self.environ) as running:
            return running.finish()

    def dataset(self, fleet: Fleet) -> str:
        """Return the name of the fleet's dataset, made if it is not there yet.

        It ends now, as live data does: a broker refuses messages from the future.
        """
        name = fleet.file_name
        # On a whole minute, so that the number of windows does not depend on when this runs.
        now = datetime.now(UTC).replace(second=0, microsecond=0)
        start = now - timedelta(seconds=fleet.duration_s)
        arguments = (
            *("simulate", "--out", name, "--incidents", f"{name}.incidents", "--seed", "1"),
            *("--servers", str(fleet.servers), "--interval", f"{fleet.interval_s}s"),
            *("--duration", f"{fleet.duration_s}s", "--start", f"{start:%Y-%m-%dT%H:%M:%SZ}"),
        )
        if (self.folder / name).exists():
            self._note(name, arguments)
        else:
            self.run(name, *arguments)
        return name

    @contextmanager
    def node(self) -> Iterator["Place"]:
        """Give this place with a broker on a free port and the four topics as settings have them.

        The broker is stopped, and its messages are gone, at the end of the context.
        """
        port = str(free_port())
        place = replace(self, environ={**self.environ, "FLEETPULSE__BROKER__PORT": port})
        data = f"broker-{port}"
        try:
            place.run("broker", "broker", "start", "--data", data)
            place.run("topics", "topics", "create")
            yield place
        finally:
            place.run("broker stop", "broker", "stop", "--data", data)

    def _note(self, name: str, arguments: Sequence[str]) -> None:
        self.commands[name] = " ".join(("fleetpulse", *arguments))


def expect(found: object, wanted: object, what: str) -> None:
    """Raise CommandFailed unless a command did what it is measured for."""
    if found != wanted:
        raise CommandFailed(f"{what}: found {found}, wanted {wanted}")


def cut(place: Place, dataset: str, columns: Sequence[str], out: str) -> None:
    """Write some columns of a dataset, as a consumer would have written them."""
    with (
        (place.folder / dataset).open(encoding="utf-8") as source,
        (place.folder / out).open("w", encoding="utf-8") as target,
    ):
        header = source.readline().rstrip("\n").split(",")
        chosen = [header.index(column) for column in columns]
        target.write(",".join(columns) + "\n")
        for line in source:
            cells = line.rstrip("\n").split(",")
            target.write(",".join(cells[column] for column in chosen) + "\n")

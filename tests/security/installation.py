"""A secured installation on this machine: its folder, its broker, and its commands as processes.

What a command says is kept in files, so that a test can look for secrets in all of it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from fleetpulse.config import Settings, load
from fleetpulse.domain.metric import TOPICS
from fleetpulse.edges.credentials.authority import Authority
from fleetpulse.edges.credentials.folder import PRIVATE, replace_file
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.kafka.grants import Grant, set_grants
from fleetpulse.roles.access import USERS, grants, kafka_access

ROOT = Path(__file__).parents[2]
DATASET = ROOT / "data" / "sample_data.csv"
DATASET_HEADER = "ts,server_id,cpu_pct,mem_pct,net_in,net_out,disk_io"
WAIT_S = 60.0
ASKS_S = 10.0
STOPS_S = 30.0
DENIED = 77
WRONG_USE = 2
DAY = timedelta(days=1)
_number = count()


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended and what it said; no traceback and no other defect of ours is in it."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """Return the one line in which the command says why it failed."""
        (line,) = [one for one in self.err.splitlines() if one.startswith("fleetpulse: ")]
        return line


@dataclass(frozen=True, slots=True)
class Role:
    """A command that runs; `output` is its folder."""

    process: "subprocess.Popen[bytes]"
    said_path: Path
    output: Path

    def said(self) -> list[str]:
        """Return the lines of standard error so far."""
        return self.said_path.read_text().splitlines()

    def lines(self, *parts: str) -> list[str]:
        """Return the lines that hold all of the parts."""
        return [line for line in self.said() if all(part in line for part in parts)]

    def await_said(self, *parts: str) -> None:
        """Wait for a line that holds all of the parts."""
        awaited(lambda: self.lines(*parts) or self._ended(), f"{parts} in {self.said_path}")
        assert self.lines(*parts), self.said()

    def rows(self, name: str) -> list[str]:
        """Return the rows of one of its files, without the header."""
        path = self.output / name
        return path.read_text().splitlines()[1:] if path.exists() else []

    def await_rows(self, name: str, number: int) -> None:
        """Wait until one of its files has so many rows."""
        awaited(lambda: len(self.rows(name)) >= number or self._ended(), f"{number} in {name}")

    def stop(self) -> Done:
        """End it in order, and return how it ended."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOPS_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return _done(self.process.returncode, self.said_path)

    def _ended(self) -> bool:
        return self.process.poll() is not None


@dataclass(frozen=True, slots=True)
class Installation:
    """The machines of one installation; all of them are this one. `root` holds all their files."""

    root: Path
    port: int

    @classmethod
    def made(cls, root: Path, port: int) -> "Installation":
        """Make settings, certificates and passwords."""
        made = cls(root, port)
        given = root / "config.yaml"
        given.write_text(f"broker: {{port: {port}}}\n")
        command = ("security", "init", "--folder", str(made.security), "--config", str(given))
        assert made.plain(*command).code == 0
        return made

    @property
    def security(self) -> Path:
        """Return what `security init` made."""
        return self.root / "security"

    @property
    def data(self) -> Path:
        """Return the folder of the broker."""
        return self.root / "broker"

    def folder(self, machine: str) -> Path:
        return self.security / machine

    def settings(self, machine: str) -> Settings:
        return load(self.folder(machine) / "config.yaml", {}).settings

    def access(self, machine: str) -> KafkaAccess:
        """Return how a machine reaches the broker."""
        return kafka_access(self.settings(machine), lambda _line: None)

    def authority(self) -> Authority:
        return Authority.read(self.security / "ca.key", self.security / "ca.pem")

    # Its commands

    def run(self, machine: str, *arguments: str, **variables: object) -> Done:
        """Run a command on a machine to its end; `variables` are settings, `__` between parts."""
        return self.plain(*arguments, *self._config(machine), **variables)

    def plain(self, *arguments: str, **variables: object) -> Done:
        """Run a command with the settings that its arguments name."""
        process, said_path = self._started(arguments, self.root, variables)
        try:
            process.wait(WAIT_S)
        finally:
            process.kill()
        return _done(process.returncode, said_path)

    @contextmanager
    def running(self, machine: str, *arguments: str, **variables: object) -> Iterator[Role]:
        """Run a role on a machine, with an output folder of its own."""
        output = self.root / f"output-{next(_number)}"
        variables = {"output_dir": output, **variables}
        command = [*arguments, *self._config(machine)]
        process, said_path = self._started(command, self.root, variables)
        role = Role(process, said_path, output)
        try:
            yield role
        finally:
            role.stop()

    def _config(self, machine: str) -> tuple[str, str]:
        return "--config", str(self.folder(machine) / "config.yaml")

    def _started(
        self, arguments: list[str] | tuple[str, ...], folder: Path, variables: Mapping[str, object]
    ) -> "tuple[subprocess.Popen[bytes], Path]":
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FLEETPULSE_")}
        environment |= {f"FLEETPULSE__{k.upper()}": str(v) for k, v in variables.items()}
        said = self.root / "said"
        said.mkdir(exist_ok=True)
        said_path = said / f"{next(_number)}-{arguments[0]}.err"
        with said_path.open("wb") as err, said_path.with_suffix(".out").open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "fleetpulse", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                env=environment,
                # Whatever they make is open to everybody unless they see to it themselves.
                umask=0,
            )
        return process, said_path

    def produce(self, count: int, **variables: object) -> list[str]:
        """Send a dataset of its own; return its rows, which `columns` takes apart."""
        number = next(_number)
        rows = [
            f"2025-10-05T20:{row // 60 % 60:02d}:{row % 60:02d}Z,server_{number},"
            f"{row % 90}.5,{row % 80}.25,{row}.75,1.0,{row % 1000}.0"
            for row in range(count)
        ]
        path = self.root / f"dataset-{number}.csv"
        path.write_text("\n".join([DATASET_HEADER, *rows, ""]))
        done = self.run("producer", "producer", "--dataset", str(path), **variables)
        assert done.code == 0, done.err
        return rows

    # Its broker

    def broker(self, verb: str, **variables: object) -> Done:
        return self.run("broker", "broker", verb, "--data", str(self.data), **variables)

    def admin(self) -> AdminClient:
        """Return a client that may do anything."""
        return self.access("broker").client(AdminClient, {}, lambda _error: None)

    def ends(self) -> dict[str, int]:
        """Return how many messages each of the four topics has."""
        names = [self.settings("broker").topics.name(topic) for topic in TOPICS]
        asked = {TopicPartition(name, 0): OffsetSpec.latest() for name in names}
        # Its answers end with the client.
        client = self.admin()
        found = client.list_offsets(asked, request_timeout=ASKS_S)
        return {where.topic: future.result(WAIT_S).offset for where, future in found.items()}

    def granted(self) -> tuple[Grant, ...]:
        """Return what `broker start` grants."""
        return grants(self.settings("broker"))

    @contextmanager
    def without(self, *taken: Grant) -> Iterator[None]:
        """Take permissions away until the end."""
        left = [one for one in self.granted() if one not in taken]
        assert len(left) + len(taken) == len(self.granted())
        set_grants(self.access("broker"), left, USERS)
        try:
            yield
        finally:
            set_grants(self.access("broker"), self.granted(), USERS)

    # Its certificates

    def issue(self, machine: str, ends_in_s: float, hosts: tuple[str, ...] = ()) -> datetime:
        """Give a machine a new certificate that ends so soon, or ended; return when."""
        end = datetime.now(UTC) + timedelta(seconds=ends_in_s)
        content = self.authority().issue(machine, hosts, end - DAY, 1)
        replace_file(self.folder(machine) / "identity.pem", content, PRIVATE)
        return end.replace(microsecond=0)

    def renew(self, machine: str, *arguments: str) -> None:
        """Renew as a user does."""
        command = ("renew", "--folder", str(self.security), "--role", machine, *arguments)
        assert self.plain("security", *command).code == 0


def awaited(condition: Callable[[], object], why: str, within_s: float = WAIT_S) -> None:
    """Wait until a condition holds."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, why
        time.sleep(0.05)


def await_instant(end: datetime) -> None:
    """Wait until a certificate that holds up to `end`, inclusive, holds no more."""
    awaited(lambda: datetime.now(UTC) > end + timedelta(seconds=1), "time passes")


def columns(rows: Iterable[str], *chosen: int) -> list[str]:
    """Return rows with time, server, and some of the other columns."""
    return [
        ",".join([*row.split(",")[:2], *(row.split(",")[2 + one] for one in chosen)])
        for row in rows
    ]


def _done(code: int, said_path: Path) -> Done:
    out, err = (said_path.with_suffix(kind).read_text() for kind in (".out", ".err"))
    assert code != -signal.SIGKILL, f"{said_path}: it did not end"
    for defect in ("Traceback", "internal error"):
        assert defect not in out + err, err
    return Done(code, out, err)

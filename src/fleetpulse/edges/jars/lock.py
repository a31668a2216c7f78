"""Which jars run, byte for byte: a line of the lock is `SET GROUP:ARTIFACT:VERSION SIZE SHA256`."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleetpulse.domain.errors import DamagedState, UsageError

LOCK_PATH: Final = Path(__file__).with_name("jars.lock")
_HEADER: Final = "# set group:artifact:version size_bytes sha256; made by: make lock\n"


@dataclass(frozen=True, slots=True, order=True)
class Module:
    """What a jar is called in a repository."""

    group: str
    artifact: str
    version: str

    @classmethod
    def parse(cls, text: str) -> "Module":
        """Return the module of `group:artifact:version`; ValueError for anything else."""
        group, artifact, version = text.split(":")
        return cls(group, artifact, version)

    @property
    def file_name(self) -> str:
        """Return the name of its jar file."""
        return f"{self.artifact}-{self.version}.jar"

    def __str__(self) -> str:
        """Return `group:artifact:version`."""
        return f"{self.group}:{self.artifact}:{self.version}"


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of the lock."""

    set_name: str
    module: Module
    size_bytes: int
    sha256: str


def read_lock(set_name: str, lock_path: Path = LOCK_PATH) -> tuple[Jar, ...]:
    """Return the jars of a set in the order of the lock.

    Raises UsageError for a set that the lock does not have, and DamagedState where a line cannot
    be read.
    """
    jars = []
    for number, line in enumerate(lock_path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("#"):
            continue
        try:
            name, module, size_bytes, sha256 = line.split()
            jars.append(Jar(name, Module.parse(module), int(size_bytes), sha256))
        except ValueError as err:
            raise DamagedState(
                f"{lock_path}, line {number}: wanted SET GROUP:ARTIFACT:VERSION SIZE SHA256; "
                "restore the file from version control"
            ) from err
    chosen = tuple(jar for jar in jars if jar.set_name == set_name)
    if not chosen:
        raise UsageError(f"{lock_path}: there is no set {set_name!r}")
    return chosen


def write_lock(jars: Iterable[Jar], lock_path: Path = LOCK_PATH) -> None:
    """Write the jars in their order."""
    lines = (f"{jar.set_name} {jar.module} {jar.size_bytes} {jar.sha256}\n" for jar in jars)
    lock_path.write_text(_HEADER + "".join(lines), encoding="utf-8")

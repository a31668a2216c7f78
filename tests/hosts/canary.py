"""Every secret of a fleet, looked for wherever it must not be.

A secret is a password, or a line of a private key. Command lines and environments are read again
and again while a `Watch` is on, so that short-lived processes are seen, too.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

_EVERY_S = 0.01
_PROC = Path("/proc")
# A shorter line, the last of a key, may be anywhere by chance.
_SHORTEST = 32


@dataclass
class Watch:
    """What was seen of processes: the names of those looked at, and where a secret was."""

    looked_at: set[str] = field(default_factory=set)
    found: set[str] = field(default_factory=set)


def secrets_of(folder: Path) -> dict[str, bytes]:
    """Return each secret of a security folder by a name that tells it without showing it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name == "password" or path.suffix == ".password":
            found[str(path)] = path.read_bytes().strip()
        elif path.suffix in (".pem", ".key"):
            lines = _key_lines(path.read_bytes().splitlines())
            found |= {f"{path}, line {number}": line for number, line in enumerate(lines)}
    return found


def _key_lines(lines: Iterable[bytes]) -> Iterator[bytes]:
    is_key = False
    for line in lines:
        if line.startswith(b"-----"):
            is_key = b"BEGIN" in line and b"PRIVATE KEY" in line
        elif is_key and len(line) >= _SHORTEST:
            yield line


def in_files(
    secrets: Mapping[str, bytes], folders: Iterable[Path], allowed: Iterable[Path]
) -> list[str]:
    """Return the files below the folders that hold a secret but are not allowed to."""
    allowed = {path.resolve() for path in allowed}
    found = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.resolve() not in allowed:
                content = path.read_bytes()
                found += [f"{path}: {name}" for name, one in secrets.items() if one in content]
    return found


@contextmanager
def watching(secrets: Mapping[str, bytes]) -> Iterator[Watch]:
    """Look at all processes of the machine until the end."""
    watch, end = Watch(), Event()

    def run() -> None:
        while not end.wait(_EVERY_S):
            _look(secrets, watch)

    thread = Thread(target=run)
    thread.start()
    try:
        yield watch
    finally:
        end.set()
        thread.join()


def _look(secrets: Mapping[str, bytes], watch: Watch) -> None:
    for process in _PROC.iterdir():
        if not process.name.isdigit():
            continue
        for kind in ("cmdline", "environ"):
            try:
                content = (process / kind).read_bytes()
            except OSError:
                continue
            if kind == "cmdline":
                watch.looked_at.add(content.replace(b"\0", b" ").decode(errors="replace"))
            watch.found |= {
                f"{kind} of process {process.name}: {name}"
                for name, one in secrets.items()
                if one in content
            }

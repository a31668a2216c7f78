"""A disk whose memory of what was synced is kept apart from what the system shows.

It stands under the sink's system calls: each goes to the real disk, and may die, fail, or take less
than it was given. What was not synced is remembered as such. A power cut leaves in a new folder one
of the many things that a disk may hold then: each sector, length and name is as of any moment since
the last sync. SQLite's own calls do not pass here: of its files the model knows
that each commit is on the disk, and lets only what follows be torn.
"""

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Self

import pytest

# (offset, data) of a write or (length, None) of a truncation, and whether a sync of it failed: the
# system then takes it for written, which it is not.
Change = tuple[int, bytes | None, bool]

# What a disk writes whole or not at all.
SECTOR_BYTES = 512
_SQLITE_LOG = "-wal"
_SQLITE_INDEX = "-shm"
_HALF = 0.5


class Crash(BaseException):
    """The process dies here."""


@dataclass(frozen=True)
class Fault:
    """What happens at the n-th call to the disk, 0 being the next; `errno` None: death.

    Writes take `piece_bytes` at once. A death with `is_power_cut` takes what was not synced along.
    """

    at_call: int
    errno: int | None = None
    is_power_cut: bool = False
    piece_bytes: int = 1 << 20


@dataclass
class _File:
    """A file as the disk has it, and what the system still keeps from it."""

    durable: bytes = b""
    unsynced: list[Change] = field(default_factory=list)

    def synced(self) -> None:
        for at, data, is_doomed in self.unsynced:
            kept = bytes(len(data)) if data is not None and is_doomed else data
            self.durable = _changed(self.durable, at, kept)
        self.unsynced.clear()

    def failed(self) -> None:
        self.unsynced = [(at, data, True) for at, data, _ in self.unsynced]

    def wrote(self, at: int, data: bytes) -> None:
        """Remember a write; one that follows another is one with it."""
        if self.unsynced:
            last_at, last, is_doomed = self.unsynced[-1]
            if last is not None and last_at + len(last) == at and not is_doomed:
                self.unsynced[-1] = (last_at, last + data, False)
                return
        self.unsynced.append((at, data, False))

    def after_power_cut(self, chance: Random) -> bytes:
        """Return what the disk may hold: each sector, and the length, as of any moment."""
        if not self.unsynced:
            return self.durable
        size_bytes = len(self._as_of(chance))
        most = max((at + len(data or b"") for at, data, _ in self.unsynced), default=0)
        sectors = []
        for start in range(0, max(most, len(self.durable)), SECTOR_BYTES):
            sector = self._as_of(chance)[start : start + SECTOR_BYTES]
            sectors.append(sector.ljust(SECTOR_BYTES, b"\0"))
        return b"".join(sectors)[:size_bytes].ljust(size_bytes, b"\0")

    def _as_of(self, chance: Random) -> bytes:
        """Return the content at a moment since the last sync."""
        done = chance.randrange(len(self.unsynced) + 1)
        content = self.durable
        for at, data, _ in self.unsynced[:done]:
            content = _changed(content, at, data)
        if done < len(self.unsynced):
            at, data, _ = self.unsynced[done]
            if data is not None:
                content = _changed(content, at, data[: chance.randrange(len(data) + 1)])
        return content


def _changed(content: bytes, at: int, data: bytes | None) -> bytes:
    if data is None:
        return content[:at].ljust(at, b"\0")
    return content[:at].ljust(at, b"\0") + data + content[at + len(data) :]


class ModelDisk:
    """Everything below `root` on such a disk; `calls` counts what was done to it."""

    def __init__(self, root: Path, after: Path, chance: Random) -> None:
        """Take an empty folder for it, and one that is not there yet for what a death leaves."""
        self.root = root
        self.after = after
        self.calls = 0
        self.has_fired = False
        self._chance = chance
        self._fault: Fault | None = None
        self.files: dict[Path, _File] = {}
        # Names that were made and may be gone after a power cut.
        self.new_names: set[Path] = set()
        self._paths: dict[int, Path] = {}
        self._is_dead = False

    def adopt(self) -> None:
        """Take what is there as synced: it lay there for long."""
        self.new_names.clear()
        self.files = {
            path: _File(path.read_bytes())
            for path in self.root.rglob("*")
            if path.is_file() and not path.is_symlink() and not _is_sqlite(path)
        }

    def die(self, *, is_power_cut: bool) -> None:
        """Leave in `after` what the next start finds; nothing that is done later reaches it."""
        self._is_dead = True
        if is_power_cut:
            self._lose_power()
        else:
            shutil.copytree(self.root, self.after, symlinks=True)
        for path in self.after.rglob(f"*{_SQLITE_LOG}"):
            # A transaction that was being written when the process died.
            with path.open("ab") as log:
                log.write(self._chance.randbytes(self._chance.choice([0, 1, 24, 5000])))

    def successor(self, after: Path, *, is_power_cut: bool) -> Self:
        """Return the disk that the next start finds; the system keeps what a kill left unsynced."""
        found = type(self)(self.after, after, self._chance)
        if is_power_cut:
            found.adopt()
            return found
        found.files = {self._moved(path): file for path, file in self.files.items()}
        found.new_names = set(map(self._moved, self.new_names))
        return found

    @contextmanager
    def installed(self, fault: Fault | None = None) -> Iterator[None]:
        """Stand under all system calls, and let one of them go wrong."""
        self._fault, self.calls, self.has_fired = fault, 0, False
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "open", self._opening(os.open))
            patch.setattr(os, "pread", self._reading(os.pread))
            patch.setattr(os, "pwrite", self._writing(os.pwrite))
            patch.setattr(os, "ftruncate", self._truncating(os.ftruncate))
            patch.setattr(os, "fsync", self._syncing(os.fsync))
            patch.setattr(os, "mkdir", self._making(os.mkdir))
            if sys.platform == "darwin":
                patch.setattr(fcntl, "fcntl", self._syncing(fcntl.fcntl))
            else:
                patch.setattr(os, "fdatasync", self._syncing(os.fdatasync))
            yield

    def _step(self) -> None:
        """Count a call that is about to be made, and let it go wrong where it is its turn."""
        fault, call = self._fault, self.calls
        self.calls += 1
        if fault is None or call != fault.at_call or self._is_dead:
            return
        self.has_fired = True
        if fault.errno is not None:
            raise OSError(fault.errno, os.strerror(fault.errno))
        self.die(is_power_cut=fault.is_power_cut)
        raise Crash

    def _opening(self, whole: Callable[..., int]) -> Callable[..., int]:
        def opening(name: Path | str, flags: int, *rest: int) -> int:
            path = Path(name)
            if path != self.root and self.root not in path.parents:
                descriptor = whole(name, flags, *rest)
                self._paths.pop(descriptor, None)
                return descriptor
            is_new = bool(flags & os.O_CREAT) and not os.path.lexists(path)
            if is_new:
                self._step()
            descriptor = whole(name, flags, *rest)
            if is_new:
                self.new_names.add(path)
            if path.is_file() and not _is_sqlite(path):
                self.files.setdefault(path, _File())
            self._paths[descriptor] = path
            return descriptor

        return opening

    def _reading(self, whole: Callable[..., bytes]) -> Callable[..., bytes]:
        def reading(descriptor: int, size_bytes: int, offset: int) -> bytes:
            self._step()
            return whole(descriptor, size_bytes, offset)

        return reading

    def _writing(self, whole: Callable[..., int]) -> Callable[..., int]:
        def writing(descriptor: int, data: bytes, offset: int) -> int:
            self._step()
            piece = bytes(data[: self._fault.piece_bytes] if self._fault else data)
            written = whole(descriptor, piece, offset)
            self._file(descriptor).wrote(offset, piece[:written])
            return written

        return writing

    def _truncating(self, whole: Callable[..., None]) -> Callable[..., None]:
        def truncating(descriptor: int, length: int) -> None:
            self._step()
            whole(descriptor, length)
            self._file(descriptor).unsynced.append((length, None, False))

        return truncating

    def _syncing(self, whole: Callable[..., object]) -> Callable[..., object]:
        def syncing(descriptor: int, *rest: int) -> object:
            path = self._paths.get(descriptor)
            try:
                self._step()
            except OSError:
                if path in self.files:
                    self.files[path].failed()
                raise
            found = whole(descriptor, *rest)
            if path in self.files:
                self.files[path].synced()
            else:
                self.new_names = {one for one in self.new_names if one.parent != path}
            # A death between this call and the next is one of its own.
            self._step()
            return found

        return syncing

    def _making(self, whole: Callable[..., None]) -> Callable[..., None]:
        def making(name: Path | str, *rest: int) -> None:
            self._step()
            whole(name, *rest)
            if self.root in Path(name).parents:
                self.new_names.add(Path(name))

        return making

    def _file(self, descriptor: int) -> _File:
        return self.files[self._paths[descriptor]]

    def _moved(self, path: Path) -> Path:
        return self.after / path.relative_to(self.root)

    def _lose_power(self) -> None:
        self.after.mkdir()
        gone = {path for path in sorted(self.new_names) if self._chance.random() < _HALF}
        for path in sorted(self.root.rglob("*")):
            place = self._moved(path)
            if not place.parent.is_dir() or path in gone or path.name.endswith(_SQLITE_INDEX):
                continue
            if path.is_dir():
                place.mkdir()
            elif not _is_sqlite(path):
                content = self.files[path].after_power_cut(self._chance)
                place.write_bytes(content)
                shutil.copymode(path, place)
                if content == path.read_bytes():
                    shutil.copystat(path, place)
            elif path.with_name(path.name.removesuffix(_SQLITE_LOG)) not in gone:
                shutil.copy2(path, place)


def _is_sqlite(path: Path) -> bool:
    return ".state.db" in path.name

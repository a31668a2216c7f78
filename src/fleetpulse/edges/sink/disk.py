"""The system calls of the sink, with each failure explained.

A file is opened only if it is a regular one at its own place: links are never followed.
"""

import errno
import fcntl
import os
import stat
import sys
from pathlib import Path
from typing import Final

from fleetpulse.domain.errors import (
    AlreadyRunning,
    DataChanged,
    DiskError,
    FleetpulseError,
    UsageError,
)

FOLDER_MODE: Final = 0o750
_LOCK_MODE: Final = 0o600
_READ_BYTES: Final = 1 << 20
# Longer than a process id and a counter ever get.
_NOTE_BYTES: Final = 64


def explained(err: OSError, path: Path, verb: str) -> FleetpulseError:
    """Return the error that tells the user what failed: the disk, the rights or the place."""
    reason = os.strerror(err.errno) if err.errno else str(err)
    if err.errno == errno.ELOOP:
        return DataChanged(f"{path}: this is a link, wanted a file of its own; remove the link")
    if err.errno in (errno.EACCES, errno.EPERM):
        return UsageError(f"{path}: no permission to {verb} it; check its owner and mode")
    if err.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return UsageError(f"{path}: cannot {verb} it ({reason}); check output_dir")
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskError(
            f"{path}: the disk is full ({reason}, {errno.errorcode[err.errno]}); nothing is lost: "
            "make room and start this again"
        )
    name = errno.errorcode.get(err.errno or 0, "no errno")
    return DiskError(
        f"{path}: cannot {verb} it ({reason}, {name}); nothing is lost: check the disk and start "
        "this again"
    )


def open_regular(path: Path, mode: int, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    """Open a regular file, made with `mode` if it is missing, and return its descriptor.

    Raises DataChanged where a link or something else than a file is in its place.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as err:
        raise explained(err, path, "open") from err
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataChanged(f"{path}: this is no regular file, wanted one; move it away")
    return descriptor


def write_all(descriptor: int, data: bytes, offset: int) -> None:
    """Write every byte at an offset; the system may take fewer at once than it is given."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        offset += written
        view = view[written:]


def read_range(descriptor: int, start: int, end: int) -> bytes:
    """Return the bytes of [start, end), or fewer where the file ends before."""
    parts = []
    while start < end:
        part = os.pread(descriptor, min(end - start, _READ_BYTES), start)
        if not part:
            break
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def sync_data(descriptor: int) -> None:
    """Return once the file's bytes and length are on the disk itself."""
    if sys.platform == "darwin":
        # There, fsync leaves the bytes in the drive's cache.
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def sync_folder(folder: Path) -> None:
    """Return once the folder's entries are on the disk."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as err:
        raise explained(err, folder, "sync") from err


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each synced into its parent; an existing one is fine."""
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        there = missing[-1].parent if missing else folder
        # The start that made this may have died before it was synced into its parent. A parent
        # that cannot be read is not of our making.
        if (missing or _is_empty(folder)) and os.access(there.parent, os.R_OK):
            sync_folder(there.parent)
        for path in reversed(missing):
            path.mkdir(mode=FOLDER_MODE, exist_ok=True)
            sync_folder(path.parent)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as err:
        raise explained(err, folder, "make") from err


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


class Lock:
    """A lock on a file that is held until it is closed or the process ends, however it ends.

    The file also keeps a count of starts, so that a state older than the last start is noticed.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock at once, or raise AlreadyRunning."""
        self._path = path
        self._descriptor = open_regular(path, _LOCK_MODE)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            holder = self._words()[:1]
            os.close(self._descriptor)
            who = f"process {holder[0]}" if holder else "another process"
            raise AlreadyRunning(
                f"{path}: {who} already runs this role here; stop it first, or give this one "
                "another output_dir"
            ) from err
        except OSError as err:
            os.close(self._descriptor)
            raise explained(err, path, "lock") from err

    @property
    def starts(self) -> int:
        """The count of starts that was last noted, 0 where none was."""
        words = self._words()
        return int(words[1]) if len(words) > 1 else 0

    def note(self, starts: int) -> None:
        """Note this process and the count of starts."""
        note = f"{os.getpid()} {starts}\n".encode()
        try:
            os.ftruncate(self._descriptor, 0)
            write_all(self._descriptor, note, 0)
        except OSError as err:
            raise explained(err, self._path, "write") from err

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._descriptor)

    def _words(self) -> list[str]:
        try:
            text = os.pread(self._descriptor, _NOTE_BYTES, 0).decode(errors="replace")
        except OSError as err:
            raise explained(err, self._path, "read") from err
        return [word for word in text.split() if word.isdecimal()]

"""Plain files: read in chunks, and written so that a reader never sees half of one."""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from fleetpulse.domain.errors import DiskError, FleetpulseError, UsageError

# What fits into a processor's cache is read fastest.
CHUNK_BYTES: Final = 1 << 19
# Outputs are for their owner and group; the umask can only take more away.
_FILE_MODE: Final = 0o640
_OUR_MARK: Final = ".fleetpulse-run"
_WRONG_PATHS: Final = {
    errno.EISDIR: "this is a folder, wanted a file",
    errno.ENOTDIR: "a part of this path is a file, wanted a folder; check the path",
    errno.EEXIST: "a part of this path is a file, wanted a folder; check the path",
    errno.ENAMETOOLONG: "the name is too long for a file; choose a shorter one",
    errno.ELOOP: "a symbolic link is in the way; choose another path",
}


def read_chunks(path: Path, limit_bytes: int | None = None) -> Iterator[bytes]:
    """Yield the file in chunks of up to 512 KiB, whole or as far as `limit_bytes`.

    Raises UsageError where there is no readable file, and DiskError where reading fails.
    """
    left_bytes = limit_bytes
    try:
        with path.open("rb") as file:
            while left_bytes is None or left_bytes > 0:
                chunk = file.read(
                    CHUNK_BYTES if left_bytes is None else min(left_bytes, CHUNK_BYTES)
                )
                if not chunk:
                    return
                if left_bytes is not None:
                    left_bytes -= len(chunk)
                yield chunk
    except OSError as err:
        raise _explained(err, path, "read") from err


@contextmanager
def atomic_writer(path: Path) -> Iterator[Callable[[str], object]]:
    """Give a function that writes text to `path`, which appears whole and synced at the end.

    The text goes to a temporary file in the same folder (made if it is missing); on an error that
    file is removed and what was at `path` stays. Raises UsageError where no file can be (a folder
    or device is there, or there is no permission), and DiskError where writing fails.
    """
    if not path.name:
        raise _explained(IsADirectoryError(errno.EISDIR, ""), path, "write")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_device(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        descriptor = os.open(partial, flags, _FILE_MODE)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            yield file.write
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as err:
        raise _explained(err, path, "write") from err
    finally:
        # Where it cannot be removed it could not be made either, and that error is the news.
        with suppress(OSError):
            partial.unlink()


def renewed_folder(path: Path) -> None:
    """Make `path` an empty folder of ours: what an earlier run left in it is removed.

    A hidden mark tells our folders from others. Raises UsageError for a folder that holds anything
    without that mark, and DiskError where it cannot be emptied or made.
    """
    mark = path / _OUR_MARK
    try:
        if path.is_dir() and any(path.iterdir()):
            if not mark.is_file():
                raise UsageError(
                    f"{path}: this folder holds files that are not ours to remove; "
                    "choose a new or empty one"
                )
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as err:
        raise _explained(err, path, "write") from err


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """Give a hidden folder next to `beside` that is removed, with all in it, at the end.

    The folder that it lies in is made if it is missing. Raises as `atomic_writer` does.
    """
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        folder = TemporaryDirectory(prefix=f".{beside.name}.", dir=beside.parent)
    except OSError as err:
        raise _explained(err, beside.parent, "write") from err
    with folder as path:
        yield Path(path)


def _refuse_device(path: Path) -> None:
    # Renaming over /dev/null or a named pipe would take it from everybody else.
    with suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise UsageError(f"{path}: this is a device or pipe, wanted a file")


def _explained(err: OSError, path: Path, verb: str) -> FleetpulseError:
    if err.errno == errno.ENOENT and verb == "read":
        return UsageError(f"{path}: there is no such file; check the path")
    if err.errno in (errno.EACCES, errno.EPERM):
        return UsageError(f"{path}: no permission to {verb} it; check its owner and mode")
    if err.errno in _WRONG_PATHS:
        return UsageError(f"{path}: {_WRONG_PATHS[err.errno]}")
    reason = os.strerror(err.errno) if err.errno else str(err)
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskError(f"{path}: the disk is full ({reason}); make room and run this again")
    return DiskError(f"{path}: cannot {verb} it ({reason}); check the disk and run this again")

"""Plain files: read in chunks, and written so that a reader never sees half of one."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fleetpulse.domain.errors import DiskError, FleetpulseError, UsageError

CHUNK_BYTES: Final = 1 << 20
# Outputs are for their owner and group; the umask can only take more away.
_FILE_MODE: Final = 0o640


def read_chunks(path: Path, limit_bytes: int | None = None) -> Iterator[bytes]:
    """Yield the file in chunks of up to 1 MiB, whole or as far as `limit_bytes`.

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
    file is removed and what was at `path` stays. Raises DiskError where writing fails.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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
        partial.unlink(missing_ok=True)


def _explained(err: OSError, path: Path, verb: str) -> FleetpulseError:
    reason = os.strerror(err.errno) if err.errno else str(err)
    if err.errno == errno.ENOENT and verb == "read":
        return UsageError(f"{path}: there is no such file; check the path")
    if err.errno == errno.EISDIR:
        return UsageError(f"{path}: this is a folder, wanted a file")
    if err.errno in (errno.EACCES, errno.EPERM):
        return UsageError(f"{path}: no permission to {verb} it; check its owner and mode")
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskError(f"{path}: the disk is full ({reason}); make room and run this again")
    return DiskError(f"{path}: cannot {verb} it ({reason}); check the disk and run this again")

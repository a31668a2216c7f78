"""A folder of outputs: whether it can be written, and how much room its disk has."""

import errno
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fleetpulse.domain.errors import DiskError, FleetpulseError, UsageError


@dataclass(frozen=True, slots=True)
class Room:
    """The size of a disk, and what of it this user may still fill."""

    total_bytes: int
    free_bytes: int


def room_at(path: Path) -> Room:
    """Return the room of the disk that `path` lies on, or will; DiskError where it is unknown."""
    try:
        found = shutil.disk_usage(existing(path))
    except OSError as err:
        raise DiskError(f"{path}: cannot see its disk ({err.strerror}); check the disk") from err
    return Room(found.total, found.free)


def existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that is there."""
    absolute = path.absolute()
    return next(one for one in (absolute, *absolute.parents) if os.path.lexists(one))


def prove_writable(folder: Path) -> None:
    """Make a file in a folder, or in the one where it will be made, sync it and remove it.

    Raises UsageError where this user may not or the place is wrong, DiskError where the disk
    refuses.
    """
    there = existing(folder)
    try:
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        with tempfile.NamedTemporaryFile(dir=there, prefix=".fleetpulse-doctor-") as file:
            file.write(b"\n" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as err:
        raise _explained(there, err) from err


def _explained(folder: Path, err: OSError) -> FleetpulseError:
    if err.errno in (errno.EACCES, errno.EPERM):
        return UsageError(
            f"{folder}: this user may not write there; change its owner or mode, or set output_dir"
        )
    if err.errno == errno.EROFS:
        return DiskError(f"{folder}: is read-only; mount it for writing, or set output_dir")
    if err.errno in (errno.ENOTDIR, errno.ENOENT):
        return UsageError(f"{folder}: no folder; remove what is in its place, or set output_dir")
    return DiskError(
        f"{folder}: a file cannot be written ({err.strerror}); make room, or check the disk"
    )

"""Files of keys and passwords: a new folder appears whole, a file is replaced as a whole.

Everything is synced before it gets its name, so that neither a kill nor a power loss leaves half of
it there. A new folder grows in a hidden one beside its place, named after the process that makes
it; what a killed process left is removed by the next one.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleetpulse.domain.errors import DiskError, FleetpulseError, UsageError

PRIVATE: Final = 0o600
PUBLIC: Final = 0o644
_FOLDER_MODE: Final = 0o700


@dataclass(frozen=True, slots=True)
class NewFolder:
    """A folder that has not got its name yet; `path` is where it grows."""

    path: Path

    def write(self, name: str, content: bytes, mode: int) -> None:
        """Write a new file `name`, such as `broker/password`, with the folders above it."""
        target = self.path / name
        target.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        _write(target, content, mode)


@contextmanager
def new_folder(path: Path) -> Iterator[NewFolder]:
    """Give a folder to write files into, which is at `path`, all of it or not at all, at the end.

    It and the folders in it are open to their owner alone. Raises UsageError where something is at
    `path` already or where it cannot be made, and DiskError where writing fails; an error leaves
    nothing.
    """
    grows = path.with_name(f".{path.name}.{os.getpid()}.partial") if path.name else path
    try:
        if not path.name or os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        _make_parents(path)
        _remove_leftovers(path)
        grows.mkdir(mode=_FOLDER_MODE)
        try:
            yield NewFolder(grows)
            for folder, _, _ in os.walk(grows, topdown=False):
                _sync(Path(folder))
            # Onto a folder with files in it, which somebody may just have made, this fails.
            grows.rename(path)
        finally:
            shutil.rmtree(grows, ignore_errors=True)
        _sync(path.parent)
    except OSError as err:
        raise _explained(err, path) from err


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Put a new file in the place of `path`; who reads sees the old one or the new one, whole.

    Raises UsageError where it cannot be, and DiskError where writing fails; the old one stays then.
    """
    grows = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        _remove_leftovers(path)
        try:
            _write(grows, content, mode)
            grows.replace(path)
        finally:
            grows.unlink(missing_ok=True)
        _sync(path.parent)
    except OSError as err:
        raise _explained(err, path) from err


def _write(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, PRIVATE)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # whatever the umask
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_parents(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as err:  # a file in the place of a folder above
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from err


def _remove_leftovers(path: Path) -> None:
    for left in path.parent.iterdir():
        number = left.name.removeprefix(f".{path.name}.").removesuffix(".partial")
        if left.name != f".{path.name}.{number}.partial" or not number.isdecimal():
            continue
        if not _is_running(int(number)):
            with suppress(OSError):
                left.unlink() if left.is_file() else shutil.rmtree(left)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it runs, and is somebody else's
        return True
    return process != os.getpid()


def _explained(err: OSError, path: Path) -> FleetpulseError:
    if err.errno in (errno.EEXIST, errno.ENOTEMPTY):
        return UsageError(
            f"{path}: is there already and is not replaced; new certificates for its machines come "
            "from fleetpulse security renew, an installation of its own from another --folder"
        )
    reason = err.strerror or str(err)
    if isinstance(err, PermissionError | NotADirectoryError | FileNotFoundError):
        return UsageError(f"{path}: cannot be written ({reason}); choose another folder")
    return DiskError(
        f"{path}: cannot be written ({reason}); make room on the disk and run this again"
    )

"""Files that hold one secret: one line, for their owner alone.

A file that its group or others may read is refused, not read and warned about: by then the secret
has been open for as long as the file has been there. A symbolic link is refused because its mode
says nothing and who made it may not be who owns the file.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Final

from fleetpulse.domain.errors import DiskError, UsageError
from fleetpulse.domain.secret import Secret

MAX_BYTES: Final = 4096
_FOR_OTHERS: Final = 0o077
_WRONG_PATHS: Final = {
    errno.ENOENT: "there is no such file; check the path, or copy it from the security folder",
    errno.ENOTDIR: "a part of this path is a file, wanted a folder; check the path",
    errno.ELOOP: "a symbolic link, wanted the file itself; name or copy the file that it points to",
    errno.EISDIR: "this is a folder, wanted a file",
    errno.ENAMETOOLONG: "the name is too long for a file; check the path",
    errno.ENXIO: "no regular file; check the path",
    errno.EACCES: "no permission to read it; it must belong to the user who runs this command",
    errno.EPERM: "no permission to read it; it must belong to the user who runs this command",
}


def read_secret(path: Path) -> Secret:
    """Return the secret in a file, without the newline at its end.

    Raises UsageError where there is no regular file, where it is a symbolic link, where its mode
    gives group or others anything, and where it does not hold one line of 1 to 4096 bytes of
    printable UTF-8; DiskError where reading fails. No message holds any of its content.
    """
    content = read_private(path, MAX_BYTES)
    try:
        text = content.decode().removesuffix("\n")
    except UnicodeDecodeError:
        # The error carries the bytes: it must not become the cause of ours.
        text = "\0"
    if not text:
        raise UsageError(f"{path}: the file is empty, wanted one line with the secret")
    if not text.isprintable():
        raise UsageError(
            f"{path}: wanted one line of printable text (UTF-8), found line breaks, control "
            "characters or other bytes; write it again, without a carriage return"
        )
    return Secret(text)


def read_private(path: Path, limit_bytes: int) -> bytes:
    """Return the bytes of a file that nobody but its owner may touch.

    Raises UsageError where there is no regular file, where it is a symbolic link or longer than
    `limit_bytes`, and where its mode gives group or others anything; DiskError where reading fails.
    """
    try:
        with open(path, "rb", opener=_open) as file:
            _refuse_open(path, os.fstat(file.fileno()).st_mode)
            content = file.read(limit_bytes + 1)
    except OSError as err:
        if err.errno in _WRONG_PATHS:
            raise UsageError(f"{path}: {_WRONG_PATHS[err.errno]}") from err
        raise DiskError(
            f"{path}: cannot read it ({err.strerror}); check the disk and run this again"
        ) from err
    if len(content) > limit_bytes:
        raise UsageError(f"{path}: more than {limit_bytes} bytes; check that it is the right file")
    return content


def _open(path: str, flags: int) -> int:
    # O_NONBLOCK: a named pipe in its place must not hold us up until somebody writes to it.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _refuse_open(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path}: no regular file; check the path")
    if mode & _FOR_OTHERS:
        raise UsageError(
            f"{path}: its mode {stat.S_IMODE(mode):04o} lets others than its owner at the secret, "
            f"wanted 0600; do: chmod 600 {path} (and take a new secret if others were there)"
        )

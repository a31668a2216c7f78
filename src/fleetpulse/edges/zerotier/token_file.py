"""The file with the token that the local ZeroTier service wants to see.

Whoever holds the token can join this machine to any network. It is read anew at each use, shown to
nobody, and refused where every user of the machine may read it.
"""

import os
import re
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from fleetpulse.domain.errors import AccessDenied, ServiceUnreachable, UsageError
from fleetpulse.domain.secret import Secret

# Where the service keeps it, and where ZeroTier's own command looks for a user's copy.
# Source: ZeroTierOne, service/README.md and one.cpp.
_SERVICE_FILES: Final = {
    "linux": Path("/var/lib/zerotier-one/authtoken.secret"),
    "darwin": Path("/Library/Application Support/ZeroTier/One/authtoken.secret"),
}
_USER_FILES: Final = {
    "linux": ".zeroTierOneAuthToken",
    "darwin": "Library/Application Support/ZeroTier/One/authtoken.secret",
}
_MAX_BYTES: Final = 1024
_TOKEN: Final = re.compile(rb"[!-~]{1,512}")


def token_paths(given: Path | None) -> tuple[Path, ...]:
    """Return where the token may lie, best first: the given file alone, else the usual two."""
    if given is not None:
        return (given,)
    platform = "darwin" if sys.platform == "darwin" else "linux"
    return (_SERVICE_FILES[platform], Path.home() / _USER_FILES[platform])


def read_token(paths: Sequence[Path]) -> Secret:
    """Return the token of the first of these files that is there and that this user may read.

    Raises AccessDenied where files are there but none may be read, ServiceUnreachable where none
    of several is there, and UsageError where the only one is not, and for a file that others may
    read or that holds no token. No message holds any of its content.
    """
    denied = None
    for path in paths:
        try:
            return _read(path)
        except PermissionError:
            denied = denied or path
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as err:
            raise UsageError(f"{path}: cannot read it ({err.strerror}); check the path") from err
    if denied is not None:
        raise AccessDenied(
            f"{denied}: this user may not read the token of the ZeroTier service; run the command "
            "with sudo, or get a copy of it that is yours (mode 600) and name it in "
            "zerotier.token_file"
        )
    if len(paths) == 1:
        raise UsageError(f"{paths[0]}: there is no such file; correct zerotier.token_file")
    raise ServiceUnreachable(
        f"no token of a ZeroTier service in {' or '.join(map(str, paths))}; install ZeroTier and "
        "start it once, or name the file in zerotier.token_file"
    )


def _read(path: Path) -> Secret:
    with open(path, "rb", opener=_open) as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise UsageError(f"{path}: no regular file, wanted the one with ZeroTier's token")
        if mode & stat.S_IRWXO:
            raise UsageError(
                f"{path}: its mode {stat.S_IMODE(mode):04o} lets every user of this machine at "
                f"ZeroTier's token, wanted 0600 or 0640; do: chmod o= '{path}' (and take a new "
                "token if others were there)"
            )
        content = file.read(_MAX_BYTES).strip()
    if not _TOKEN.fullmatch(content):
        raise UsageError(
            f"{path}: wanted one line with the token of the ZeroTier service, found "
            f"{'nothing' if not content else 'something else'}; check zerotier.token_file"
        )
    return Secret(content.decode("ascii"))


def _open(path: str, flags: int) -> int:
    # O_NONBLOCK: a named pipe in its place must not hold us up until somebody writes to it.
    return os.open(path, flags | os.O_NONBLOCK)

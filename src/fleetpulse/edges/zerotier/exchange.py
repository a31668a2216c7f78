"""One question to the local ZeroTier service, and its answer as JSON.

The rules of an exchange: to 127.0.0.1 and nowhere else, so that the token never leaves the machine;
no redirect and no proxy; a few seconds and 1 MiB at most, however slowly it drips; and no message
quotes what came back, because whoever answers has just been told the token.
"""

import json
import socket
import time
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Final, Literal

from fleetpulse.domain.errors import AccessDenied, ServiceUnreachable
from fleetpulse.domain.secret import Secret

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_LOOPBACK: Final = "127.0.0.1"
_MAX_BYTES: Final = 1 << 20
_OK: Final = 200
_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404
_START: Final = (
    "start it (Linux: sudo systemctl start zerotier-one; macOS: open the ZeroTier app), "
    "or set zerotier.port"
)
_SOMEBODY_ELSE: Final = "is another program on that port? Check zerotier.port"

Method = Literal["GET", "POST", "DELETE"]


class _TooLong(Exception):
    """More came than an answer may be long."""


class _Socket(socket.socket):
    """A socket with one deadline and one limit for all that is read from it.

    http.client knows neither: its timeout is that of a single read, and a chunk that calls itself
    negative is read to its end.
    """

    deadline_s = 0.0
    received_bytes = 0

    def recv_into(self, buffer: "WriteableBuffer", nbytes: int = 0, flags: int = 0) -> int:
        """Read as usual; TimeoutError once the deadline is over, _TooLong beyond the limit."""
        self.settimeout(max(self.deadline_s - time.monotonic(), 0.001))
        count = super().recv_into(buffer, nbytes, flags)
        self.received_bytes += count
        if self.received_bytes > _MAX_BYTES:
            raise _TooLong
        return count


def ask(port: int, token: Secret, method: Method, path: str, timeout_s: float) -> object:
    """Return the service's answer, parsed; None where it knows no such thing (404).

    Raises AccessDenied where the token is not the service's, ServiceUnreachable where nothing
    listens, nothing comes in time, or what comes is not the answer of a ZeroTier service.
    """
    where = f"{_LOOPBACK}:{port}"
    try:
        status, body = _exchange(port, token, method, path, timeout_s)
    except ConnectionRefusedError as err:
        raise ServiceUnreachable(
            f"no ZeroTier service runs on this machine: nothing listens on {where}; {_START}"
        ) from err
    except TimeoutError as err:
        raise ServiceUnreachable(
            f"{where}{path}: no whole answer within {timeout_s:g} s; is the ZeroTier service well? "
            "Restart it, or check zerotier.port"
        ) from err
    except (HTTPException, ValueError):
        # Their messages quote the answer. A connection that ends at once is one of them, too.
        raise ServiceUnreachable(
            f"{where}{path}: no answer in HTTP, wanted that of the ZeroTier service; "
            f"{_SOMEBODY_ELSE}"
        ) from None
    except _TooLong:
        raise ServiceUnreachable(
            f"{where}{path}: more than {_MAX_BYTES >> 20} MiB, wanted the short answer of the "
            f"ZeroTier service; {_SOMEBODY_ELSE}"
        ) from None
    except OSError as err:
        raise ServiceUnreachable(
            f"{where}{path}: the connection broke ({err.strerror}); {_SOMEBODY_ELSE}"
        ) from err
    if status == _UNAUTHORIZED:
        raise AccessDenied(
            f"{where}: the ZeroTier service does not take the token (401); the file holds one of "
            "another service, or an old copy: read it again, or correct zerotier.token_file"
        )
    if status == _NOT_FOUND:
        return None
    if status != _OK:
        raise ServiceUnreachable(
            f"{where}{path}: answered {status}, wanted 200 from the ZeroTier service; "
            f"{_SOMEBODY_ELSE}"
        )
    return _parsed(f"{where}{path}", body)


def unexpected(port: int, path: str, what: str) -> ServiceUnreachable:
    """Return the error for an answer that is JSON, but not what the service sends."""
    return ServiceUnreachable(
        f"{_LOOPBACK}:{port}{path}: {what}; is the ZeroTier service older than 1.6, or "
        "another program on that port? Check zerotier.port"
    )


def _exchange(
    port: int, token: Secret, method: Method, path: str, timeout_s: float
) -> tuple[int, bytes]:
    with _Socket(socket.AF_INET, socket.SOCK_STREAM) as link:
        link.deadline_s = time.monotonic() + timeout_s
        link.settimeout(timeout_s)
        link.connect((_LOOPBACK, port))
        connection = HTTPConnection(_LOOPBACK, port)
        connection.sock = link
        headers = {"X-ZT1-Auth": token.reveal(), "Connection": "close"}
        connection.request(method, path, "{}" if method == "POST" else None, headers)
        with connection.getresponse() as response:
            # Without a size, memory for as much as the answer says it is long would be taken.
            return response.status, response.read(_MAX_BYTES)


def _parsed(where: str, body: bytes) -> object:
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError):
        raise ServiceUnreachable(
            f"{where}: no JSON, wanted that of the ZeroTier service; {_SOMEBODY_ELSE}"
        ) from None
    return parsed

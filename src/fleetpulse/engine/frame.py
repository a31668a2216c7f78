"""Facts and arrays as bytes: a signature, a version, a checksum, a header of JSON, plain arrays.

Numbers are little-endian and take as few bytes as the largest one needs.
"""

import json
import struct
import zlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fleetpulse.domain.errors import DamagedState

_START: Final = struct.Struct("<20sHII")
_NEXT_STEP: Final = "restore it from a copy, or remove it to begin anew"
_INTEGERS: Final = tuple(np.dtype(kind) for kind in ("<i1", "<i2", "<i4", "<i8"))


def framed(what: str, version: int, facts: dict[str, Any], arrays: Sequence[NDArray[Any]]) -> bytes:
    """Return facts (plain JSON) and arrays of integers or bytes; `what` they are, in 20 letters."""
    small = [_narrowed(array) for array in arrays]
    header = {"facts": facts, "arrays": [[array.dtype.str, array.size] for array in small]}
    text = json.dumps(header).encode()
    body = b"".join((text, *(np.ascontiguousarray(array).data for array in small)))
    return _START.pack(what.encode(), version, zlib.crc32(body), len(text)) + body


def unframed(
    what: str, version: int, data: bytes, where: str
) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Return the facts and the arrays, each flat; integers have 64 bits again.

    Raises DamagedState, naming `where`, if they are something else, were changed, or are of another
    version.
    """
    if len(data) < _START.size or data[:20].rstrip(b"\0") != what.encode():
        raise DamagedState(f"{where}: no {what}; {_NEXT_STEP}")
    _, found, checksum, size = _START.unpack_from(data)
    if found != version:
        raise DamagedState(
            f"{where}: the {what} is of version {found}, wanted {version}; use the Fleetpulse that "
            "wrote it, or remove it to begin anew"
        )
    body = memoryview(data)[_START.size :]
    if zlib.crc32(body) != checksum:
        raise DamagedState(f"{where}: the {what} does not match its checksum; {_NEXT_STEP}")
    header = json.loads(bytes(body[:size]))
    arrays, at = [], size
    for kind, count in header["arrays"]:
        array = np.frombuffer(body, kind, count, at)
        at += array.nbytes
        arrays.append(array.astype(np.int64) if array.dtype.kind == "i" else array)
    return header["facts"], arrays


def _narrowed(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind != "i":
        return array
    lowest, highest = int(array.min(initial=0)), int(array.max(initial=0))
    kind = next(
        kind for kind in _INTEGERS if np.iinfo(kind).min <= lowest and highest <= np.iinfo(kind).max
    )
    return array.astype(kind, copy=False)

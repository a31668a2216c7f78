"""The engine's state as bytes: a signature, a version, a checksum, a header, then plain arrays.

Numbers are little-endian. Counts take as few bytes as the largest one needs.
"""

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fleetpulse.domain.errors import DamagedState
from fleetpulse.engine.text import Ints

VERSION: Final = 1
_SIGNATURE: Final = b"fleetpulse engine"
_START: Final = struct.Struct(f"<{len(_SIGNATURE)}sHII")
_NEXT_STEP: Final = "restore it from a copy, or remove it to begin anew"
_COUNT_TYPES: Final = (np.dtype("<u1"), np.dtype("<u2"), np.dtype("<u4"))
_INTEGER: Final = np.dtype("<i8")


@dataclass(frozen=True, slots=True)
class SideState:
    """Samples, samples over and totals (limb by limb) of one metric, each (panes, servers)."""

    samples: NDArray[Any]
    samples_over: NDArray[Any]
    totals: Sequence[Ints]


@dataclass(frozen=True, slots=True)
class State:
    """All that the engine knows: `facts` is plain JSON; arrays of servers follow their ids."""

    facts: dict[str, Any]
    ids: Sequence[bytes]
    first_ms: Ints
    gone_ids: Sequence[bytes]
    gone_first_ms: Ints
    sides: tuple[SideState, SideState]


def pack(state: State) -> bytes:
    """Return a state as bytes."""
    arrays = [
        *_packed_ids(state.ids, state.first_ms),
        *_packed_ids(state.gone_ids, state.gone_first_ms),
    ]
    shapes = []
    for side in state.sides:
        shapes.append([*side.samples.shape, len(side.totals)])
        arrays += [_narrowed(side.samples), _narrowed(side.samples_over)]
        arrays += [total.astype(_INTEGER, copy=False) for total in side.totals]
    header = {
        "facts": state.facts,
        "servers": len(state.ids),
        "gone": len(state.gone_ids),
        "shapes": shapes,
        "arrays": [[array.dtype.str, array.size] for array in arrays],
    }
    text = json.dumps(header).encode()
    body = b"".join((text, *(array.tobytes() for array in arrays)))
    return _START.pack(_SIGNATURE, VERSION, zlib.crc32(body), len(text)) + body


def unpack(data: bytes, where: str) -> State:
    """Return the state in bytes that `pack` wrote.

    Raises DamagedState, naming `where`, if they are none, were changed, or are of another version.
    """
    if len(data) < _START.size or not data.startswith(_SIGNATURE):
        raise DamagedState(f"{where}: no state of the engine; {_NEXT_STEP}")
    _, version, checksum, size = _START.unpack_from(data)
    if version != VERSION:
        raise DamagedState(
            f"{where}: the engine's state is of version {version}, wanted {VERSION}; use the "
            "Fleetpulse that wrote it, or remove it to begin anew"
        )
    body = memoryview(data)[_START.size :]
    if zlib.crc32(body) != checksum:
        raise DamagedState(f"{where}: the engine's state does not match its checksum; {_NEXT_STEP}")
    header = json.loads(bytes(body[:size]))
    arrays, at = [], size
    for kind, count in header["arrays"]:
        arrays.append(np.frombuffer(body, kind, count, at).astype(np.int64))
        at += arrays[-1].size * np.dtype(kind).itemsize
    parts = iter(arrays)
    ids, first_ms = _unpacked_ids(parts)
    gone_ids, gone_first_ms = _unpacked_ids(parts)
    first, second = (
        SideState(
            next(parts).reshape(panes, servers),
            next(parts).reshape(panes, servers),
            [next(parts).reshape(panes, servers) for _ in range(limbs)],
        )
        for panes, servers, limbs in header["shapes"]
    )
    return State(header["facts"], ids, first_ms, gone_ids, gone_first_ms, (first, second))


def _packed_ids(ids: Sequence[bytes], first_ms: Ints) -> list[NDArray[Any]]:
    sizes = np.fromiter(map(len, ids), np.uint8, len(ids))
    return [sizes, np.frombuffer(b"".join(ids), np.uint8), first_ms.astype(_INTEGER, copy=False)]


def _unpacked_ids(parts: Iterator[Ints]) -> tuple[list[bytes], Ints]:
    sizes, text, first_ms = next(parts), next(parts), next(parts)
    ids, at, content = [], 0, text.astype(np.uint8).tobytes()
    for size in sizes.tolist():
        ids.append(content[at : at + size])
        at += size
    return ids, first_ms


def _narrowed(counts: NDArray[Any]) -> NDArray[Any]:
    highest = int(counts.max(initial=0))
    kind = next(kind for kind in _COUNT_TYPES if highest <= np.iinfo(kind).max)
    return counts.astype(kind)

"""The engine's state as bytes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fleetpulse.engine.frame import framed, unframed
from fleetpulse.engine.text import Ints

VERSION: Final = 1
_WHAT: Final = "state of the engine"


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
    arrays: list[NDArray[Any]] = [
        *_packed_ids(state.ids),
        state.first_ms,
        *_packed_ids(state.gone_ids),
        state.gone_first_ms,
    ]
    shapes = []
    for side in state.sides:
        shapes.append([*side.samples.shape, len(side.totals)])
        arrays += [side.samples, side.samples_over, *side.totals]
    return framed(_WHAT, VERSION, {"state": state.facts, "shapes": shapes}, arrays)


def unpack(data: bytes, where: str) -> State:
    """Return the state in bytes that `pack` wrote; raises what `unframed` raises."""
    facts, arrays = unframed(_WHAT, VERSION, data, where)
    parts = iter(arrays)
    ids, first_ms = _unpacked_ids(parts), next(parts)
    gone_ids, gone_first_ms = _unpacked_ids(parts), next(parts)
    first, second = (
        SideState(
            next(parts).reshape(panes, servers),
            next(parts).reshape(panes, servers),
            [next(parts).reshape(panes, servers) for _ in range(limbs)],
        )
        for panes, servers, limbs in facts["shapes"]
    )
    return State(facts["state"], ids, first_ms, gone_ids, gone_first_ms, (first, second))


def _packed_ids(ids: Sequence[bytes]) -> list[NDArray[Any]]:
    sizes = np.fromiter(map(len, ids), np.int64, len(ids))
    return [sizes, np.frombuffer(b"".join(ids), np.uint8)]


def _unpacked_ids(parts: Iterator[NDArray[Any]]) -> list[bytes]:
    sizes, text = next(parts), next(parts)
    ids, at, content = [], 0, text.tobytes()
    for size in sizes.tolist():
        ids.append(content[at : at + size])
        at += size
    return ids

"""Closed windows as bytes, to be kept until their messages are published."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from fleetpulse.domain.aggregate import Arithmetic
from fleetpulse.domain.closing import ClosedBy
from fleetpulse.domain.metric import FAMILIES
from fleetpulse.engine.frame import framed, unframed
from fleetpulse.engine.window import Windows

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION: Final = 1
_WHAT: Final = "closed windows"


def pack_windows(parts: Sequence[Windows]) -> bytes:
    """Return windows as bytes."""
    facts: list[dict[str, Any]] = []
    arrays: list[NDArray[Any]] = []
    for part in parts:
        facts.append(
            {
                "family": part.family.name,
                "arithmetic": part.arithmetic,
                "size_ms": part.size_ms,
                "closed_by": part.closed_by,
                "texts": list(part.texts),
                "limbs": [len(limbs) for limbs in part.totals],
            }
        )
        arrays += [part.server_ids, part.starts_ms, *part.samples, *part.samples_over]
        arrays += [*part.totals[0], *part.totals[1], *part.hundredths, part.labels]
    return framed(_WHAT, VERSION, {"parts": facts}, arrays)


def unpack_windows(data: bytes, where: str) -> list[Windows]:
    """Return the windows in bytes that `pack_windows` wrote; raises what `unframed` raises."""
    facts, arrays = unframed(_WHAT, VERSION, data, where)
    families = {family.name: family for family in FAMILIES}
    rest = iter(arrays)
    return [
        Windows(
            family=families[one["family"]],
            arithmetic=Arithmetic(one["arithmetic"]),
            size_ms=one["size_ms"],
            closed_by=ClosedBy(one["closed_by"]),
            texts=tuple(one["texts"]),
            server_ids=next(rest),
            starts_ms=next(rest),
            samples=(next(rest), next(rest)),
            samples_over=(next(rest), next(rest)),
            totals=(
                tuple(next(rest) for _ in range(one["limbs"][0])),
                tuple(next(rest) for _ in range(one["limbs"][1])),
            ),
            hundredths=(next(rest), next(rest)),
            labels=next(rest),
        )
        for one in facts["parts"]
    ]

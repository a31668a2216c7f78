"""How far a dataset was sent <-> message of the positions topic, a UTF-8 JSON object.

    {"v":1,"dataset":"3f...","run":"default","next_sample":7200,"date":"2025-10-05",
     "start_ms":null}

Its key names dataset, run and topics; see `fleetpulse.roles.replay`.
"""

import datetime as dt
import json
from dataclasses import dataclass
from typing import Any, Final

from fleetpulse.domain.errors import DamagedState

_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class ReplayPosition:
    """How far a run of a dataset has come, and what its timestamps depend on.

    `next_sample` counts the samples of the run, the first is 0. `date` is that of the dataset's
    first clock time, `start_ms` the instant that the first sample was moved to, None where the
    timestamps are the original ones.
    """

    dataset: str
    run: str
    next_sample: int
    date: dt.date
    start_ms: int | None = None


def encode_position(position: ReplayPosition) -> bytes:
    """Return the value of a position's message."""
    return json.dumps(
        {
            "v": _VERSION,
            "dataset": position.dataset,
            "run": position.run,
            "next_sample": position.next_sample,
            "date": position.date.isoformat(),
            "start_ms": position.start_ms,
        },
        separators=(",", ":"),
    ).encode()


def decode_position(payload: bytes, where: str) -> ReplayPosition:
    """Return the position in a message's value.

    Raises DamagedState, naming `where`, for anything that `encode_position` does not write: what
    follows from it would be rows sent twice or not at all.
    """
    try:
        found: dict[str, Any] = json.loads(payload)
        next_sample, start_ms = found["next_sample"], found["start_ms"]
        is_sound = (
            found["v"] == _VERSION
            and type(next_sample) is int
            and next_sample >= 0
            and (start_ms is None or type(start_ms) is int)
        )
        if is_sound:
            date = dt.date.fromisoformat(found["date"])
            return ReplayPosition(
                str(found["dataset"]), str(found["run"]), next_sample, date, start_ms
            )
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise DamagedState(
        f"{where}: wanted how far a dataset was sent, version {_VERSION}, found {payload[:60]!r}; "
        "another program or a newer fleetpulse wrote it. Send the dataset under another name "
        "(--run NAME), which begins anew"
    )

"""The fields that every input shares, checked alike whether they come as JSON or as a CSV cell.

Order of checks: presence, type, finiteness, range. A number is an IEEE double, as in JSON; an
integer stays one.
"""

import math
import re
from typing import Final

from fleetpulse.domain.metric import Metric
from fleetpulse.domain.reject import Reject, RejectClass

# Longer inputs are rejected unread.
MAX_INPUT_BYTES: Final = 64 * 1024

_SERVER_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", re.ASCII)
_NUMBER: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_INTEGER: Final = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_NOT_FINITE: Final = re.compile(r"[+-]?(?:nan|inf(?:inity)?)", re.ASCII | re.IGNORECASE)


def check_server_id(found: object) -> Reject | None:
    """Return a `bad_server_id` reject, or None for an id that is safe to print anywhere."""
    if isinstance(found, str) and _SERVER_ID.fullmatch(found):
        return None
    return Reject(
        RejectClass.BAD_SERVER_ID,
        f"server_id is {_quoted(found)}, wanted 1 to 64 of A-Z a-z 0-9 . _ : - "
        "that start with a letter or digit",
    )


def check_number(metric: Metric, found: object) -> int | float | Reject:
    """Return the number of a JSON value or a `wrong_type`, `not_finite`, `out_of_range` reject."""
    if isinstance(found, bool) or not isinstance(found, int | float):
        return Reject(RejectClass.WRONG_TYPE, f"{metric.name} is {_quoted(found)}, wanted a number")
    if isinstance(found, float) and not math.isfinite(found):
        return Reject(RejectClass.NOT_FINITE, f"{metric.name} is {found}, wanted a finite number")
    if not 0 <= found <= metric.highest:
        return Reject(
            RejectClass.OUT_OF_RANGE,
            f"{metric.name} is {_quoted(found)}, wanted 0 to {metric.highest} {metric.unit}",
        )
    return found


def check_number_text(metric: Metric, found: str) -> int | float | Reject:
    """Return the number in a CSV cell, or a reject; an empty cell is a `missing_field`."""
    text = found.strip()
    if not text:
        return Reject(RejectClass.MISSING_FIELD, f"{metric.name} is empty, wanted a number")
    if _INTEGER.fullmatch(text):
        return check_number(metric, int(text))
    if _NUMBER.fullmatch(text) or _NOT_FINITE.fullmatch(text):
        return check_number(metric, float(text))
    return check_number(metric, text)


def number_text(value: float) -> str:
    """Return the shortest text that reads back as the same number."""
    return repr(value)


def _quoted(found: object) -> str:
    # The text of nested lists could be deeper than the interpreter's recursion limit.
    return type(found).__name__ if isinstance(found, list | dict) else repr(found)[:60]

"""Closed window <-> message of the windows topic, a UTF-8 JSON object; its key is the server id.

    {"family":"cpu_mem","server_id":"a","start":"2025-10-05T20:53:00Z","end":"2025-10-05T20:53:30Z",
     "alert":"","closed_by":"watermark","metrics":{
       "cpu_pct":{"reported":59.70,"exact":"11939/200","samples":6,"samples_over":0},
       "mem_pct":{"reported":null,"exact":null,"samples":0,"samples_over":0}}}

`exact` is the quotient before rounding, as a fraction; a metric without a sample has nulls.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

from fleetpulse.codec.field import check_server_id
from fleetpulse.domain.aggregate import WindowRow
from fleetpulse.domain.clock import EPOCH, iso_text
from fleetpulse.domain.closing import ClosedBy, ClosedWindow
from fleetpulse.domain.metric import FAMILIES
from fleetpulse.domain.reject import Reject, RejectClass

_MOST_DIGITS: Final = 40
_QUOTIENT: Final = re.compile(r"-?\d+(?:/\d+)?", re.ASCII)
_FAMILY_OF: Final = {family.name: family for family in FAMILIES}
_instant = lru_cache(maxsize=4096)(iso_text)
_text = lru_cache(maxsize=64)(json.dumps)


def encode_window(window: ClosedWindow) -> bytes:
    """Return the value of a window's message; instants are in UTC."""
    row = window.row
    metrics = ",".join(
        f'"{metric.name}":{{"reported":{_decimal(reported)},"exact":{_fraction(exact)},'
        f'"samples":{samples},"samples_over":{samples_over}}}'
        for metric, reported, exact, samples, samples_over in zip(
            row.family.metrics,
            row.hundredths,
            window.exact,
            window.samples,
            window.samples_over,
            strict=True,
        )
    )
    # Server ids and the names of families and metrics hold no character that JSON escapes.
    return (
        f'{{"family":"{row.family.name}","server_id":"{row.server_id}",'
        f'"start":"{_instant(row.start_ms)}","end":"{_instant(row.end_ms)}",'
        f'"alert":{_text(row.alert)},"closed_by":"{window.closed_by}","metrics":{{{metrics}}}}}'
    ).encode()


def decode_window(payload: bytes | None) -> ClosedWindow | Reject:
    """Return the window in a message's value, or why it is none. Unknown fields are ignored."""
    if payload is None:
        return Reject(RejectClass.MALFORMED, "message has no value, wanted a window")
    try:
        found = json.loads(payload.decode(), parse_float=Decimal)
        return _window(found)
    except (RecursionError, ValueError, TypeError, KeyError, ArithmeticError) as err:
        shown = f"{type(err).__name__}: {err}"[:80]
        return Reject(RejectClass.MALFORMED, f"not a window as JSON in UTF-8 ({shown})")


def _window(found: Mapping[str, Any]) -> ClosedWindow:
    family = _FAMILY_OF[found["family"]]
    if (refused := check_server_id(found["server_id"])) is not None:
        raise ValueError(refused.reason)
    first, second = (found["metrics"][metric.name] for metric in family.metrics)
    row = WindowRow(
        family,
        found["server_id"],
        _instant_ms(found["start"]),
        _instant_ms(found["end"]),
        (_hundredths(first["reported"]), _hundredths(second["reported"])),
        str(found["alert"]),
    )
    return ClosedWindow(
        row,
        (_quotient(first["exact"]), _quotient(second["exact"])),
        (_count(first["samples"]), _count(second["samples"])),
        (_count(first["samples_over"]), _count(second["samples_over"])),
        ClosedBy(found["closed_by"]),
    )


def _instant_ms(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1)


def _decimal(hundredths: int | None) -> str:
    return "null" if hundredths is None else f"{hundredths // 100}.{hundredths % 100:02d}"


def _hundredths(reported: Decimal | int | None) -> int | None:
    if reported is None:
        return None
    number = Decimal(reported)
    # 1e9999999 is a short text and a long whole number.
    if number.adjusted() > _MOST_DIGITS:
        raise ValueError(f"{number} is no mean of a metric")
    return int(number.scaleb(2))


def _count(found: object) -> int:
    if type(found) is not int:
        raise TypeError(f"{str(found)[:20]} is no count")
    return found


def _fraction(exact: Fraction | None) -> str:
    return "null" if exact is None else f'"{exact}"'


def _quotient(text: str | None) -> Fraction | None:
    if text is None:
        return None
    if not _QUOTIENT.fullmatch(text):
        raise ValueError(f"{text[:20]} is no quotient")
    return Fraction(text)

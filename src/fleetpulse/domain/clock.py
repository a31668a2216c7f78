"""Text or number -> UTC instant in milliseconds.

Accepted: ISO 8601 date and time (`Z`, an offset, or naive in the source's zone), epoch seconds or
milliseconds, and a clock time `HH:MM:SS[.fff]`. Digits beyond the millisecond are cut. A clock time
gets its date from the source: the first one from `date`; along the source a step back of more than
12 h is the next day, and, once a midnight has passed, a step forward of more than 23 h is a late
sample of the day before. Steps are those of the clock on the wall, so that a change to or from
summer time moves no date.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import ROUND_FLOOR, Decimal
from typing import Final

from fleetpulse.domain.reject import Reject, RejectClass

_ISO: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?"
    r"(?:([Zz])|([+-])(\d\d)(?::?([0-5]\d))?)?",
    re.ASCII,
)
_CLOCK: Final = re.compile(r"(\d\d?):(\d\d):(\d\d)(?:\.(\d{1,9}))?", re.ASCII)
_EPOCH: Final = re.compile(r"\d{1,16}(?:\.\d{1,9})?", re.ASCII)

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
# Below this an epoch number is in seconds (until the year 5138), from it on in milliseconds (since
# 1973).
_FIRST_EPOCH_MS: Final = 100_000_000_000
_END_MS: Final = 253_402_300_800_000  # the year 10000: ISO text and Spark end before it
_DAY: Final = timedelta(days=1)
_ROLLOVER: Final = timedelta(hours=12)
_LATE_AFTER_MIDNIGHT: Final = timedelta(hours=23)
# Texts repeat (all servers are sampled together), so instants are remembered; this bounds the
# memory.
_REMEMBERED: Final = 10_000


@dataclass(slots=True)
class TimeReader:
    """Reads the timestamps of one source, in its order.

    `zone` is that of naive and clock times, `start_date` the date of the first clock time.
    `last_clock_ms` is the latest instant that a clock time gave so far; give it back to a new
    reader to go on where an earlier one stopped.
    """

    zone: tzinfo
    start_date: date
    last_clock_ms: int | None = None
    _instants: dict[str, int] = field(default_factory=dict)

    def read(self, found: object) -> int | Reject:
        """Return the instant in UTC milliseconds, or a `bad_time` reject."""
        if isinstance(found, str):
            known = self._instants.get(found)
            if known is not None:
                return known
        try:
            instant_ms = self._instant_ms(found)
        except (ValueError, OverflowError) as err:
            return _bad_time(found, str(err))
        if instant_ms is None:
            return _bad_time(found, "no known form")
        return instant_ms

    def _instant_ms(self, found: object) -> int | None:
        if isinstance(found, bool) or not isinstance(found, str | int | float):
            return None
        if isinstance(found, int | float):
            return _epoch_ms(str(found))
        if match := _ISO.fullmatch(found):
            instant_ms = self._iso_ms(match)
            if len(self._instants) >= _REMEMBERED:
                self._instants.clear()
            self._instants[found] = instant_ms
            return instant_ms
        if match := _CLOCK.fullmatch(found):
            return self._clock_ms(match)
        if _EPOCH.fullmatch(found):
            return _epoch_ms(found)
        return None

    def _iso_ms(self, match: re.Match[str]) -> int:
        year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
        fraction, zulu, sign, offset_h, offset_min = match.groups()[6:]
        moment = datetime(
            year, month, day, hour, minute, second, tzinfo=UTC if zulu or sign else self.zone
        )
        if sign:
            offset = timedelta(hours=int(offset_h), minutes=int(offset_min or 0))
            if offset >= timedelta(hours=24):
                raise ValueError("offset of a day or more")
            moment = moment - offset if sign == "+" else moment + offset
        return _in_range((moment - EPOCH) // _MS + _fraction_ms(fraction))

    def _clock_ms(self, match: re.Match[str]) -> int:
        hour, minute, second = (int(part) for part in match.groups()[:3])
        shown = time(hour, minute, second, _fraction_ms(match.group(4)) * 1000)
        last_ms = self.last_clock_ms
        if last_ms is None:
            local = datetime.combine(self.start_date, shown)
        else:
            last = (EPOCH + last_ms * _MS).astimezone(self.zone).replace(tzinfo=None)
            local = datetime.combine(last.date(), shown)
            if last - local > _ROLLOVER:
                local += _DAY
            elif local - last > _LATE_AFTER_MIDNIGHT and last.date() > self.start_date:
                local -= _DAY
        instant_ms = _in_range((local.replace(tzinfo=self.zone) - EPOCH) // _MS)
        self.last_clock_ms = instant_ms if last_ms is None else max(last_ms, instant_ms)
        return instant_ms


def iso_text(ts_ms: int, zone: tzinfo = UTC) -> str:
    """Return ISO 8601 with `Z` for UTC, else an offset; milliseconds only where there are some.

    >>> iso_text(1_759_697_580_000)
    '2025-10-05T20:53:00Z'
    """
    moment = (EPOCH + ts_ms * _MS).astimezone(zone)
    text = moment.isoformat(timespec="milliseconds" if ts_ms % 1000 else "seconds")
    return (
        text.replace("+00:00", "Z") if zone is UTC or moment.utcoffset() == timedelta(0) else text
    )


def clock_text(ts_ms: int, zone: tzinfo = UTC) -> str:
    """Return `HH:MM:SS` in the zone, with milliseconds only where there are some.

    >>> clock_text(1_759_697_580_000)
    '20:53:00'
    """
    moment = (EPOCH + ts_ms * _MS).astimezone(zone)
    return moment.time().isoformat(timespec="milliseconds" if ts_ms % 1000 else "seconds")


def _fraction_ms(digits: str | None) -> int:
    return int(digits[:3].ljust(3, "0")) if digits else 0


def _epoch_ms(text: str) -> int:
    # Decimals, because 1.001 * 1000 falls short of 1001 in binary and would lose a millisecond.
    number = Decimal(text)
    if not number.is_finite():
        raise ValueError("not a finite number")
    exact_ms = number if number >= _FIRST_EPOCH_MS else number * 1000
    return _in_range(int(exact_ms.to_integral_value(ROUND_FLOOR)))


def _in_range(instant_ms: int) -> int:
    if not 0 <= instant_ms < _END_MS:
        raise ValueError("before 1970 or after 9999")
    return instant_ms


def _bad_time(found: object, why: str) -> Reject:
    # The text of nested lists could be deeper than the interpreter's recursion limit.
    shown = type(found).__name__ if isinstance(found, list | dict) else str(found)[:40]
    return Reject(
        RejectClass.BAD_TIME,
        f"time is {shown!r} ({why}), wanted ISO 8601, HH:MM:SS or epoch seconds",
    )

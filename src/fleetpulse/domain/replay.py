"""How samples are played: which of them, with which timestamps, and how fast. Pure iterators."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.sample import Sample

MAX_SPEED: Final = math.inf
_SPEED: Final = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)x", re.ASCII)


class Times(StrEnum):
    """ORIGINAL timestamps, or all shifted alike so that the first one is NOW."""

    ORIGINAL = "original"
    NOW = "now"


@dataclass(frozen=True, slots=True)
class Replay:
    """How a source is played.

    `speed` is in event seconds a second (MAX_SPEED: no waiting); None is the source's own default.
    `limit` is a number of samples. `duration_s` counts in event time from the first sample.
    """

    speed: float | None = None
    times: Times = Times.ORIGINAL
    limit: int | None = None
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """When samples are due; each is counted from the first one, so delays never add up."""

    speed: float
    first_ms: int

    def due_s(self, ts_ms: int) -> float:
        """Return the seconds between sending the first sample and this one; below 0 if it is older.

        >>> Pace(speed=60, first_ms=1_000).due_s(121_000)
        2.0
        """
        return (ts_ms - self.first_ms) / 1000 / self.speed


def speed_of(text: str) -> float:
    """Return the speed in `1x`, `60x`, `0.5x` or `max` (which is MAX_SPEED).

    Raises UsageError for anything else, 0 included.

    >>> speed_of("60x")
    60.0
    """
    if text == "max":
        return MAX_SPEED
    match = _SPEED.fullmatch(text)
    if match is None or float(match[1]) == 0:
        raise UsageError(f"--speed {text[:20]}: wanted a speed such as 1x, 60x or max")
    return float(match[1])


def starting_at(samples: Iterable[Sample], start_ms: int) -> Iterator[Sample]:
    """Yield the samples, all shifted by the step that takes the first one to `start_ms`."""
    shift_ms: int | None = None
    for sample in samples:
        if shift_ms is None:
            shift_ms = start_ms - sample.ts_ms
        yield replace(sample, ts_ms=sample.ts_ms + shift_ms)


def within(samples: Iterable[Sample], duration_ms: int, *, is_ordered: bool) -> Iterator[Sample]:
    """Yield the samples before the first one's time plus `duration_ms`, which is exclusive.

    With `is_ordered` the first sample beyond that ends it; else every sample is looked at.
    """
    end_ms: int | None = None
    for sample in samples:
        if end_ms is None:
            end_ms = sample.ts_ms + duration_ms
        if sample.ts_ms < end_ms:
            yield sample
        elif is_ordered:
            return

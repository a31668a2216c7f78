"""Exact arithmetic, and the reference interpreter that every other one must equal.

A value is a decimal with at most six places; sums are integers of millionths, so neither the order
of arrival nor the partitioning can change a digit. A number is reported in hundredths, half away
from zero. All values are >= 0.
"""

import math
import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Final

from fleetpulse.domain.metric import Family, Statistic
from fleetpulse.domain.rule import Compare, RuleSet
from fleetpulse.domain.sample import Sample
from fleetpulse.domain.window import WindowSpec

_MICRO: Final = Decimal("0.000001")


class Arithmetic(StrEnum):
    """EXACT decimals, or FLOAT32 to reproduce jobs that read their columns as 32-bit floats."""

    EXACT = "exact"
    FLOAT32 = "float32"


@dataclass(frozen=True, slots=True)
class WindowRow:
    """What a window [start_ms, end_ms) of one server says.

    `hundredths` are the reported numbers, in the order of the family's metrics; None where no
    sample lies in the window. `alert` is a label or "".
    """

    family: Family
    server_id: str
    start_ms: int
    end_ms: int
    hundredths: tuple[int | None, int | None]
    alert: str


def micros(value: float) -> int:
    """Return a value in millionths, half away from zero.

    The decimal meant by a float is the shortest one that reads back as it.

    >>> micros(34.74), micros(1.2345675)
    (34740000, 1234568)
    """
    return int(Decimal(repr(value)).quantize(_MICRO, ROUND_HALF_UP).scaleb(6))


def hundredths(value: Fraction) -> int:
    """Return a value >= 0 in hundredths, half away from zero.

    >>> hundredths(Fraction(59695, 1000)), hundredths(Fraction(59694, 1000))
    (5970, 5969)
    """
    return math.floor(value * 100 + Fraction(1, 2))


def statistic(values: Sequence[float], of: Statistic, arithmetic: Arithmetic) -> Fraction:
    """Return the mean or maximum of at least one value.

    In `float32` each value is the nearest 32-bit float, the mean is taken in 64 bits, and the
    result stands for the shortest decimal that reads back as it (which is what Spark's `round`
    rounds).
    """
    if arithmetic is Arithmetic.EXACT:
        exact = [micros(value) for value in values]
        if of is Statistic.MEAN:
            return Fraction(sum(exact), len(exact) * 1_000_000)
        return Fraction(max(exact), 1_000_000)
    floats = [struct.unpack("f", struct.pack("f", value))[0] for value in values]
    number = math.fsum(floats) / len(floats) if of is Statistic.MEAN else max(floats)
    return Fraction(Decimal(repr(number)))


def fold(
    samples: Iterable[Sample], spec: WindowSpec, rules: RuleSet, arithmetic: Arithmetic
) -> list[WindowRow]:
    """Return every window row of a family, sorted by server id (in byte order) and start.

    The executable specification: slow, literal, without a watermark. Samples that hold no metric of
    the family are ignored.
    """
    family = rules.family
    first_ms: dict[str, int] = {}
    windows: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        for metric in family.metrics:
            if metric.name not in sample.values:
                continue
            ts_ms, server_id = sample.ts_ms, sample.server_id
            first_ms[server_id] = min(first_ms.get(server_id, ts_ms), ts_ms)
            for start_ms in spec.starts_covering(ts_ms):
                windows[server_id, start_ms][metric.name].append(sample.values[metric.name])
    rows = []
    for server_id, start_ms in sorted(windows, key=lambda key: (key[0].encode(), key[1])):
        if spec.is_leading_dropped and start_ms < spec.pane_start(first_ms[server_id]):
            continue
        values = windows[server_id, start_ms]
        exact = [
            statistic(values[metric.name], metric.statistic, arithmetic)
            if metric.name in values
            else None
            for metric in family.metrics
        ]
        first, second = (None if value is None else hundredths(value) for value in exact)
        judged = exact
        if rules.compare is Compare.REPORTED:
            judged = [None if n is None else Fraction(n, 100) for n in (first, second)]
        alert = rules.judge(server_id, judged)
        end_ms = start_ms + spec.size_ms
        rows.append(WindowRow(family, server_id, start_ms, end_ms, (first, second), alert))
    return rows

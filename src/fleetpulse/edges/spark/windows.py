"""Samples of all topics -> windows of all families, in one grouping; each window as a fact.

A group holds what one server measured in one window, in all families: a family without a sample in
it has no window there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sql

from fleetpulse.domain.aggregate import Arithmetic, WindowRow
from fleetpulse.domain.closing import ClosedBy, ClosedWindow
from fleetpulse.domain.metric import Family, Metric, Statistic
from fleetpulse.domain.rule import RuleSet
from fleetpulse.domain.window import WindowSpec
from fleetpulse.edges.spark import columns

AT: Final = "at"
TS: Final = "ts_ms"
SERVER: Final = "server_id"
_WINDOW: Final = "window"
_START: Final = "start_ms"
_MICROS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Meaning:
    """What windows are made of: where they lie, the rules of each family, how numbers add up."""

    windows: WindowSpec
    rules: tuple[RuleSet, ...]
    arithmetic: Arithmetic

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Return the metrics of all families."""
        return tuple(metric for one in self.rules for metric in one.family.metrics)


@dataclass(frozen=True, slots=True)
class FoundWindow:
    """A window of one server and family; pairs follow the metrics.

    `first_ms` is the earliest of its samples.
    """

    row: WindowRow
    exact: tuple[Fraction | None, Fraction | None]
    samples: tuple[int, int]
    samples_over: tuple[int, int]
    first_ms: int

    def closed(self, closed_by: ClosedBy) -> ClosedWindow:
        """Return it as closed for this reason."""
        return ClosedWindow(self.row, self.exact, self.samples, self.samples_over, closed_by)


def values_of(metrics: Sequence[Metric], meaning: Meaning) -> list[Column]:
    """Return the columns that a sample brings to its windows, read from the metrics' text."""
    found = []
    for rules in meaning.rules:
        for side, metric in enumerate(rules.family.metrics):
            if metric in metrics:
                value = columns.read_value(metric, meaning.arithmetic)
                is_over = columns.is_over(rules, side, sql.col(SERVER), value, meaning.arithmetic)
                found += [value, is_over.alias(_over(metric))]
    return found


def windowed(samples: DataFrame, meaning: Meaning) -> DataFrame:
    """Return the windows of samples with the columns `at`, `ts_ms`, `server_id` and the values.

    Rows without a server are notices. They must stay in: Spark would move a filter on the server to
    below the watermark, which notices are there to move.
    """
    groups = samples.groupBy(
        SERVER, columns.window_of(sql.col(AT), meaning.windows).alias(_WINDOW)
    ).agg(*(one for rules in meaning.rules for one in _aggregates(rules.family, meaning)))
    return groups.select(
        SERVER,
        sql.unix_millis(sql.col(f"{_WINDOW}.start")).alias(_START),
        *(one for rules in meaning.rules for one in _results(rules, meaning)),
    )


def found_windows(row: Sequence[Any], meaning: Meaning) -> Iterator[FoundWindow]:
    """Yield the window of each family that has samples in a row of `windowed`."""
    server_id, start_ms, *parts = row
    if server_id is None:
        return
    end_ms = start_ms + meaning.windows.size_ms
    for number, rules in enumerate(meaning.rules):
        first_ms, alert, *sides = parts[10 * number : 10 * number + 10]
        if first_ms is None:
            continue
        first, second = sides[:4], sides[4:]
        one, other = rules.family.metrics
        yield FoundWindow(
            WindowRow(rules.family, server_id, start_ms, end_ms, (first[0], second[0]), alert),
            (_exact(one, first, meaning.arithmetic), _exact(other, second, meaning.arithmetic)),
            (first[2], second[2]),
            (first[3], second[3]),
            first_ms,
        )


def first_seen(windows: DataFrame, meaning: Meaning) -> Iterator[tuple[Family, str, int]]:
    """Yield the earliest sample of each family and server in rows of `windowed`."""
    names = [_first(rules.family) for rules in meaning.rules]
    earliest = windows.groupBy(SERVER).agg(*(sql.min(name).alias(name) for name in names))
    for server_id, *found in earliest.where(sql.col(SERVER).isNotNull()).collect():
        for rules, first_ms in zip(meaning.rules, found, strict=True):
            if first_ms is not None:
                yield rules.family, server_id, first_ms


def _aggregates(family: Family, meaning: Meaning) -> Iterator[Column]:
    has_value = [sql.col(metric.name).isNotNull() for metric in family.metrics]
    yield sql.min(sql.when(has_value[0] | has_value[1], sql.col(TS))).alias(_first(family))
    for metric in family.metrics:
        yield from columns.aggregates_of(metric, meaning.arithmetic)
        yield sql.count_if(sql.col(_over(metric))).alias(_over(metric))


def _results(rules: RuleSet, meaning: Meaning) -> Iterator[Column]:
    family = rules.family
    found = [columns.aggregate(metric, meaning.arithmetic) for metric in family.metrics]
    yield sql.col(_first(family))
    yield columns.verdict(rules, sql.col(SERVER), found).alias(f"{family.name}_alert")
    for one in found:
        name = one.metric.name
        yield one.hundredths().alias(name)
        yield sql.col(f"{name}_amount")
        yield sql.col(f"{name}_count")
        yield sql.col(_over(one.metric))


def _first(family: Family) -> str:
    return f"{family.name}_first_ms"


def _over(metric: Metric) -> str:
    return f"{metric.name}_over"


def _exact(metric: Metric, side: Sequence[Any], arithmetic: Arithmetic) -> Fraction | None:
    _, amount, count, _ = side
    if not count:
        return None
    if arithmetic is Arithmetic.FLOAT32:
        return Fraction(Decimal(repr(amount)))
    return Fraction(amount, _MICROS * (count if metric.statistic is Statistic.MEAN else 1))

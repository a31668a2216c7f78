"""What the window rows of a family say in a few numbers, counted while they pass."""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from fleetpulse.domain.aggregate import WindowRow
from fleetpulse.domain.rule import RuleSet

WORST_WINDOWS: Final = 5


@dataclass(frozen=True, slots=True)
class WorstWindow:
    """A window with an alert, and how bad it is by its reported numbers.

    `limits_met` counts the limits that they are over, `ratio` is the largest number in units of its
    own limit.
    """

    row: WindowRow
    limits_met: int
    ratio: Fraction

    def rank(self) -> tuple[int, Fraction, int, bytes]:
        """Return a key that sorts the worst first: limits met, ratio, then earliest, then id."""
        return (-self.limits_met, -self.ratio, self.row.start_ms, self.row.server_id.encode())


@dataclass(frozen=True, slots=True)
class WindowSummary:
    """Rows, windows by label (every label of the rules, 0 where it did not occur), the worst."""

    rows: int
    alerts: Mapping[str, int]
    worst: tuple[WorstWindow, ...]


@dataclass(slots=True)
class WindowTally:
    """Counts the rows of one family; memory does not grow with them."""

    rules: RuleSet
    _rows: int = 0
    _alerts: dict[str, int] = field(default_factory=dict)
    _worst: list[WorstWindow] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start every label at none."""
        thresholds = [self.rules.thresholds, *(one.thresholds for one in self.rules.overrides)]
        labels = [threshold.label for pair in thresholds for threshold in pair]
        self._alerts = dict.fromkeys([*labels, self.rules.both_label], 0)

    def counted(self, rows: Iterable[WindowRow]) -> Iterator[WindowRow]:
        """Yield the rows as they are, counting each."""
        for row in rows:
            self._rows += 1
            if row.alert:
                self._alerts[row.alert] += 1
                candidates = [*self._worst, self._judged(row)]
                self._worst = heapq.nsmallest(WORST_WINDOWS, candidates, key=WorstWindow.rank)
            yield row

    def summary(self) -> WindowSummary:
        """Return the numbers so far."""
        return WindowSummary(self._rows, dict(self._alerts), tuple(self._worst))

    def _judged(self, row: WindowRow) -> WorstWindow:
        pairs = [
            (threshold, Fraction(number, 100))
            for threshold, number in zip(
                self.rules.thresholds_for(row.server_id), row.hundredths, strict=True
            )
            if number is not None
        ]
        limits_met = sum(threshold.is_met(number) for threshold, number in pairs)
        # A limit of zero is no unit to measure in; a millionth, the smallest other one, is.
        ratio = max(
            number / Fraction(threshold.limit_micros or 1, 1_000_000) for threshold, number in pairs
        )
        return WorstWindow(row, limits_met, ratio)

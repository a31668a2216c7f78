"""Rules compiled to arrays: what a sample is held against, and the labels of closed windows."""

import re
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from fleetpulse.domain.aggregate import Arithmetic, hundredths
from fleetpulse.domain.metric import Statistic
from fleetpulse.domain.rule import Compare, Operator, RuleSet, Threshold
from fleetpulse.engine.text import Flags, Floats, Ints
from fleetpulse.engine.units import MICROS, bar
from fleetpulse.engine.window import NOT_REPORTED, Windows

_MICROS_OF_HUNDREDTH = MICROS // 100


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The rules of a family, ready to be applied to many servers at once.

    Servers whose thresholds are the same form a group: 0 is the default, 1 the first override.
    """

    rules: RuleSet
    arithmetic: Arithmetic
    texts: tuple[str, ...] = field(init=False)
    _groups: tuple[tuple[Threshold, Threshold], ...] = field(init=False)
    _patterns: tuple[re.Pattern[str], ...] = field(init=False)
    _bars: tuple[Ints | Floats, Ints | Floats] = field(init=False)

    def __post_init__(self) -> None:
        """Compile globs, limits and labels."""
        groups = (self.rules.thresholds, *(one.thresholds for one in self.rules.overrides))
        texts = [""]
        for first, second in groups:
            texts += [first.label, second.label, self.rules.both_label]
        patterns = tuple(re.compile(one.pattern()) for one in self.rules.overrides)
        bars = tuple(
            np.array([bar(pair[side], self.arithmetic) for pair in groups]) for side in (0, 1)
        )
        for name, value in (
            ("texts", tuple(texts)),
            ("_groups", groups),
            ("_patterns", patterns),
            ("_bars", bars),
        ):
            object.__setattr__(self, name, value)

    def group(self, server_id: str) -> int:
        """Return the group of a server: the first override that matches, or the default."""
        for number, pattern in enumerate(self._patterns, start=1):
            if pattern.match(server_id):
                return number
        return 0

    def are_over(self, side: int, judged: Ints | Floats, groups: Ints) -> Flags:
        """Tell which single values, of servers in these groups, meet their thresholds."""
        bars = self._bars[side]
        found: Flags = judged >= (bars[0] if len(bars) == 1 else bars[groups])
        return found

    def judged(self, windows: Windows, groups: Ints) -> Windows:
        """Return the windows with their reported numbers and labels."""
        if self.arithmetic is Arithmetic.EXACT:
            return self._judged_exact(windows, groups)
        return self._judged_one_by_one(windows)

    def _judged_exact(self, windows: Windows, groups: Ints) -> Windows:
        reported, met = [], np.zeros(len(windows), np.int64)
        for side, metric in enumerate(windows.family.metrics):
            (total,), count = windows.totals[side], windows.samples[side]
            divisor = count if metric.statistic is Statistic.MEAN else (count > 0).astype(np.int64)
            half = divisor * (_MICROS_OF_HUNDREDTH // 2)
            # Half away from zero is a floor here, since no value is negative.
            number = (total + half) // np.maximum(divisor * _MICROS_OF_HUNDREDTH, 1)
            limit = np.array([pair[side].limit_micros for pair in self._groups])[groups]
            is_above = np.array([pair[side].operator is Operator.ABOVE for pair in self._groups])
            if self.rules.compare is Compare.REPORTED:
                is_over = number * _MICROS_OF_HUNDREDTH >= limit + is_above[groups]
            else:
                is_over = total >= limit * divisor + is_above[groups]
            met += np.where(is_over & (count > 0), side + 1, 0)
            reported.append(np.where(count > 0, number, NOT_REPORTED))
        labels = np.where(met > 0, 3 * groups + met, 0)
        return replace(windows, hundredths=(reported[0], reported[1]), labels=labels)

    def _judged_one_by_one(self, windows: Windows) -> Windows:
        reported = np.full((2, len(windows)), NOT_REPORTED, np.int64)
        labels = np.zeros(len(windows), np.int64)
        exact = zip(windows.exact(0), windows.exact(1), strict=True)
        for row, (server, values) in enumerate(zip(windows.server_ids, exact, strict=True)):
            judged: list[Fraction | None] = list(values)
            for side, value in enumerate(values):
                if value is not None:
                    number = hundredths(value)
                    reported[side, row] = number
                    if self.rules.compare is Compare.REPORTED:
                        judged[side] = Fraction(number, 100)
            labels[row] = self.texts.index(self.rules.judge(server.decode("ascii"), judged))
        return replace(windows, hundredths=(reported[0], reported[1]), labels=labels)

"""What closed windows say in a few numbers, without an object for each.

The numbers are those of domain/summary.py (tests/property/test_engine_summary.py); but ratios that
a double cannot tell apart count as equal where it is chosen which windows may be among the worst.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from fleetpulse.domain.rule import Operator, RuleSet
from fleetpulse.domain.summary import WORST_WINDOWS, WindowSummary, WindowTally
from fleetpulse.engine.units import MICROS
from fleetpulse.engine.window import Windows

_MICROS_OF_HUNDREDTH: Final = MICROS // 100


def summary_of(parts: Sequence[Windows], rules: RuleSet) -> WindowSummary:
    """Return how many windows there are, those with each label, and the worst of them."""
    tally = WindowTally(rules)
    alerts = dict(tally.summary().alerts)
    for part in parts:
        counts = np.bincount(part.labels, minlength=len(part.texts)).tolist()
        for text, count in zip(part.texts[1:], counts[1:], strict=True):
            alerts[text] += count
        for _ in tally.counted(_worst(part.alerting(), rules).rows()):
            pass
    return WindowSummary(sum(map(len, parts)), alerts, tally.summary().worst)


def _worst(windows: Windows, rules: RuleSet) -> Windows:
    """Return the worst of windows that all have an alert, as `WorstWindow.rank` sorts them."""
    ids, which = np.unique(windows.server_ids, return_inverse=True)
    thresholds = [rules.thresholds_for(name.decode("ascii")) for name in ids.tolist()]
    limits_met = np.zeros(len(windows), np.int64)
    ratio = np.zeros(len(windows))
    for side in (0, 1):
        limits = np.array([pair[side].limit_micros for pair in thresholds], np.int64)[which]
        is_above = np.array(
            [pair[side].operator is Operator.ABOVE for pair in thresholds], np.int64
        )
        # No sample is less than nothing: it meets no limit, and its ratio is not the larger one.
        found = windows.hundredths[side] * _MICROS_OF_HUNDREDTH
        limits_met += found >= limits + is_above[which]
        np.maximum(ratio, found / np.maximum(limits, 1), out=ratio)
    # What is equal keeps the order of windows: by start, then by id.
    return windows.taken(np.lexsort((-ratio, -limits_met))[:WORST_WINDOWS])

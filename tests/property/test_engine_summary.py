"""The engine's summary of windows against the one that is counted row by row."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.domain.aggregate import Arithmetic, WindowRow
from fleetpulse.domain.closing import ClosedBy
from fleetpulse.domain.metric import CPU_MEM, CPU_PCT, MEM_PCT
from fleetpulse.domain.rule import Compare, Operator, Override, RuleSet, Threshold
from fleetpulse.domain.summary import WindowTally
from fleetpulse.engine import Windows, summary_of

SERVERS = ("a", "b", "db1", "db2")
limits = st.sampled_from([0, 1, 50_000_000, 50_005_000, 80_000_000])
# None is a metric without a sample; few numbers, so that many windows are equally bad.
numbers = st.sampled_from([None, 0, 4999, 5000, 5001, 8000, 8001, 10_000])


@st.composite
def rule_sets(draw: st.DrawFn) -> RuleSet:
    def pair(name: str) -> tuple[Threshold, Threshold]:
        first, second = (
            Threshold(metric, draw(st.sampled_from(Operator)), draw(limits), f"{name}{metric.name}")
            for metric in (CPU_PCT, MEM_PCT)
        )
        return first, second

    # Two of the groups share their labels.
    names = draw(st.sampled_from([(), ("db",), ("", "db")]))
    globs = ("db1", "db?")
    overrides = tuple(Override(glob, pair(name)) for glob, name in zip(globs, names, strict=False))
    return RuleSet(CPU_MEM, pair(""), "both", draw(st.sampled_from(Compare)), overrides)


def windows_of(rules: RuleSet, rows: Sequence[WindowRow]) -> Windows:
    """Columns of rows, as the engine orders them: by end, then by server."""
    rows = sorted(rows, key=lambda row: (row.start_ms, row.server_id))
    texts = ["", *WindowTally(rules).summary().alerts]
    none = np.zeros(len(rows), np.int64)
    first, second = (
        np.array([-1 if (one := row.hundredths[side]) is None else one for row in rows], np.int64)
        for side in (0, 1)
    )
    return Windows(
        family=CPU_MEM,
        arithmetic=Arithmetic.EXACT,
        size_ms=30_000,
        closed_by=ClosedBy.END,
        texts=texts,
        server_ids=np.array([row.server_id.encode() for row in rows], "S8"),
        starts_ms=np.array([row.start_ms for row in rows], np.int64),
        samples=(none, none),
        samples_over=(none, none),
        totals=((none,), (none,)),
        hundredths=(first, second),
        labels=np.array([texts.index(row.alert) for row in rows], np.int64),
    )


@st.composite
def fleets(draw: st.DrawFn) -> tuple[RuleSet, list[WindowRow]]:
    rules = draw(rule_sets())
    one = st.tuples(st.sampled_from(SERVERS), st.integers(0, 9), numbers, numbers)
    rows = []
    labels = list(WindowTally(rules).summary().alerts)
    for server, place, first, second in draw(
        st.lists(
            one,
            # More than the worst, mostly: else nothing is chosen.
            min_size=draw(st.sampled_from([0, 10, 25])),
            max_size=40,
            unique_by=lambda found: found[:2],
        )
    ):
        # Which label a window has says nothing here: `compare: exact` judges other numbers.
        has_alert = (first, second) != (None, None) and draw(st.integers(0, 3)) > 0
        alert = draw(st.sampled_from(labels)) if has_alert else ""
        start_ms = 10_000 * place
        rows.append(WindowRow(CPU_MEM, server, start_ms, start_ms + 30_000, (first, second), alert))
    return rules, rows


@given(fleets(), st.integers(0, 40))
def test_the_summary_is_that_of_the_rows(fleet: tuple[RuleSet, list[WindowRow]], cut: int) -> None:
    rules, rows = fleet
    tally = WindowTally(rules)
    assert list(tally.counted(rows)) == rows
    parts = [windows_of(rules, rows[:cut]), windows_of(rules, rows[cut:])]
    assert summary_of(parts, rules) == tally.summary()

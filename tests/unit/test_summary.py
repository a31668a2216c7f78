from fractions import Fraction

from fleetpulse.config import Settings
from fleetpulse.domain.aggregate import WindowRow
from fleetpulse.domain.metric import CPU_MEM
from fleetpulse.domain.summary import WORST_WINDOWS, WindowSummary, WindowTally

RULES = Settings().rule_set(CPU_MEM)
CPU, MEM = (threshold.label for threshold in RULES.thresholds)
BOTH = RULES.both_label


def row(
    cpu: int | None, mem: int | None, alert: str, *, server_id: str = "a", start_s: int = 0
) -> WindowRow:
    """Numbers are in hundredths; the default limits are 80 and 89."""
    start_ms = start_s * 1000
    return WindowRow(CPU_MEM, server_id, start_ms, start_ms + 30_000, (cpu, mem), alert)


def summary_of(*rows: WindowRow) -> WindowSummary:
    tally = WindowTally(RULES)
    assert list(tally.counted(rows)) == list(rows)
    return tally.summary()


def test_rows_are_counted_and_every_label_is_listed() -> None:
    found = summary_of(row(8000, 1, CPU), row(1, 1, ""), row(9000, 8900, BOTH), row(8100, 1, CPU))

    assert found.rows == 4
    assert found.alerts == {CPU: 2, MEM: 0, BOTH: 1}


def test_labels_of_overrides_are_listed() -> None:
    rules = Settings.model_validate(
        {"rules": {"cpu_mem": {"overrides": {"db*": {"cpu_pct": {"label": "database busy"}}}}}}
    ).rule_set(CPU_MEM)

    assert WindowTally(rules).summary().alerts == {CPU: 0, MEM: 0, "database busy": 0, BOTH: 0}


def test_no_row_gives_no_worst_window() -> None:
    assert summary_of() == WindowSummary(0, {CPU: 0, MEM: 0, BOTH: 0}, ())


def test_a_window_without_an_alert_is_never_among_the_worst() -> None:
    assert summary_of(row(7999, 8899, "")).worst == ()


def test_two_limits_are_worse_than_one_that_is_further_exceeded() -> None:
    one, two = row(10_000, 100, CPU), row(8000, 8900, BOTH)

    assert [worst.row for worst in summary_of(one, two).worst] == [two, one]


def test_the_largest_number_in_units_of_its_limit_decides_between_equal_counts() -> None:
    cpu = row(8800, 100, CPU)  # 88/80 = 1.1
    mem = row(100, 9700, MEM)  # 97/89 = 1.0898...

    worst = summary_of(mem, cpu).worst

    assert [one.row for one in worst] == [cpu, mem]
    assert [one.ratio for one in worst] == [Fraction(11, 10), Fraction(97, 89)]
    assert [one.limits_met for one in worst] == [1, 1]


def test_equal_windows_are_ordered_by_start_and_then_by_server_in_byte_order() -> None:
    rows = [
        row(9000, 1, CPU, server_id="a", start_s=10),
        row(9000, 1, CPU, server_id="a"),
        row(9000, 1, CPU, server_id="B"),
    ]

    found = [(one.row.start_ms, one.row.server_id) for one in summary_of(*rows).worst]

    assert found == [(0, "B"), (0, "a"), (10_000, "a")]


def test_only_the_worst_are_kept() -> None:
    rows = [row(8000 + step, 1, CPU, start_s=10 * step) for step in range(20)]

    worst = summary_of(*rows).worst

    assert [one.row for one in worst] == list(reversed(rows))[:WORST_WINDOWS]


def test_a_metric_without_a_sample_counts_for_nothing() -> None:
    (worst,) = summary_of(row(None, 8900, MEM)).worst

    assert (worst.limits_met, worst.ratio) == (1, Fraction(1))


def test_a_limit_of_zero_is_measured_in_millionths() -> None:
    rules = Settings.model_validate(
        {"rules": {"cpu_mem": {"cpu_pct": {"op": ">", "limit": 0, "label": CPU}}}}
    ).rule_set(CPU_MEM)
    tally = WindowTally(rules)
    list(tally.counted([row(1, None, CPU)]))

    (worst,) = tally.summary().worst

    assert (worst.limits_met, worst.ratio) == (1, Fraction(10_000))

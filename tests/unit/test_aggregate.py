import random
from collections.abc import Mapping
from fractions import Fraction

import pytest

from fleetpulse.domain.aggregate import Arithmetic, WindowRow, fold, hundredths, micros, statistic
from fleetpulse.domain.metric import (
    CPU_MEM,
    CPU_PCT,
    DISK_IO,
    MEM_PCT,
    NET_DISK,
    NET_IN,
    Statistic,
)
from fleetpulse.domain.rule import Compare, Operator, Override, RuleSet, Threshold
from fleetpulse.domain.sample import Sample
from fleetpulse.domain.window import WindowSpec

SPEC = WindowSpec()
KEEP = WindowSpec(is_leading_dropped=False)
LEADING = [-20, -10]


def rules(operator: Operator = Operator.AT_LEAST, compare: Compare = Compare.REPORTED) -> RuleSet:
    return RuleSet(
        CPU_MEM,
        (
            Threshold(CPU_PCT, operator, 80_000_000, "cpu"),
            Threshold(MEM_PCT, operator, 89_000_000, "mem"),
        ),
        "both",
        compare,
    )


NET_DISK_RULES = RuleSet(
    NET_DISK,
    (
        Threshold(NET_IN, Operator.AT_LEAST, 6_100_000_000, "net"),
        Threshold(DISK_IO, Operator.AT_LEAST, 1_800_000_000, "disk"),
    ),
    "both",
)


def sample(ts_s: float, server_id: str = "a", **values: float) -> Sample:
    return Sample(int(ts_s * 1000), server_id, values)


def folded(
    *samples: Sample,
    spec: WindowSpec = SPEC,
    of: RuleSet | None = None,
    arithmetic: Arithmetic = Arithmetic.EXACT,
) -> list[WindowRow]:
    return fold(samples, spec, rules() if of is None else of, arithmetic)


def brief(rows: list[WindowRow]) -> list[tuple[str, int, int | None, int | None, str]]:
    return [(row.server_id, row.start_ms // 1000, *row.hundredths, row.alert) for row in rows]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (-0.0, 0),
        (7, 7_000_000),
        (34.74, 34_740_000),
        (0.1, 100_000),
        (1e-7, 0),
        (4e-7, 0),
        (5e-7, 1),
        (4.999e-7, 0),
        (5e-324, 0),
        (99.9999999, 100_000_000),
        (99.9999995, 100_000_000),
        (99.9999994, 99_999_999),
        (1.2345665, 1_234_567),
        (1.0000005, 1_000_001),
        (1.0000015, 1_000_002),
        (100_000_000, 100_000_000_000_000),
        (99_999_999.999999, 99_999_999_999_999),
    ],
)
def test_a_value_is_read_in_millionths_half_away_from_zero(value: float, expected: int) -> None:
    assert micros(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0),
        ("0.005", 1),
        ("0.004999", 0),
        ("59.695", 5970),
        ("59.685", 5969),
        ("79.995", 8000),
        ("79.994999", 7999),
        ("100000000", 10_000_000_000),
    ],
)
def test_a_number_is_reported_in_hundredths_half_away_from_zero(value: str, expected: int) -> None:
    assert hundredths(Fraction(value)) == expected


def test_a_third_is_rounded_from_its_exact_value() -> None:
    assert hundredths(Fraction(1, 3)) == 33
    assert hundredths(Fraction(2, 3)) == 67
    assert hundredths(Fraction(1, 200) - Fraction(1, 10**30)) == 0


def test_a_mean_and_a_maximum_are_exact() -> None:
    values = [0.1, 0.2, 0.4]
    assert statistic(values, Statistic.MEAN, Arithmetic.EXACT) == Fraction(7, 30)
    assert statistic(values, Statistic.MAX, Arithmetic.EXACT) == Fraction(2, 5)
    assert statistic([10, 9.5, 2], Statistic.MAX, Arithmetic.EXACT) == 10


def test_a_value_is_rounded_before_it_is_summed() -> None:
    # 0.4 millionths three times are none, not 1.2.
    assert statistic([4e-7] * 3, Statistic.MEAN, Arithmetic.EXACT) == 0


def test_ties_of_six_samples_are_reported_upwards() -> None:
    # The mean is 10.005: the binary one is 10.004999999999999.
    values = [10.0, 10.01, 10.0, 10.01, 10.0, 10.01]
    assert hundredths(statistic(values, Statistic.MEAN, Arithmetic.EXACT)) == 1001


def test_float32_rounds_each_value_to_32_bits() -> None:
    # The float32 nearest to 16777217 is 16777216; the one nearest to 0.1 is a little above it.
    assert statistic([16_777_217], Statistic.MAX, Arithmetic.FLOAT32) == 16_777_216
    assert statistic([0.1], Statistic.MAX, Arithmetic.FLOAT32) == Fraction("0.10000000149011612")


def test_float32_takes_the_mean_in_64_bits() -> None:
    mean = statistic([16_777_216, 1], Statistic.MEAN, Arithmetic.FLOAT32)
    assert mean == Fraction("8388608.5")
    assert statistic([0.1, 0.1], Statistic.MEAN, Arithmetic.FLOAT32) == Fraction(
        "0.10000000149011612"
    )


def test_float32_sums_without_rounding_on_the_way() -> None:
    # One by one, each small value would be lost in the great one; together they are not.
    values = [100_000_000, *[4e-9] * 4]
    forth = statistic(values, Statistic.MEAN, Arithmetic.FLOAT32)
    assert forth == statistic(values[::-1], Statistic.MEAN, Arithmetic.FLOAT32)
    assert forth > 20_000_000


def test_float32_and_exact_can_differ_in_a_reported_digit() -> None:
    # 0.285 is a tie; as a float32 it is 0.28499999642372131.
    row = {"spec": WindowSpec(10_000, 10_000)}
    exact = folded(sample(5, cpu_pct=0.285), **row)
    binary = folded(sample(5, cpu_pct=0.285), arithmetic=Arithmetic.FLOAT32, **row)
    assert exact[0].hundredths == (29, None)
    assert binary[0].hundredths == (28, None)


def test_no_sample_gives_no_row() -> None:
    assert folded() == []


def test_one_sample_gives_the_windows_from_its_pane_on() -> None:
    # -20  -10   0    10   20   30
    #            [-x-)                 its pane
    #  [--------------)                leading: dropped
    #       [--------------)           leading: dropped
    #            [--------------)      the row
    assert folded(sample(5, cpu_pct=10)) == [WindowRow(CPU_MEM, "a", 0, 30_000, (1000, None), "")]


def test_leading_windows_are_kept_on_demand() -> None:
    rows = folded(sample(5, cpu_pct=10), spec=KEEP)
    assert [row.start_ms // 1000 for row in rows] == [*LEADING, 0]


def test_leading_is_judged_by_the_earliest_sample_in_any_order() -> None:
    late_first = [sample(25, cpu_pct=30), sample(5, cpu_pct=10)]
    assert brief(folded(*late_first)) == [
        ("a", 0, 2000, None, ""),
        ("a", 10, 3000, None, ""),
        ("a", 20, 3000, None, ""),
    ]


def test_the_first_sample_of_any_metric_of_the_family_counts() -> None:
    # MEM starts two panes after CPU: its windows are not leading.
    rows = folded(sample(5, cpu_pct=10), sample(25, mem_pct=50))
    assert brief(rows) == [
        ("a", 0, 1000, 5000, ""),
        ("a", 10, None, 5000, ""),
        ("a", 20, None, 5000, ""),
    ]


def test_a_metric_of_the_other_family_is_no_first_sample() -> None:
    rows = folded(sample(5, net_in=1, disk_io=1), sample(25, cpu_pct=10))
    assert brief(rows) == [("a", 20, 1000, None, "")]


def test_a_server_that_joins_later_has_its_own_leading_windows() -> None:
    rows = folded(sample(5, "a", cpu_pct=10), sample(25, "b", cpu_pct=20))
    assert brief(rows) == [("a", 0, 1000, None, ""), ("b", 20, 2000, None, "")]


def test_a_gap_gives_no_rows_and_starts_no_new_leading() -> None:
    #  0    10   20   30   40   50   60   70   80   90   100
    #  [-x--)                                       [-x--)
    rows = folded(sample(5, cpu_pct=10), sample(95, cpu_pct=20))
    assert [row.start_ms // 1000 for row in rows] == [0, 70, 80, 90]


def test_event_on_the_end_belongs_to_the_next_window() -> None:
    rows = folded(sample(0, cpu_pct=10), sample(30, cpu_pct=40))
    assert brief(rows) == [
        ("a", 0, 1000, None, ""),
        ("a", 10, 4000, None, ""),
        ("a", 20, 4000, None, ""),
        ("a", 30, 4000, None, ""),
    ]


def test_rows_are_sorted_by_server_in_byte_order_and_by_start() -> None:
    samples = [sample(5, server, cpu_pct=1) for server in ("b", "a10", "a2", "B", "a")]
    random.Random(7).shuffle(samples)  # noqa: S311 - an order, not a secret
    samples += [sample(15, "a", cpu_pct=1)]
    assert [(row.server_id, row.start_ms) for row in folded(*samples)] == [
        ("B", 0),
        ("a", 0),
        ("a", 10_000),
        ("a10", 0),
        ("a2", 0),
        ("b", 0),
    ]


def test_maximum_of_the_second_family_ignores_what_the_topic_also_carries() -> None:
    rows = folded(
        sample(1, net_in=6100, net_out=9999, disk_io=10.005),
        sample(2, net_in=10, net_out=1, disk_io=3),
        of=NET_DISK_RULES,
    )
    assert brief(rows) == [("a", 0, 610_000, 1001, "net")]
    assert rows[0].family is NET_DISK


@pytest.mark.parametrize(
    ("cpu", "operator", "compare", "label"),
    [
        (79.996, Operator.AT_LEAST, Compare.REPORTED, "cpu"),
        (79.996, Operator.AT_LEAST, Compare.EXACT, ""),
        (79.994, Operator.AT_LEAST, Compare.REPORTED, ""),
        (80, Operator.AT_LEAST, Compare.REPORTED, "cpu"),
        (80, Operator.AT_LEAST, Compare.EXACT, "cpu"),
        (80, Operator.ABOVE, Compare.REPORTED, ""),
        (80.004, Operator.ABOVE, Compare.REPORTED, ""),
        (80.004, Operator.ABOVE, Compare.EXACT, "cpu"),
        (80.005, Operator.ABOVE, Compare.REPORTED, "cpu"),
    ],
)
def test_the_limit_is_held_against_the_reported_or_the_exact_number(
    cpu: float, operator: Operator, compare: Compare, label: str
) -> None:
    (row,) = folded(sample(5, cpu_pct=cpu), of=rules(operator, compare))
    assert row.alert == label


@pytest.mark.parametrize(
    ("values", "label"),
    [
        ({"cpu_pct": 90, "mem_pct": 90}, "both"),
        ({"cpu_pct": 90, "mem_pct": 10}, "cpu"),
        ({"cpu_pct": 10, "mem_pct": 90}, "mem"),
        ({"mem_pct": 90}, "mem"),
        ({"cpu_pct": 90}, "cpu"),
        ({"cpu_pct": 0, "mem_pct": 0}, ""),
    ],
)
@pytest.mark.parametrize("compare", list(Compare))
def test_a_row_has_the_label_of_what_is_over(
    values: Mapping[str, float], label: str, compare: Compare
) -> None:
    (row,) = folded(Sample(5000, "a", values), of=rules(compare=compare))
    assert row.alert == label


def test_a_server_of_its_own_limits_is_judged_by_them() -> None:
    own = (
        Threshold(CPU_PCT, Operator.AT_LEAST, 10_000_000, "own cpu"),
        Threshold(MEM_PCT, Operator.AT_LEAST, 10_000_000, "own mem"),
    )
    base = rules()
    ruled = RuleSet(CPU_MEM, base.thresholds, "both", overrides=(Override("b*", own),))
    rows = folded(sample(5, "a", cpu_pct=20), sample(5, "b1", cpu_pct=20), of=ruled)
    assert [row.alert for row in rows] == ["", "own cpu"]

"""The reference interpreter against an independent reading of SEMANTICS.

The other side of each equation is written with integers and string digits only: values are drawn as
whole millionths, so that no float takes part in what is expected.
"""

import struct
from collections.abc import Sequence
from fractions import Fraction
from itertools import product

from hypothesis import example, given
from hypothesis import strategies as st

from fleetpulse.domain.aggregate import Arithmetic, fold, hundredths, micros, statistic
from fleetpulse.domain.metric import CPU_MEM, CPU_PCT, DISK_IO, MEM_PCT, NET_DISK, NET_IN, Statistic
from fleetpulse.domain.rule import Compare, Operator, RuleSet, Threshold
from fleetpulse.domain.sample import Sample
from fleetpulse.domain.window import WindowSpec

percentages = st.integers(0, 10_000).map(lambda n: n / 100)
six_places = st.integers(0, 100_000_000)
rates = st.one_of(st.integers(0, 10**8), st.floats(0, 1e8))


@st.composite
def samples(draw: st.DrawFn, names: Sequence[str] = ("cpu_pct", "mem_pct")) -> list[Sample]:
    values = st.dictionaries(st.sampled_from([*names, "net_out"]), percentages)
    one = st.builds(
        Sample, st.integers(0, 100_000), st.sampled_from(["a", "b", "B", "a1", "a-1"]), values
    )
    return draw(st.lists(one, max_size=25))


specs = st.builds(
    lambda slide, panes, origin, *, drop: WindowSpec(
        slide * panes, slide, origin % slide, is_leading_dropped=drop
    ),
    st.integers(1000, 20_000),
    st.integers(1, 4),
    st.integers(0, 20_000),
    drop=st.booleans(),
)
rule_sets = st.builds(
    lambda family, operators, limits, compare: RuleSet(
        family,
        (
            Threshold(family.metrics[0], operators[0], limits[0] * 10_000, "first"),
            Threshold(family.metrics[1], operators[1], limits[1] * 10_000, "second"),
        ),
        "both",
        compare,
    ),
    st.just(CPU_MEM),
    st.tuples(st.sampled_from(Operator), st.sampled_from(Operator)),
    st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)),
    st.sampled_from(Compare),
)


@given(six_places)
def test_a_value_of_six_places_is_its_digits(value_micros: int) -> None:
    text = f"{value_micros // 10**6}.{value_micros % 10**6:06d}"
    assert micros(float(text)) == value_micros


@given(rates)
@example(1e-7)
@example(4.9999999e-7)
@example(5e-7)
@example(99.9999999)
@example(-0.0)
def test_a_value_is_the_nearest_millionth_of_its_shortest_decimal(value: float) -> None:
    exact = Fraction(repr(value)) * 10**6
    found = micros(value)
    assert abs(found - exact) <= Fraction(1, 2)
    if abs(found - exact) == Fraction(1, 2):
        assert found > exact


@given(st.fractions(min_value=0, max_value=10**8))
def test_hundredths_are_the_nearest_and_a_tie_goes_up(value: Fraction) -> None:
    found = hundredths(value)
    assert Fraction(-1, 2) < found - value * 100 <= Fraction(1, 2)


@given(st.integers(0, 10**10))
def test_every_tie_goes_up(whole: int) -> None:
    tie = Fraction(2 * whole + 1, 200)
    assert hundredths(tie) == whole + 1
    assert hundredths(tie - Fraction(1, 10**9)) == whole


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=12))
def test_a_mean_of_two_decimals_is_the_quotient_of_integers(cents: list[int]) -> None:
    mean = statistic([cent / 100 for cent in cents], Statistic.MEAN, Arithmetic.EXACT)
    # Half up in integers: floor((2 * sum + n) / 2n).
    assert hundredths(mean) == (2 * sum(cents) + len(cents)) // (2 * len(cents))


@given(st.lists(rates, min_size=1, max_size=12), st.sampled_from(Arithmetic))
def test_a_maximum_is_one_of_the_values(values: list[float], arithmetic: Arithmetic) -> None:
    found = statistic(values, Statistic.MAX, arithmetic)
    each = [statistic([value], Statistic.MEAN, arithmetic) for value in values]
    assert found == max(each)


@given(
    st.lists(rates, min_size=1, max_size=12).flatmap(
        lambda values: st.tuples(st.just(values), st.permutations(values))
    ),
    st.sampled_from(Statistic),
    st.sampled_from(Arithmetic),
)
def test_the_order_of_the_values_changes_no_digit(
    values: tuple[list[float], list[float]], of: Statistic, arithmetic: Arithmetic
) -> None:
    before, after = values
    assert statistic(before, of, arithmetic) == statistic(after, of, arithmetic)


@given(st.lists(percentages, min_size=1, max_size=12))
def test_float32_is_near_the_exact_mean(values: list[float]) -> None:
    exact = statistic(values, Statistic.MEAN, Arithmetic.EXACT)
    binary = statistic(values, Statistic.MEAN, Arithmetic.FLOAT32)
    # Half a unit in the last place of a float32 below 128.
    assert abs(exact - binary) <= Fraction(1, 2**18) + Fraction(1, 10**6)
    nearest = [Fraction(struct.unpack("<f", struct.pack("<f", value))[0]) for value in values]
    assert abs(sum(nearest) / len(nearest) - binary) < Fraction(1, 10**12)


@given(
    samples().flatmap(lambda given: st.tuples(st.just(given), st.permutations(given))),
    specs,
    rule_sets,
    st.sampled_from(Arithmetic),
)
def test_the_order_of_the_samples_changes_no_row(
    orders: tuple[list[Sample], list[Sample]],
    spec: WindowSpec,
    rules: RuleSet,
    arithmetic: Arithmetic,
) -> None:
    before, after = orders
    assert fold(before, spec, rules, arithmetic) == fold(after, spec, rules, arithmetic)


def cents_of(values: list[float], *, is_mean: bool) -> int:
    cents = [round(value * 100) for value in values]
    return (2 * sum(cents) + len(cents)) // (2 * len(cents)) if is_mean else max(cents)


def label_of(sides: list[list[float]], rules: RuleSet, *, is_mean: bool) -> str:
    over = []
    for values, threshold in zip(sides, rules.thresholds, strict=True):
        if not values:
            over.append(False)
            continue
        cents = [round(value * 100) for value in values]
        total, count = (sum(cents), len(cents)) if is_mean else (max(cents), 1)
        if rules.compare is Compare.REPORTED:
            total, count = cents_of(values, is_mean=is_mean), 1
        limit = threshold.limit_micros // 10_000 * count
        over.append(total >= limit if threshold.operator is Operator.AT_LEAST else total > limit)
    return {(True, True): "both", (True, False): "first", (False, True): "second"}.get(
        (over[0], over[1]), ""
    )


def searched(
    given_samples: list[Sample], spec: WindowSpec, rules: RuleSet
) -> list[tuple[object, ...]]:
    """Return the rows by asking every window on the grid for every sample."""
    names = [metric.name for metric in rules.family.metrics]
    is_mean = rules.family is CPU_MEM
    rows: list[tuple[object, ...]] = []
    reach = 100_000 // spec.slide_ms + 6
    servers = sorted({sample.server_id for sample in given_samples})
    for server_id, k in product(servers, range(-reach, reach)):
        mine = [s for s in given_samples if s.server_id == server_id and set(names) & set(s.values)]
        start = spec.origin_ms + k * spec.slide_ms
        inside = [s for s in mine if start <= s.ts_ms < start + spec.size_ms]
        sides = [[s.values[name] for s in inside if name in s.values] for name in names]
        first_ms = min((s.ts_ms for s in mine), default=0)
        # Leading: the first sample came a whole slide or more after the start.
        is_leading = first_ms >= start + spec.slide_ms
        if not inside or (spec.is_leading_dropped and is_leading and start <= first_ms):
            continue
        cells = [cents_of(side, is_mean=is_mean) if side else None for side in sides]
        label = label_of(sides, rules, is_mean=is_mean)
        rows.append((server_id, start, start + spec.size_ms, *cells, label))
    return rows


@given(samples(), specs, rule_sets)
def test_means_are_those_of_a_search_through_all_windows(
    given_samples: list[Sample], spec: WindowSpec, rules: RuleSet
) -> None:
    rows = fold(given_samples, spec, rules, Arithmetic.EXACT)
    assert [
        (row.server_id, row.start_ms, row.end_ms, *row.hundredths, row.alert) for row in rows
    ] == searched(given_samples, spec, rules)


@given(samples(("net_in", "disk_io")), specs)
def test_maxima_are_those_of_a_search_through_all_windows(
    given_samples: list[Sample], spec: WindowSpec
) -> None:
    rules = RuleSet(
        NET_DISK,
        (
            Threshold(NET_IN, Operator.AT_LEAST, 50_000_000, "first"),
            Threshold(DISK_IO, Operator.ABOVE, 50_000_000, "second"),
        ),
        "both",
    )
    rows = fold(given_samples, spec, rules, Arithmetic.EXACT)
    assert [
        (row.server_id, row.start_ms, row.end_ms, *row.hundredths, row.alert) for row in rows
    ] == searched(given_samples, spec, rules)


@given(samples(), specs, rule_sets)
def test_the_span_reaches_from_the_first_row_to_the_last(
    given_samples: list[Sample], spec: WindowSpec, rules: RuleSet
) -> None:
    rows = fold(given_samples, spec, rules, Arithmetic.EXACT)
    names = {metric.name for metric in rules.family.metrics}
    instants = [sample.ts_ms for sample in given_samples if names & set(sample.values)]
    if rows:
        span_ms = max(row.end_ms for row in rows) - min(row.start_ms for row in rows)
        assert spec.span_ms(min(instants), max(instants)) == span_ms


@given(samples(), specs, rule_sets)
def test_servers_do_not_see_each_other(
    given_samples: list[Sample], spec: WindowSpec, rules: RuleSet
) -> None:
    together = fold(given_samples, spec, rules, Arithmetic.EXACT)
    apart = [
        row
        for server_id in sorted({sample.server_id for sample in given_samples})
        for row in fold(
            [sample for sample in given_samples if sample.server_id == server_id],
            spec,
            rules,
            Arithmetic.EXACT,
        )
    ]
    assert together == apart


def test_the_metrics_of_the_families_are_those_that_the_search_assumes() -> None:
    assert {metric.statistic for metric in (CPU_PCT, MEM_PCT)} == {Statistic.MEAN}
    assert {metric.statistic for metric in (NET_IN, DISK_IO)} == {Statistic.MAX}

"""Texts that are read by columns mean what the codec and the domain say of each."""

import datetime as dt
import json
from fractions import Fraction

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from fleetpulse.domain.aggregate import Arithmetic, micros, statistic
from fleetpulse.domain.clock import TimeReader, iso_text
from fleetpulse.domain.metric import CPU_PCT, Statistic
from fleetpulse.domain.rule import Operator, Threshold
from fleetpulse.engine.cell import instants, numbers
from fleetpulse.engine.text import Texts
from fleetpulse.engine.units import bar, encode, exact_number, micros_of

number_texts = st.one_of(
    st.from_regex(r"[0-9]{1,9}(\.[0-9]{0,9})?", fullmatch=True),
    st.integers(0, 10_000).map(lambda number: repr(number / 100)),
    st.floats(0, 1e8).map(repr),
    st.text('0123456789.-+eE, "\0/:', max_size=12),
)
rates = st.one_of(
    st.floats(0, 1e8),
    st.integers(0, 10**9).map(lambda number: number / 100),
    st.integers(0, 10**15).map(lambda number: number / 10**7),
    st.floats(0, 1e-30),
)


def is_json_number(text: str) -> bool:
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, int | float) and not isinstance(found, bool)


@given(st.lists(number_texts, min_size=1))
@example(["34.74", "0", "0.5", "100.0", "12345678.1234567", "00.5", ".5", "5.", "1.2.3", "-1", ""])
def test_a_plain_number_is_the_double_that_json_reads(texts: list[str]) -> None:
    joined = Texts.of([text.encode() for text in texts])
    values, are_numbers = numbers(joined, joined.starts, joined.ends)
    for text, value, is_number in zip(texts, values.tolist(), are_numbers.tolist(), strict=True):
        if is_number:
            assert is_json_number(text)
            assert value == json.loads(text)


@given(st.integers(0, 10**8 - 1), st.integers(0, 7), st.integers(0, 10**7 - 1))
def test_numbers_of_up_to_eight_and_seven_digits_are_plain(
    whole: int, places: int, fraction: int
) -> None:
    text = f"{whole}" + (f".{fraction:07d}"[: places + 1] if places else "")
    joined = Texts.of([text.encode()])
    values, are_numbers = numbers(joined, joined.starts, joined.ends)
    assert (values.tolist(), are_numbers.tolist()) == ([float(text)], [True])


instant_texts = st.one_of(
    st.integers(0, 253_402_300_799_999).map(iso_text),
    st.integers(1_759_697_580_000, 1_759_697_680_000).map(iso_text),
    st.from_regex(
        r"20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]Z", fullmatch=True
    ),
    st.from_regex(r"[0-9T:.Z+-]{19,25}", fullmatch=True),
    st.text("0123456789-T:.Zz, \0", min_size=20, max_size=24),
)


@given(
    st.lists(st.tuples(instant_texts, st.integers(1, 5)), min_size=1).map(
        lambda runs: [text for text, count in runs for _ in range(count)]
    )
)
@example(
    ["2025-10-05T20:53:00Z"] * 5
    + ["2025-10-05T20:53:01Z"] * 5
    + ["2025-10-05T20:54:01Z"] * 5
    + ["2025-11-05T20:54:01Z"] * 5
    + ["2025-11-06T20:54:01Z"] * 5
    + ["2025-11-06T20:540:54:01Z"] * 5
    + ["2025-11-05T20:54:01.000Z"] * 5
    + ["2025-11-05T20:54:01.001Z"] * 5
    + ["2025-11-05T20:54:01z"] * 5
)
@example(["2025-10-05T20:53:00Z", "2025-10-05T20:53:00.001Z", "2025-10-06T00:00:00Z"])
@example(["2025-02-29T00:00:00Z", "2024-02-29T23:59:59.999Z", "2025-10-05T24:00:00Z"])
@example(["2025-10-05T20:60:00Z", "2025-10-05T20:53:60Z", "2025-10-05 20:53:00Z"])
def test_a_plain_instant_is_the_one_that_the_domain_reads(texts: list[str]) -> None:
    joined = Texts.of([text.encode() for text in texts])
    times = TimeReader(dt.UTC, dt.date(2025, 10, 5))
    found, are_instants = instants(joined, joined.starts, joined.ends, times)
    for text, ts_ms, is_instant in zip(texts, found.tolist(), are_instants.tolist(), strict=True):
        if is_instant:
            assert times.read(text) == ts_ms


@given(st.integers(0, 253_402_300_799_999))
def test_instants_as_they_are_printed_are_plain(ts_ms: int) -> None:
    joined = Texts.of([iso_text(ts_ms).encode()])
    times = TimeReader(dt.UTC, dt.date(2025, 10, 5))
    found, are_instants = instants(joined, joined.starts, joined.ends, times)
    assert (found.tolist(), are_instants.tolist()) == ([ts_ms], [True])


@given(st.lists(rates, min_size=1))
@example([1.2345675, 4.9999999e-7, 5e-7, 99.9999999, -0.0, 1e8, 0.1234565, 79.9999995])
def test_millionths_of_many_values_are_those_of_each(values: list[float]) -> None:
    assert micros_of(np.array(values)).tolist() == [micros(value) for value in values]


@given(st.lists(rates, min_size=1), st.sampled_from(Arithmetic), st.sampled_from(Statistic))
@example([1e8, 1e-45, 5e-324, 16_777_217.0, 0.1, -0.0], Arithmetic.FLOAT32, Statistic.MEAN)
def test_totals_stand_for_the_exact_statistic(
    values: list[float], arithmetic: Arithmetic, of: Statistic
) -> None:
    encoded = encode(np.array(values), of, arithmetic)
    gather = sum if of is Statistic.MEAN else max
    totals = [gather(limb.tolist()) for limb in encoded.limbs]
    found = exact_number(totals, len(values), of, arithmetic)
    assert found == statistic(values, of, arithmetic)


@given(rates, st.integers(0, 10**14), st.sampled_from(Arithmetic), st.sampled_from(Operator))
@example(80.1, 80_100_000, Arithmetic.FLOAT32, Operator.AT_LEAST)
@example(80.0, 80_000_000, Arithmetic.FLOAT32, Operator.ABOVE)
@example(80.0, 80_000_000, Arithmetic.EXACT, Operator.ABOVE)
def test_a_single_value_is_over_its_bar_if_the_threshold_says_so(
    value: float, limit_micros: int, arithmetic: Arithmetic, operator: Operator
) -> None:
    for limit in (limit_micros, micros(value), micros(value) + 1):
        threshold = Threshold(CPU_PCT, operator, limit, "over")
        judged = encode(np.array([value]), Statistic.MAX, arithmetic).judged
        expected = threshold.is_met(Fraction(statistic([value], Statistic.MAX, arithmetic)))
        assert bool(judged[0] >= bar(threshold, arithmetic)) == expected

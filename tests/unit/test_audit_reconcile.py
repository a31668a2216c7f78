"""Lines against what they should be: counts are exact for any fault, and one fault is named."""

import random
from collections import Counter
from itertools import chain, repeat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.domain.position import Partition
from fleetpulse.roles.auditing.expected import Portion
from fleetpulse.roles.auditing.reconcile import (
    NAMED,
    Column,
    Differences,
    first_misplaced,
    reconcile,
)

ONE = Partition("cpu", 0)
TWO = Partition("cpu", 1)
THREE = Partition("cpu", 2)
# Few values, so that equal lines are common.
LINES = st.lists(st.integers(0, 5), max_size=30)


def column(values: list[int], first: int = 0) -> Column:
    return Portion().column(range(first, first + len(values)), values, len(values))


def compared(wanted: dict[Partition, list[int]], there: list[int], gone: int = 0) -> Differences:
    expected = {partition: column(values) for partition, values in wanted.items()}
    return reconcile(expected, column(there, 2), gone)


def counts(found: Differences) -> tuple[int, int]:
    """Return how many lines lack and how many are over; one in place of another is both."""
    replaced = sum(offset is not None for _, _, offset in found.foreign)
    return len(found.missing) + replaced, len(found.repeated) + len(found.foreign)


def balance(wanted: list[int], there: list[int]) -> tuple[int, int]:
    """Return how many lines lack and how many are over, the plain way."""
    lacking, over = Counter(wanted), Counter(there)
    return (lacking - over).total(), (over - lacking).total()


def interleaved(parts: list[list[int]], seed: int) -> list[int]:
    rest = [iter(part) for part in parts]
    turns = list(chain.from_iterable(repeat(n, len(part)) for n, part in enumerate(parts)))
    random.Random(seed).shuffle(turns)  # noqa: S311  made-up data
    return [next(rest[turn]) for turn in turns]


@given(LINES, LINES)
def test_counts_of_one_partition_are_those_of_the_multisets(
    wanted: list[int], there: list[int]
) -> None:
    found = compared({ONE: wanted}, there)
    assert counts(found) == balance(wanted, there)
    assert (found.moved_count == 0 and counts(found) == (0, 0)) == (wanted == there)
    assert {line - 2 for line, *_ in found.foreign} <= set(range(len(there)))


@given(LINES, LINES, LINES, LINES)
def test_counts_of_several_partitions_are_those_of_the_multisets(
    one: list[int], two: list[int], three: list[int], there: list[int]
) -> None:
    found = compared({ONE: one, TWO: two, THREE: three}, there)
    assert counts(found) == balance(one + two + three, there)
    for partition, offset in found.missing:
        assert 0 <= offset < len({ONE: one, TWO: two, THREE: three}[partition])


@given(LINES, LINES, LINES, st.integers(0, 9))
def test_any_interleaving_of_partitions_is_right(
    one: list[int], two: list[int], three: list[int], seed: int
) -> None:
    there = interleaved([one, two, three], seed)
    assert compared({ONE: one, TWO: two, THREE: three}, there) == Differences()


@given(LINES, LINES, st.integers(2, 5))
def test_portions_together_tell_the_same_counts(
    wanted: list[int], there: list[int], count: int
) -> None:
    whole = Differences()
    for number in range(count):
        portion = Portion(number, count)
        expected = portion.column(range(len(wanted)), wanted, len(wanted))
        found = portion.column(range(len(there)), there, len(there))
        whole.add(reconcile({ONE: expected}, found, 0))
    assert counts(whole) == balance(wanted, there)


@given(st.integers(1, 40), st.data())
def test_a_missing_line_is_named(size: int, data: st.DataObject) -> None:
    wanted = list(range(size))
    at = data.draw(st.integers(0, size - 1))
    assert compared({ONE: wanted}, wanted[:at] + wanted[at + 1 :]) == Differences([(ONE, at)])
    halves = {ONE: wanted[::2], TWO: wanted[1::2]}
    expected = ((ONE, TWO)[at % 2], at // 2)
    assert compared(halves, wanted[:at] + wanted[at + 1 :]).missing == [expected]


@given(st.integers(1, 40), st.data())
def test_a_repeated_line_is_named(size: int, data: st.DataObject) -> None:
    wanted = list(range(size))
    of, at = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    there = [*wanted[:at], of, *wanted[at:]]
    (repeated,) = compared({ONE: wanted}, there).repeated
    assert repeated[1:] == (ONE, of)
    assert there[repeated[0] - 2] == of


def test_of_equal_lines_the_nearest_one_is_said_to_be_repeated() -> None:
    found = compared({ONE: [1, 2, 3, 1, 2, 3]}, [1, 2, 3, 1, 2, 2, 3])
    assert found == Differences(repeated=[(7, ONE, 4)])


def test_a_line_in_place_of_another_has_its_offset() -> None:
    assert compared({ONE: [1, 2, 3]}, [1, 9, 3]) == Differences(foreign=[(3, ONE, 1)])


def test_a_line_of_nobody_has_no_offset() -> None:
    assert compared({ONE: [1, 2]}, [1, 9, 2]) == Differences(foreign=[(3, None, None)])
    assert compared({ONE: [1], TWO: [2]}, [1, 9, 2]) == Differences(foreign=[(3, None, None)])


def test_lines_out_of_order_are_named_and_counted() -> None:
    found = compared({ONE: list(range(100))}, list(range(99, -1, -1)))
    assert (counts(found), found.moved_count, len(found.moved)) == ((0, 0), 99, NAMED)
    assert found.moved[0] == (2, ONE, 99)
    # What came before its turn is not waited for once more.
    found = compared({ONE: [1, 2, 3, 4, 5]}, [3, 1, 2, 4, 5])
    assert (found.moved, found.moved_count) == ([(2, ONE, 2)], 1)
    found = compared({ONE: [1, 2], TWO: [7, 8]}, [1, 8, 2, 7])
    assert (found.moved, found.moved_count) == ([(3, TWO, 1)], 1)


@pytest.mark.parametrize(
    "there",
    [[*range(100, 140)], [*range(100, 137)], [*range(100, 107), *range(106, 140)]],
)
def test_lines_that_are_gone_lie_in_front(there: list[int]) -> None:
    wanted = list(range(100, 140))
    found = compared({ONE: wanted}, [*range(50), *there], 60)
    assert found.gone_count == 50
    assert counts(found) == balance(wanted, there)


def test_no_more_lines_are_gone_than_may_be() -> None:
    found = compared({ONE: [7, 8]}, [1, 2, 3, 7, 8], 2)
    assert (found.gone_count, found.foreign) == (2, [(4, None, None)])
    found = compared({ONE: [7], TWO: [8]}, [1, 2, 3, 7, 8], 2)
    assert (found.gone_count, len(found.foreign)) == (2, 1)


def test_lines_of_several_partitions_that_fit_no_record_may_be_gone() -> None:
    found = compared({ONE: [7], TWO: [8, 9]}, [1, 7, 2, 8, 8, 9], 3)
    assert found == Differences(gone_count=3)
    found = compared({ONE: [7], TWO: [8, 9]}, [1, 7, 2, 8, 8, 9], 2)
    assert found == Differences(repeated=[(6, TWO, 0)], gone_count=2)


def test_the_first_line_that_fits_no_interleaving_is_told() -> None:
    parts = [np.array(part, np.int64) for part in ([1, 2], [1, 3])]
    # A choice for the first 1 that is wrong later is taken back.
    assert first_misplaced(np.array([1, 3, 1, 2], np.int64), parts) is None
    assert first_misplaced(np.array([1, 2, 3, 1], np.int64), parts) == 2


def test_too_many_ways_to_deal_equal_lines_out_are_not_followed() -> None:
    parts = [np.zeros(80, np.int64) for _ in range(3)]
    assert first_misplaced(np.ones(240, np.int64), parts) == 0
    assert first_misplaced(np.append(np.zeros(239, np.int64), 1), parts) is None

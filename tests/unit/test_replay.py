import math
from collections.abc import Iterator
from itertools import count, islice

import pytest

from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.replay import MAX_SPEED, Pace, speed_of, starting_at, within
from fleetpulse.domain.sample import Sample


def samples_at(*instants_ms: int) -> list[Sample]:
    return [Sample(ts_ms, "a", {"cpu_pct": 1.0}) for ts_ms in instants_ms]


def endless() -> Iterator[Sample]:
    return (Sample(second * 1000, "a", {}) for second in count())


def instants(samples: Iterator[Sample]) -> list[int]:
    return [sample.ts_ms for sample in samples]


@pytest.mark.parametrize(
    ("text", "speed"), [("1x", 1.0), ("60x", 60.0), ("0.5x", 0.5), ("max", math.inf)]
)
def test_a_speed_is_a_factor_or_max(text: str, speed: float) -> None:
    assert speed_of(text) == speed


@pytest.mark.parametrize("text", ["", "0x", "0.0x", "-1x", "60", "x", "fast", "1e3x", "nanx", "٣x"])
def test_what_is_no_speed_is_a_usage_error_that_names_it(text: str) -> None:
    with pytest.raises(UsageError, match=r"--speed .*: wanted a speed such as 1x, 60x or max"):
        speed_of(text)


def test_at_60x_a_minute_lasts_a_second() -> None:
    assert Pace(60, first_ms=5_000).due_s(65_000) == 1.0


def test_at_max_everything_is_due_at_once() -> None:
    assert Pace(MAX_SPEED, first_ms=0).due_s(86_400_000) == 0


def test_due_times_count_from_the_first_sample_so_that_delays_do_not_add_up() -> None:
    pace = Pace(1, first_ms=0)
    assert [pace.due_s(ts_ms) for ts_ms in (0, 1_000, 3_600_000)] == [0.0, 1.0, 3600.0]


def test_a_sample_older_than_the_first_is_due_already() -> None:
    assert Pace(1, first_ms=10_000).due_s(4_000) < 0


def test_now_moves_every_sample_by_the_same_step_as_the_first() -> None:
    # original   10 ... 20 .. 15 ......... 40
    # from 1000  1000   1010  1005        1030
    moved = starting_at(samples_at(10, 20, 15, 40), start_ms=1_000)
    assert instants(moved) == [1_000, 1_010, 1_005, 1_030]


def test_now_changes_nothing_but_the_time() -> None:
    (moved,) = starting_at(samples_at(10), start_ms=99)
    assert moved == Sample(99, "a", {"cpu_pct": 1.0})


def test_no_sample_moves_to_no_sample() -> None:
    assert list(starting_at([], start_ms=0)) == []


def test_a_sample_on_the_end_of_the_duration_is_outside() -> None:
    assert instants(within(samples_at(5, 9, 14, 15, 16), 10, is_ordered=True)) == [5, 9, 14]


def test_an_ordered_source_is_left_at_the_end_of_the_duration() -> None:
    assert len(list(within(endless(), 60_000, is_ordered=True))) == 60


def test_an_unordered_source_is_read_to_its_end_for_samples_within_the_duration() -> None:
    # A file that is sorted by server goes back in time with each server.
    found = within(samples_at(5, 15, 6, 16, 4), 10, is_ordered=False)
    assert instants(found) == [5, 6, 4]


def test_samples_pass_one_at_a_time() -> None:
    assert instants(islice(starting_at(endless(), 0), 3)) == [0, 1000, 2000]

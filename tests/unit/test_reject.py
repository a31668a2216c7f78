import pytest

from fleetpulse.domain.reject import RATIO_WINDOW, RejectLimit


def noted(limit: RejectLimit, *runs: tuple[int, bool]) -> str | None:
    for count, is_reject in runs:
        for _ in range(count):
            limit.note(is_reject=is_reject)
    return limit.tripped()


def test_no_input_trips_nothing() -> None:
    assert RejectLimit(0.1, 500).tripped() is None


def test_one_short_of_the_run_trips_nothing() -> None:
    assert noted(RejectLimit(1.0, 500), (499, True)) is None


def test_a_run_trips_when_it_reaches_the_count() -> None:
    assert noted(RejectLimit(1.0, 500), (500, True)) == "500 rejects in a row"


def test_a_good_input_ends_the_run() -> None:
    assert noted(RejectLimit(1.0, 3), (2, True), (1, False), (2, True)) is None


def test_the_run_goes_on_past_its_count() -> None:
    assert noted(RejectLimit(1.0, 3), (5, True)) == "5 rejects in a row"


def test_exactly_the_ratio_trips_nothing() -> None:
    assert noted(RejectLimit(0.1, 500), (100, True), (900, False)) is None


def test_one_over_the_ratio_trips() -> None:
    found = noted(RejectLimit(0.1, 500), (101, True), (899, False))
    assert found == f"101 rejects among the last {RATIO_WINDOW} messages"


def test_the_ratio_is_not_judged_before_1000_inputs() -> None:
    limit = RejectLimit(0.1, 500)
    assert noted(limit, (400, True), (599, False)) is None
    assert noted(limit, (1, False)) == "400 rejects among the last 1000 messages"


def test_inputs_older_than_the_last_1000_are_forgotten() -> None:
    limit = RejectLimit(0.1, 500)
    assert noted(limit, (101, True), (899, False)) is not None
    assert noted(limit, (1, False)) is None
    assert noted(limit, (99, False), (1, True)) is None
    assert noted(limit, (899, False), (99, True)) is None
    assert noted(limit, (1, True)) == "101 rejects among the last 1000 messages"
    assert noted(limit, (1, False)) is None


def test_a_ratio_of_one_allows_every_reject() -> None:
    assert noted(RejectLimit(1.0, 10_000), (1000, True)) is None


def test_a_ratio_of_zero_allows_none() -> None:
    assert noted(RejectLimit(0.0, 500), (1000, False)) is None
    assert noted(RejectLimit(0.0, 500), (999, False), (1, True)) is not None


@pytest.mark.parametrize("allowed", [29, 57, 58, 69, 113, 115, 999])
def test_a_ratio_without_a_binary_form_allows_exactly_its_count(allowed: int) -> None:
    limit = RejectLimit(allowed / RATIO_WINDOW, 10_000)
    assert noted(limit, (RATIO_WINDOW - allowed, False), (allowed, True)) is None
    assert noted(limit, (1, True)) is not None

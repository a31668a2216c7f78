from datetime import UTC, date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.domain.clock import TimeReader, clock_text, iso_text
from fleetpulse.domain.reject import Reject, RejectClass

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
END_MS = 253_402_300_800_000
MS = timedelta(milliseconds=1)
DAY = date(2025, 10, 5)
ZONES = [UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York"), ZoneInfo("Asia/Kathmandu")]

instants = st.integers(0, END_MS - 1)
recent = st.integers(0, 4_000_000_000_000)
offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda m: timezone(timedelta(minutes=m)))
moments = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59), timezones=offsets)  # noqa: DTZ001 - zones are drawn
zones = st.sampled_from(ZONES)


def read(found: object, zone: timezone | ZoneInfo = UTC) -> int | Reject:
    return TimeReader(zone, DAY).read(found)


@given(instants)
def test_a_printed_instant_reads_back(ts_ms: int) -> None:
    assert read(iso_text(ts_ms)) == ts_ms


@given(recent, zones)
def test_an_instant_printed_in_a_zone_reads_back_anywhere(
    ts_ms: int, zone: timezone | ZoneInfo
) -> None:
    assert read(iso_text(ts_ms, zone)) == ts_ms


@given(moments, st.sampled_from(["T", " "]), st.sampled_from(["auto", "milliseconds", "seconds"]))
def test_iso_text_with_an_offset_reads_as_datetime_reads_it(
    moment: datetime, separator: str, timespec: str
) -> None:
    text = moment.isoformat(separator, timespec)
    wanted = (datetime.fromisoformat(text) - EPOCH) // MS
    found = read(text)
    if 0 <= wanted < END_MS:
        assert found == wanted
    else:
        assert isinstance(found, Reject)


@given(recent, zones)
def test_naive_text_is_in_the_zone(ts_ms: int, zone: timezone | ZoneInfo) -> None:
    local = (EPOCH + ts_ms * MS).astimezone(zone).replace(tzinfo=None, fold=0)
    wanted = (local.replace(tzinfo=zone) - EPOCH) // MS
    assert read(local.isoformat(), zone) == wanted


@given(st.integers(0, 99_999_999_999), st.integers(0, 999))
def test_epoch_seconds_give_the_instant_of_their_digits(second: int, ms: int) -> None:
    assert read(second) == second * 1000
    assert read(str(second)) == second * 1000
    assert read(f"{second}.{ms:03d}") == second * 1000 + ms
    assert read(float(f"{second}.{ms:03d}")) == second * 1000 + ms


@given(st.integers(100_000_000_000, END_MS - 1), st.integers(0, 999_999))
def test_epoch_milliseconds_give_the_instant_of_their_digits(ts_ms: int, beyond: int) -> None:
    assert read(ts_ms) == ts_ms
    assert read(f"{ts_ms}.{beyond:06d}") == ts_ms


@given(
    st.one_of(
        st.text(),
        st.integers(),
        st.floats(),
        st.none(),
        st.booleans(),
        st.from_regex(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([.,]\d+)?(Z|[+-]\d\d:?\d\d)?"),
        st.from_regex(r"\d?\d:\d\d:\d\d(\.\d+)?"),
        st.from_regex(r"-?\d+(\.\d+)?([eE]\d+)?"),
    ),
    zones,
)
def test_anything_is_an_instant_or_a_bad_time_twice_alike(
    found: object, zone: timezone | ZoneInfo
) -> None:
    times = TimeReader(zone, DAY)
    first, again = times.read(found), times.read(found)
    assert first == again
    if isinstance(first, Reject):
        assert first.reject_class is RejectClass.BAD_TIME
        assert first.reason.isprintable()
    else:
        assert 0 <= first < END_MS


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_a_clock_time_is_valid_where_datetime_says_so(hour: int, minute: int, second: int) -> None:
    found = read(f"{hour:02d}:{minute:02d}:{second:02d}")
    try:
        wanted = datetime.combine(DAY, time(hour, minute, second), UTC)
    except ValueError:
        assert isinstance(found, Reject)
    else:
        assert found == (wanted - EPOCH) // MS


def dated(zone: timezone | ZoneInfo, start: datetime, steps_s: list[int]) -> None:
    """Check that clock times of a source which moves by steps on the wall get their dates back."""
    times = TimeReader(zone, start.date())
    local = latest = start
    for step_s in [0, *steps_s]:
        local = max(latest + timedelta(seconds=step_s), datetime.combine(start.date(), time()))
        latest = max(latest, local)
        text = local.time().isoformat("milliseconds")
        wanted = (local.replace(tzinfo=zone) - EPOCH) // MS
        assert times.read(text) == wanted, text


steps_s = st.lists(st.one_of(st.integers(0, 12 * 3600 - 1), st.integers(-3599, 0)), max_size=30)
starts = st.datetimes(datetime(2025, 1, 1), datetime(2025, 12, 31, 23, 59, 59))  # noqa: DTZ001 - wall clock
within_a_day = st.timedeltas(timedelta(0), timedelta(hours=24) - MS)


@given(starts, steps_s)
def test_late_samples_and_midnights_get_their_dates(start: datetime, steps: list[int]) -> None:
    dated(UTC, start.replace(microsecond=0), steps)


@pytest.mark.parametrize("day", [date(2025, 3, 29), date(2025, 3, 30), date(2025, 10, 25)])
@given(st.integers(0, 86_399), st.lists(st.integers(-1800, 0), max_size=5))
def test_midnight_is_found_around_a_change_of_summer_time(
    day: date, second: int, late_s: list[int]
) -> None:
    # Over the midnights before and after the change, away from 02:00 to 03:00 itself.
    noon = datetime.combine(day, time(22, 0)) + timedelta(seconds=second % 7000)
    dated(ZONES[1], noon, [7100, *late_s, 3600, *late_s])


@given(starts, steps_s, st.integers(0, 30))
def test_a_restart_changes_no_date(start: datetime, steps: list[int], at: int) -> None:
    clocks = []
    local = start.replace(microsecond=0)
    for step_s in steps:
        local += timedelta(seconds=step_s)
        clocks.append(local.time().isoformat())
    whole = TimeReader(UTC, start.date())
    wanted = [whole.read(clock) for clock in clocks]
    before = TimeReader(UTC, start.date())
    found = [before.read(clock) for clock in clocks[:at]]
    after = TimeReader(UTC, start.date(), before.last_clock_ms)
    assert found + [after.read(clock) for clock in clocks[at:]] == wanted


@given(instants)
def test_a_printed_clock_is_the_time_of_the_iso_text(ts_ms: int) -> None:
    assert iso_text(ts_ms) == f"{iso_text(ts_ms)[:10]}T{clock_text(ts_ms)}Z"

import tracemalloc
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest

from fleetpulse.domain.clock import TimeReader, clock_text, iso_text
from fleetpulse.domain.reject import Reject, RejectClass

DAY = date(2025, 10, 5)
AT_20_53_MS = 1_759_697_580_000  # 2025-10-05T20:53:00Z
DAY_MS = 86_400_000
LAST_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z
BERLIN = ZoneInfo("Europe/Berlin")


def reader(zone: tzinfo = UTC, start_date: date = DAY) -> TimeReader:
    return TimeReader(zone, start_date)


def printed(*clocks: str, zone: tzinfo = UTC, start_date: date = DAY) -> list[str]:
    times = reader(zone, start_date)
    texts = []
    for clock in clocks:
        instant_ms = times.read(clock)
        assert isinstance(instant_ms, int), instant_ms
        texts.append(iso_text(instant_ms, zone))
    return texts


@pytest.mark.parametrize(
    "text",
    [
        "2025-10-05T20:53:00Z",
        "2025-10-05 20:53:00Z",
        "2025-10-05T20:53:00z",
        "2025-10-05T20:53:00",
        "2025-10-05 20:53:00",
        "2025-10-05T20:53:00.000Z",
        "2025-10-05T20:53:00,0009Z",
        "2025-10-05T20:53:00.000999999",
        "2025-10-05T22:53:00+02:00",
        "2025-10-05T22:53:00+0200",
        "2025-10-05T22:53:00+02",
        "2025-10-05T15:23:00-05:30",
        "2025-10-06T20:52:00+23:59",
        "1759697580",
        "1759697580.0009",
        "1759697580000",
        "1759697580000.9",
        1_759_697_580,
        1_759_697_580.0,
        1_759_697_580_000,
        1_759_697_580_000.5,
    ],
)
def test_every_form_of_an_instant_reads_alike(text: object) -> None:
    assert reader().read(text) == AT_20_53_MS


@pytest.mark.parametrize(
    ("text", "fraction_ms"),
    [(".5", 500), (".05", 50), (".005", 5), (".0005", 0), (".9999", 999), (".123456789", 123)],
)
def test_digits_beyond_the_millisecond_are_cut(text: str, fraction_ms: int) -> None:
    assert reader().read(f"2025-10-05T20:53:00{text}Z") == AT_20_53_MS + fraction_ms
    assert reader().read(f"20:53:00{text}") == AT_20_53_MS + fraction_ms
    assert reader().read(f"1759697580{text}") == AT_20_53_MS + fraction_ms


@pytest.mark.parametrize(("found", "ms"), [("1.001", 1001), (1.001, 1001), (0.29, 290), (0, 0)])
def test_epoch_seconds_keep_every_millisecond(found: object, ms: int) -> None:
    # 1.001 * 1000 is 1000.9999999999999 in binary.
    assert reader().read(found) == ms


@pytest.mark.parametrize(
    ("found", "ms"),
    [
        (99_999_999_999, 99_999_999_999_000),
        (100_000_000_000, 100_000_000_000),
        ("99999999999", 99_999_999_999_000),
        ("100000000000", 100_000_000_000),
    ],
)
def test_a_number_is_milliseconds_from_1e11_on(found: object, ms: int) -> None:
    assert reader().read(found) == ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "now",
        "yesterday 20:53:00",
        "2025-10-05",
        "2025-10-05T20:53",
        "2025-10-05T20:53:00 Z",
        "2025-10-05T20:53:00Z\n",
        "2025-10-05T20:53:00.Z",
        "2025-10-05T20:53:00.1234567890Z",
        "2025-13-05T20:53:00Z",
        "2025-02-29T20:53:00Z",
        "2025-10-05T24:00:00Z",
        "2025-10-05T20:60:00Z",
        "2025-10-05T20:53:60Z",
        "2025-10-05T20:53:00+24:00",
        "2025-10-05T20:53:00+01:60",
        "2025-10-05T20:53:00+99:59",
        "20251005T205300Z",
        "\uff12025-10-05T20:53:00Z",
        "24:00:00",
        "25:00:00",
        "12:60:00",
        "12:00:60",
        "12:00",
        "12:00:00Z",
        "-1:00:00",
        "12:00:00.",
        "1e9",
        "+1759697580",
        "12345678901234567",
        "1759697580.",
        "nan",
        "\x00",
        "\ud800",
    ],
)
def test_what_is_no_time_is_rejected(text: str) -> None:
    found = reader().read(text)
    assert isinstance(found, Reject)
    assert found.reject_class is RejectClass.BAD_TIME
    assert "wanted ISO 8601, HH:MM:SS or epoch seconds" in found.reason


@pytest.mark.parametrize(
    "found", [None, True, False, [], {}, [[1]], float("nan"), float("inf"), float("-inf"), b"1"]
)
def test_what_is_neither_text_nor_finite_number_is_rejected(found: object) -> None:
    assert isinstance(reader().read(found), Reject)


@pytest.mark.parametrize(
    "found",
    [
        "1969-12-31T23:59:59.999Z",
        "1970-01-01T00:59:59+01:00",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-00:01",
        "9999999999999999",
        -1,
        -5e-324,
        -1_759_697_580_000,
        LAST_MS + 1,
        1e308,
        10**4000,
        -(10**4000),
    ],
)
def test_an_instant_outside_1970_to_9999_stays_a_reject(found: object) -> None:
    times = reader()
    assert isinstance(times.read(found), Reject)
    assert isinstance(times.read(found), Reject)


def test_the_first_and_the_last_instant_are_accepted() -> None:
    assert reader().read("1970-01-01T00:00:00Z") == 0
    assert reader().read("9999-12-31T23:59:59.999Z") == LAST_MS
    assert reader().read(LAST_MS) == LAST_MS


def test_a_reason_names_what_was_found_in_printable_text() -> None:
    found = reader().read("\x1b[31m" + "x" * 1000)
    assert isinstance(found, Reject)
    assert found.reason.isprintable()
    assert "\\x1b[31mxxx" in found.reason
    assert len(found.reason) < 200


def test_a_nested_list_is_named_by_its_type() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    found = reader().read(deep)
    assert isinstance(found, Reject)
    assert "time is 'list' (no known form)" in found.reason


def test_naive_text_is_in_the_zone_of_the_source() -> None:
    assert reader(BERLIN).read("2025-10-05T22:53:00") == AT_20_53_MS
    assert reader(BERLIN).read("2025-10-05T20:53:00Z") == AT_20_53_MS
    assert reader(BERLIN).read("22:53:00") == AT_20_53_MS


def test_the_same_text_reads_the_same_again() -> None:
    times = reader()
    assert [times.read("2025-10-05T20:53:00Z") for _ in range(3)] == [AT_20_53_MS] * 3


def test_memory_does_not_grow_with_the_number_of_instants() -> None:
    times = reader()
    tracemalloc.start()
    for second in range(60_000):
        found_ms = times.read(iso_text(AT_20_53_MS + second * 1000))
        assert found_ms == AT_20_53_MS + second * 1000
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held_bytes < 4_000_000


# Clock times: what the wall shows along one source, and the date that it gets.


def test_a_first_clock_time_is_on_the_start_date() -> None:
    assert printed("20:53:00") == ["2025-10-05T20:53:00Z"]
    assert printed("7:05:09") == ["2025-10-05T07:05:09Z"]


def test_a_step_over_midnight_is_the_next_day() -> None:
    assert printed("23:59:58", "00:00:03") == ["2025-10-05T23:59:58Z", "2025-10-06T00:00:03Z"]


def test_a_late_sample_after_midnight_is_on_the_day_before() -> None:
    assert printed("23:59:58", "00:00:03", "23:59:59", "00:00:08") == [
        "2025-10-05T23:59:58Z",
        "2025-10-06T00:00:03Z",
        "2025-10-05T23:59:59Z",
        "2025-10-06T00:00:08Z",
    ]


def test_a_late_sample_does_not_move_the_source_back() -> None:
    # Measured from 11:00 itself, 00:00 would be a small step back.
    assert printed("20:00:00", "11:00:00", "00:00:00")[-1] == "2025-10-06T00:00:00Z"


def test_a_step_back_of_twelve_hours_is_late_and_of_more_the_next_day() -> None:
    assert printed("20:00:00", "08:00:00")[-1] == "2025-10-05T08:00:00Z"
    assert printed("20:00:00", "07:59:59.999")[-1] == "2025-10-06T07:59:59.999Z"


def test_a_step_forward_of_23_hours_is_the_same_day_and_of_more_the_day_before() -> None:
    assert printed("23:00:00", "00:10:00", "23:10:00")[-1] == "2025-10-06T23:10:00Z"
    assert printed("23:00:00", "00:10:00", "23:10:00.001")[-1] == "2025-10-05T23:10:00.001Z"


def test_nothing_is_dated_before_the_start_date() -> None:
    assert printed("00:00:03", "23:59:59") == ["2025-10-05T00:00:03Z", "2025-10-05T23:59:59Z"]


def test_every_midnight_is_a_day() -> None:
    assert printed(*["12:00:00", "23:00:00", "03:00:00"] * 3)[-1] == "2025-10-08T03:00:00Z"


def test_a_new_reader_goes_on_where_the_last_one_stopped() -> None:
    before = reader()
    before.read("23:59:58")
    before.read("00:00:03")
    after = TimeReader(UTC, DAY, before.last_clock_ms)
    assert after.read("23:59:59") == AT_20_53_MS + (3 * 3600 + 6 * 60 + 59) * 1000
    assert after.last_clock_ms == before.last_clock_ms


def test_a_bad_clock_moves_nothing() -> None:
    times = reader()
    times.read("20:00:00")
    last_ms = times.last_clock_ms
    assert isinstance(times.read("24:00:00"), Reject)
    assert times.last_clock_ms == last_ms


def test_a_full_instant_moves_no_clock() -> None:
    times = reader()
    times.read("2025-12-31T20:00:00Z")
    times.read(1_759_697_580)
    assert times.last_clock_ms is None


def test_a_clock_out_of_range_moves_nothing() -> None:
    times = reader(timezone(timedelta(hours=1)), date(1970, 1, 1))
    assert isinstance(times.read("00:59:59"), Reject)
    assert times.last_clock_ms is None
    assert times.read("01:00:00") == 0


def test_midnight_at_the_end_of_time_is_a_reject() -> None:
    times = reader(UTC, date(9999, 12, 31))
    assert times.read("23:59:59.999") == LAST_MS
    assert isinstance(times.read("00:00:00"), Reject)


def test_the_day_of_summer_time_is_dated_by_the_wall_clock() -> None:
    # 2025-03-30 has 23 hours in Berlin: 02:00 is 03:00.
    assert printed(
        "23:59:58", "00:00:03", "23:59:59", "01:59:59", "03:00:00",
        zone=BERLIN, start_date=date(2025, 3, 29),
    ) == [
        "2025-03-29T23:59:58+01:00",
        "2025-03-30T00:00:03+01:00",
        "2025-03-29T23:59:59+01:00",
        "2025-03-30T01:59:59+01:00",
        "2025-03-30T03:00:00+02:00",
    ]  # fmt: skip


def test_the_day_of_winter_time_is_dated_by_the_wall_clock() -> None:
    # 2025-10-26 has 25 hours in Berlin: 13 hours pass from 00:30 to 12:30, twelve on the wall.
    assert printed(
        "00:30:00", "12:30:00", "00:30:00", "00:29:59",
        zone=BERLIN, start_date=date(2025, 10, 26),
    ) == [
        "2025-10-26T00:30:00+02:00",
        "2025-10-26T12:30:00+01:00",
        "2025-10-26T00:30:00+02:00",
        "2025-10-27T00:29:59+01:00",
    ]  # fmt: skip


def test_printed_times_show_milliseconds_only_where_there_are_some() -> None:
    assert iso_text(AT_20_53_MS) == "2025-10-05T20:53:00Z"
    assert iso_text(AT_20_53_MS + 7) == "2025-10-05T20:53:00.007Z"
    assert clock_text(AT_20_53_MS) == "20:53:00"
    assert clock_text(AT_20_53_MS + 70) == "20:53:00.070"


def test_printed_times_are_in_the_zone() -> None:
    assert iso_text(AT_20_53_MS, BERLIN) == "2025-10-05T22:53:00+02:00"
    assert clock_text(AT_20_53_MS, BERLIN) == "22:53:00"
    assert clock_text(AT_20_53_MS + 2 * 3_600_000, BERLIN) == "00:53:00"


def test_an_offset_of_zero_is_printed_as_z() -> None:
    assert iso_text(AT_20_53_MS, ZoneInfo("UTC")) == "2025-10-05T20:53:00Z"
    assert iso_text(AT_20_53_MS + 60 * DAY_MS, ZoneInfo("Europe/London")).endswith("Z")
    assert iso_text(AT_20_53_MS, ZoneInfo("Europe/London")).endswith("+01:00")


def test_the_last_instant_prints() -> None:
    assert iso_text(LAST_MS) == "9999-12-31T23:59:59.999Z"
    assert datetime.fromisoformat(iso_text(0)) == datetime(1970, 1, 1, tzinfo=UTC)

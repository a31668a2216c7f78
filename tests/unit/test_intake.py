import json
from datetime import UTC, date

from fleetpulse.codec.intake import Intake
from fleetpulse.domain.metric import CPU
from fleetpulse.domain.position import ClockState, Partition
from fleetpulse.domain.reject import RejectLimit

WHERE = Partition("topic-cpu", 0)
OTHER = Partition("topic-cpu", 1)
GOOD = b'{"ts":"2025-10-05T20:53:00Z","server_id":"server_1","cpu_pct":34.74}'
BAD = b"nonsense"


def intake(max_ratio: float = 1.0, max_in_a_row: int = 500) -> Intake:
    limit = RejectLimit(max_ratio, max_in_a_row)
    return Intake({"topic-cpu": CPU}, limit, UTC, date(2025, 10, 5))


def clocked(text: str) -> bytes:
    return json.dumps({"ts": text, "server_id": "a", "cpu_pct": 1}).encode()


def test_each_message_becomes_a_row_or_a_reject_in_order() -> None:
    desk = intake()
    taken = desk.read(WHERE, [4, 5, 7], [GOOD, BAD, GOOD], None)
    assert (taken.count, taken.clock, taken.tripped) == (3, None, None)
    assert (desk.row_count, desk.reject_count) == (2, 1)
    drained = desk.drain()
    assert drained.rows == {CPU: [b"2025-10-05T20:53:00Z,server_1,34.74\n"] * 2}
    (reject,) = map(json.loads, drained.reject_lines)
    assert reject["topic"] == "topic-cpu"
    assert reject["partition"] == 0
    assert reject["offset"] == 5
    assert reject["class"] == "malformed"
    assert drained.rejects == {"malformed": 1}


def test_what_was_drained_does_not_come_again() -> None:
    desk = intake()
    desk.read(WHERE, [0, 1], [GOOD, BAD], None)
    desk.drain()
    assert (desk.row_count, desk.reject_count) == (0, 0)
    assert desk.drain().rejects == {}


def test_a_message_without_value_is_a_reject() -> None:
    desk = intake()
    desk.read(WHERE, [0], [None], None)
    assert desk.drain().rejects == {"malformed": 1}


def test_reading_ends_with_the_message_that_trips_the_limit() -> None:
    desk = intake(max_in_a_row=2)
    taken = desk.read(WHERE, [0, 1, 2, 3, 4], [GOOD, BAD, BAD, BAD, GOOD], None)
    assert taken.count == 3
    assert taken.tripped == "2 rejects in a row"
    assert (desk.row_count, desk.reject_count) == (1, 2)


def test_rows_between_rejects_count_for_the_limit() -> None:
    desk = intake(max_in_a_row=2)
    messages = [BAD, GOOD, BAD, GOOD, BAD]
    assert desk.read(WHERE, range(5), messages, None).tripped is None
    assert desk.read(WHERE, range(5, 7), [GOOD, BAD], None).tripped is None


def test_the_limit_sees_the_ratio_over_reads() -> None:
    desk = intake(max_ratio=0.1)
    desk.read(WHERE, range(900), [GOOD] * 900, None)
    taken = desk.read(WHERE, range(900, 1100), [BAD] * 200, None)
    assert taken.count == 101
    assert taken.tripped == "101 rejects among the last 1000 messages"


def test_clock_times_go_over_midnight_in_each_partition_by_itself() -> None:
    desk = intake()
    first = desk.read(WHERE, [0, 1], [clocked("23:59:59"), clocked("00:00:01")], None)
    desk.read(OTHER, [0], [clocked("00:00:01")], None)
    assert [row[:20] for row in desk.drain().rows[CPU]] == [
        b"2025-10-05T23:59:59Z",
        b"2025-10-06T00:00:01Z",
        b"2025-10-05T00:00:01Z",
    ]
    assert first.clock == ClockState(date(2025, 10, 5), 1_759_708_801_000)


def test_clock_times_go_on_after_a_restart_on_a_later_day() -> None:
    before = intake()
    clock = before.read(WHERE, [0, 1], [clocked("23:59:58"), clocked("00:00:01")], None).clock
    after = Intake({"topic-cpu": CPU}, RejectLimit(1.0, 500), UTC, date(2025, 12, 24))
    after.read(WHERE, [2, 3], [clocked("00:00:02"), clocked("23:59:59")], clock)
    assert [row[:20] for row in after.drain().rows[CPU]] == [
        b"2025-10-06T00:00:02Z",
        b"2025-10-05T23:59:59Z",
    ]

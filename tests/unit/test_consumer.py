from datetime import date

from confluent_kafka import Message

from fleetpulse.domain.position import ClockState, LastRecord, Partition, Position
from fleetpulse.edges.kafka.fetched import Fetched

WHERE = Partition("topic-cpu", 0)
BEFORE = Position(WHERE, "id", 4, 0, LastRecord(3, 77))


def message(offset: int, value: bytes = b"v", key: bytes = b"k", ts_ms: int = 5) -> Message:
    return Message("topic-cpu", 0, offset, key, value, timestamp=(1, ts_ms), leader_epoch=2)


def fetched(*messages: Message, end: int | None = None) -> Fetched:
    return Fetched(WHERE, messages, end)


def test_the_next_offset_is_the_one_after_the_last_taken() -> None:
    after = fetched(message(4), message(6), message(7)).position_after(2, BEFORE)
    assert (after.next_offset, after.leader_epoch) == (7, 2)
    assert after.last is not None
    assert after.last.offset == 6


def test_a_position_of_which_nothing_was_taken_stays() -> None:
    assert fetched(message(4)).position_after(0, BEFORE) == BEFORE


def test_the_logs_end_counts_once_every_message_before_it_is_taken() -> None:
    both = fetched(message(4), message(5), end=9)
    assert both.position_after(1, BEFORE).next_offset == 5
    after = both.position_after(2, BEFORE)
    assert after.next_offset == 9
    assert after.last is not None
    assert after.last.offset == 5


def test_an_end_without_messages_keeps_the_last_record() -> None:
    after = fetched(end=6).position_after(0, BEFORE)
    assert (after.next_offset, after.last) == (6, LastRecord(3, 77))


def test_fingerprints_differ_by_key_value_and_time() -> None:
    def fingerprint(one: Message) -> int:
        last = fetched(one).position_after(1, BEFORE).last
        assert last is not None
        return last.fingerprint

    records = [
        message(4),
        message(4, value=b"w"),
        message(4, key=b"l"),
        message(4, ts_ms=6),
    ]
    assert len({fingerprint(record) for record in records}) == 4
    assert fingerprint(message(4)) == fingerprint(message(9))


def test_the_clock_of_a_position_is_kept() -> None:
    clock = ClockState(date(2025, 10, 5), 1)
    before = Position(WHERE, "id", 4, clock=clock)
    assert fetched(message(4)).position_after(1, before).clock == clock

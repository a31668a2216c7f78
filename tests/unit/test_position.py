import pytest

from fleetpulse.domain.position import (
    GapKind,
    LastRecord,
    LogFacts,
    Partition,
    Position,
    find_gap,
    first_position,
    needs_fingerprint,
)

WHERE = Partition("topic-cpu", 0)
AT_10 = Position(WHERE, "id", 10, 0, LastRecord(9, 77))


def gap(facts: LogFacts, position: Position = AT_10) -> tuple[GapKind, int, int] | None:
    found = find_gap(position, facts)
    return found and (found.kind, found.lost_offsets, found.resume_offset)


def test_the_same_log_goes_on() -> None:
    assert gap(LogFacts("id", 0, 12, 77)) is None


def test_a_log_read_to_its_end_goes_on() -> None:
    assert gap(LogFacts("id", 0, 10, 77)) is None


def test_another_topic_id_is_a_recreated_topic_even_where_all_else_fits() -> None:
    assert gap(LogFacts("other", 0, 12, 77)) == (GapKind.RECREATED, 0, 0)


def test_a_recreated_topic_counts_what_it_lost_itself() -> None:
    assert gap(LogFacts("other", 4, 12, 77)) == (GapKind.RECREATED, 4, 4)


@pytest.mark.parametrize("ids", [(None, "id"), ("id", None), (None, None)])
def test_brokers_without_topic_ids_are_judged_by_the_log(
    ids: tuple[str | None, str | None],
) -> None:
    before = Position(WHERE, ids[0], 10, 0, LastRecord(9, 77))
    assert gap(LogFacts(ids[1], 0, 12, 77), before) is None
    assert gap(LogFacts(ids[1], 0, 12, 78), before) == (GapKind.REGREW, 0, 0)


def test_retention_that_passed_counts_the_offsets_between() -> None:
    assert gap(LogFacts("id", 15, 20)) == (GapKind.RETENTION_PASSED, 5, 15)


def test_retention_that_only_just_reached_the_position_is_no_gap() -> None:
    assert gap(LogFacts("id", 10, 20)) is None


def test_a_log_that_ends_before_the_position_lost_its_end() -> None:
    assert gap(LogFacts("id", 0, 7)) == (GapKind.SHRANK, 3, 7)


def test_another_record_at_the_last_offset_is_a_log_that_regrew() -> None:
    assert gap(LogFacts("id", 2, 12, 78)) == (GapKind.REGREW, 2, 2)


def test_no_record_at_the_last_offset_is_a_log_that_regrew() -> None:
    assert gap(LogFacts("id", 0, 12, None)) == (GapKind.REGREW, 0, 0)


def test_a_last_record_that_retention_took_cannot_be_compared() -> None:
    assert not needs_fingerprint(AT_10, LogFacts("id", 10, 20))
    assert needs_fingerprint(AT_10, LogFacts("id", 9, 10))


def test_transaction_markers_behind_the_last_record_count_as_read() -> None:
    behind_marker = Position(WHERE, "id", 10, 0, LastRecord(8, 77))
    assert gap(LogFacts("id", 10, 10), behind_marker) is None


def test_a_first_start_begins_where_it_is_told() -> None:
    facts = LogFacts("id", 5, 9)
    position = first_position(WHERE, facts, is_known_topic=False, start_offset=5)
    assert position == Position(WHERE, "id", 5)
    assert find_gap(position, facts) is None


def test_a_partition_new_to_a_known_topic_starts_at_0_and_sees_what_retention_took() -> None:
    facts = LogFacts("id", 5, 9)
    position = first_position(WHERE, facts, is_known_topic=True, start_offset=5)
    assert position == Position(WHERE, "id", 0)
    assert gap(facts, position) == (GapKind.RETENTION_PASSED, 5, 5)


def test_a_partition_prints_as_kafka_prints_it() -> None:
    assert str(WHERE) == "topic-cpu-0"

from typing import Any

from fleetpulse.edges.spark.progress import StreamProgress, progress_of

NAMES = frozenset({"topic-cpu", "topic-mem"})


def kafka(topic: str, end: int, latest: int, rows: int) -> dict[str, Any]:
    offsets = {"endOffset": {topic: {"0": end}}, "latestOffset": {topic: {"0": latest}}}
    return offsets | {"numInputRows": rows}


def found(**changes: object) -> StreamProgress:
    report: dict[str, Any] = {
        "batchId": 7,
        "timestamp": "2025-10-05T20:54:00.500Z",
        "durationMs": {"triggerExecution": 1500},
        "eventTime": {"watermark": "2025-10-05T20:53:30.000Z"},
        "stateOperators": [{"numRowsTotal": 12, "numRowsDroppedByWatermark": 3}],
        "sources": [
            kafka("topic-cpu", 10, 25, 10),
            {"endOffset": {"logOffset": 3}, "latestOffset": None, "numInputRows": 4},
            kafka("topic-mem", 20, 20, 5),
        ],
    }
    return progress_of(report | changes, NAMES)


def test_a_batch_is_told_in_numbers() -> None:
    assert found() == StreamProgress(7, 15, 15, 30.5, 3, 12, 1.5)


def test_messages_and_lag_are_those_of_kafka_alone() -> None:
    # The notices' folder is a source too, with offsets of another form.
    assert found(sources=[{"endOffset": {"logOffset": 3}, "numInputRows": 4}]).messages == 0


def test_a_topic_that_was_cut_since_lags_by_nothing() -> None:
    assert found(sources=[kafka("topic-cpu", 10, 4, 0)]).lag == 0


def test_a_partition_that_is_new_lags_by_all_that_it_holds() -> None:
    source = kafka("topic-cpu", 10, 10, 0)
    source["latestOffset"]["topic-cpu"]["1"] = 8
    assert found(sources=[source]).lag == 8


def test_there_is_no_delay_before_the_first_watermark() -> None:
    assert found(eventTime={"watermark": "1970-01-01T00:00:00.000Z"}).watermark_delay_s is None
    assert found(eventTime={}).watermark_delay_s is None

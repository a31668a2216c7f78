import json
from pathlib import Path

import pytest

from fleetpulse.domain.errors import DamagedState
from fleetpulse.edges.spark.checkpoint import BatchPlan, StreamFolder


def plan_file(folder: StreamFolder, number: int, watermark_ms: int, *sources: str) -> None:
    facts = {"batchWatermarkMs": watermark_ms, "batchTimestampMs": 1_000 + number, "conf": {}}
    path = folder.query_path / "offsets" / str(number)
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["v1", json.dumps(facts), *sources]))


@pytest.fixture
def folder(tmp_path: Path) -> StreamFolder:
    made = StreamFolder(tmp_path / "stream")
    made.prepare()
    return made


def test_a_batch_is_late_by_the_watermark_of_the_one_before_it(folder: StreamFolder) -> None:
    plan_file(folder, 4, 70, '{"topic-cpu":{"0":5}}', "0", '{"topic-mem":{"0":7,"1":2}}')
    plan_file(folder, 5, 90, '{"topic-cpu":{"0":9,"1":1}}', "-", '{"topic-mem":{"0":7,"1":2}}')
    assert folder.plan(5) == BatchPlan(
        batch_id=5,
        clock_ms=1_005,
        watermark_ms=90,
        late_ms=70,
        starts={"topic-cpu": {"0": 5}, "topic-mem": {"0": 7, "1": 2}},
        ends={"topic-cpu": {"0": 9, "1": 1}, "topic-mem": {"0": 7, "1": 2}},
    )


def test_in_the_first_batch_nothing_is_late_and_it_begins_where_the_sources_say(
    folder: StreamFolder,
) -> None:
    plan_file(folder, 0, 0, '{"topic-cpu":{"0":9}}')
    source = folder.query_path / "sources" / "0"
    source.mkdir(parents=True)
    (source / "0").write_text('v1\n{"topic-cpu":{"0":3}}')
    found = folder.plan(0)
    assert (found.late_ms, found.starts) == (0, {"topic-cpu": {"0": 3}})


@pytest.mark.parametrize("text", ["", "v1", "v1\nno JSON", "v1\n{}", "v1\n[]\n"])
def test_a_plan_of_another_form_is_named_with_what_to_do(folder: StreamFolder, text: str) -> None:
    path = folder.query_path / "offsets" / "0"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(
        DamagedState, match=r"offsets/0: not the plan of a batch .*stream\.checkpoint_dir"
    ):
        folder.plan(0)


def test_a_notice_appears_whole_under_a_name_that_spark_reads(folder: StreamFolder) -> None:
    folder.notify("7", {"cpu": 10, "mem": 20})
    (found,) = folder.notices_path.iterdir()
    assert found.name == "7.json"
    lines = [json.loads(line) for line in found.read_text().splitlines()]
    assert lines == [{"topic": "cpu", "ts_ms": 10}, {"topic": "mem", "ts_ms": 20}]


def test_only_notices_below_the_number_are_forgotten(folder: StreamFolder) -> None:
    for number in (2, 9, 10, 11):
        folder.notify(str(number), {"cpu": number})
    folder.forget_notices(10)
    assert sorted(path.name for path in folder.notices_path.iterdir()) == ["10.json", "11.json"]

from fleetpulse.domain.metric import CPU, DISK, MEM, NET
from fleetpulse.domain.sample import Record, Sample, split

TS_MS = 1_759_697_580_000
ALL = {"disk_io": 5, "net_out": 4.5, "net_in": 3, "mem_pct": 2.25, "cpu_pct": 1}


def test_a_whole_sample_gives_each_topic_its_record() -> None:
    assert list(split(Sample(TS_MS, "a", ALL))) == [
        Record(CPU, TS_MS, "a", (1,)),
        Record(MEM, TS_MS, "a", (2.25,)),
        Record(NET, TS_MS, "a", (3, 4.5)),
        Record(DISK, TS_MS, "a", (5,)),
    ]


def test_a_topic_with_an_absent_metric_gets_no_record() -> None:
    sample = Sample(TS_MS, "a", {"net_in": 3, "mem_pct": 2})
    assert list(split(sample)) == [Record(MEM, TS_MS, "a", (2,))]


def test_a_metric_of_value_zero_is_present() -> None:
    assert list(split(Sample(TS_MS, "a", {"cpu_pct": 0}))) == [Record(CPU, TS_MS, "a", (0,))]


def test_a_sample_without_metrics_gives_no_record() -> None:
    assert list(split(Sample(TS_MS, "a", {}))) == []

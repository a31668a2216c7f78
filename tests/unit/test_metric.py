import pytest

from fleetpulse.domain.metric import (
    CPU,
    CPU_MEM,
    DISK,
    FAMILIES,
    HIGHEST_RATE,
    MEM,
    METRICS,
    NET,
    NET_DISK,
    TOPICS,
    Family,
    Metric,
    Statistic,
)


def test_metrics_are_in_the_order_of_the_dataset() -> None:
    names = [metric.name for metric in METRICS]
    assert names == ["cpu_pct", "mem_pct", "net_in", "net_out", "disk_io"]


def test_topics_carry_every_metric_once() -> None:
    assert tuple(metric for topic in TOPICS for metric in topic.metrics) == METRICS
    assert [topic.key for topic in TOPICS] == ["cpu", "mem", "net", "disk"]


def test_families_take_each_metric_from_its_topic() -> None:
    assert CPU_MEM.topics == (CPU, MEM)
    assert NET_DISK.topics == (NET, DISK)
    for family in FAMILIES:
        for metric, topic in zip(family.metrics, family.topics, strict=True):
            assert metric in topic.metrics


def test_every_topic_belongs_to_one_family() -> None:
    assert tuple(topic for family in FAMILIES for topic in family.topics) == TOPICS


@pytest.mark.parametrize(
    ("family", "statistic"), [(CPU_MEM, Statistic.MEAN), (NET_DISK, Statistic.MAX)]
)
def test_percentages_report_a_mean_and_rates_a_maximum(
    family: Family, statistic: Statistic
) -> None:
    assert {metric.statistic for metric in family.metrics} == {statistic}


@pytest.mark.parametrize("metric", METRICS)
def test_a_percentage_ends_at_100_and_a_rate_at_the_highest_rate(metric: Metric) -> None:
    assert metric.highest == (100 if metric.unit == "%" else HIGHEST_RATE)

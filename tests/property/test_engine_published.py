"""The engine's messages against the codec's, byte by byte, over windows that the engine closed."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.codec.message import encode_message
from fleetpulse.codec.window_message import encode_window
from fleetpulse.config import Settings
from fleetpulse.domain.aggregate import Arithmetic
from fleetpulse.domain.metric import FAMILIES, Family
from fleetpulse.domain.position import Partition
from fleetpulse.domain.sample import Record
from fleetpulse.engine import Engine, Liveness, Messages, published

START_MS = 1_759_697_580_000
IDS = ("a", "server_1", "server_10", "web-7.example:9100", "x" * 64)

values = st.one_of(
    st.sampled_from([0.0, 0.005, 12.5, 80.0, 89.0, 99.99, 100.0, 1 / 3]),
    st.floats(0, 100, allow_nan=False),
)
labels = st.sampled_from(["hot", 'a "b", c', "überlast, 高", "\\"])


def _engine(family: Family, settings: Settings) -> Engine:
    return Engine(
        settings.rule_set(family),
        settings.window.spec,
        settings.arithmetic,
        Liveness(lateness_ms=None, max_skew_ms=None),
        dt.UTC,
        dt.date(2025, 10, 5),
    )


@given(
    st.sampled_from(FAMILIES),
    st.sampled_from(Arithmetic),
    labels,
    st.lists(
        st.tuples(st.sampled_from(IDS), st.integers(0, 60_000), st.booleans(), values), max_size=30
    ),
)
def test_messages_are_those_of_the_codec(
    family: Family,
    arithmetic: Arithmetic,
    label: str,
    samples: list[tuple[str, int, bool, float]],
) -> None:
    limit = {"op": ">=", "limit": 12, "label": label}
    rules = {
        family.name: {metric.name: limit for metric in family.metrics} | {"both": {"label": label}}
    }
    settings = Settings.model_validate({"rules": rules, "arithmetic": arithmetic})
    engine = _engine(family, settings)
    places = {Partition(topic.key, 0): topic for topic in family.topics}
    engine.assign(places, START_MS)
    for server_id, after_ms, is_first, value in samples:
        where, topic = list(places.items())[not is_first]
        record = Record(topic, START_MS + after_ms, server_id, (value,) * len(topic.metrics))
        engine.receive(Messages(where, [0], [encode_message(record)]), START_MS)
    for windows in engine.finish().windows:
        assert list(published(windows)) == [encode_window(each) for each in windows.closed()]
        alerting = windows.alerting()
        assert list(alerting.closed()) == [each for each in windows.closed() if each.row.alert]


def test_no_window_is_no_message() -> None:
    engine = _engine(FAMILIES[0], Settings())
    assert engine.finish().windows == []


@pytest.mark.parametrize("servers", [1, 40_000])
def test_more_windows_than_are_made_at_once_are_whole(servers: int) -> None:
    engine = _engine(FAMILIES[0], Settings())
    where, topic = Partition("cpu", 0), FAMILIES[0].topics[0]
    engine.assign({where: topic}, START_MS)
    payloads = [
        encode_message(Record(topic, START_MS + 10_000 * at, f"s{server}", (float(server % 101),)))
        for at in range(40_000 // servers)
        for server in range(servers)
    ]
    engine.receive(Messages(where, range(len(payloads)), payloads), START_MS + 10**9)
    for windows in engine.finish().windows:
        assert list(published(windows)) == [encode_window(each) for each in windows.closed()]

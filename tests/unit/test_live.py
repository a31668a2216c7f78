"""What monitor makes of messages, batch by batch, without a broker."""

import json
from collections.abc import Iterator

import pytest
from confluent_kafka import Message

from fleetpulse.codec.windows import TimeFormat, format_windows
from fleetpulse.config import Settings
from fleetpulse.domain.aggregate import fold
from fleetpulse.domain.errors import DamagedState, UsageError
from fleetpulse.domain.metric import CPU, CPU_MEM, MEM, NET, TOPICS, Topic
from fleetpulse.domain.position import Partition
from fleetpulse.domain.sample import Sample
from fleetpulse.edges.kafka.fetched import Fetched
from fleetpulse.roles.live import LiveWindows

START_MS = 1_759_697_580_000
SETTINGS = Settings()
PARTITION = {topic: Partition(SETTINGS.topics.name(topic), 0) for topic in TOPICS}
# A pane of one server in both metrics of a family.
PANE_BYTES = 32


def live(settings: Settings = SETTINGS, notes: dict[str, bytes] | None = None) -> LiveWindows:
    found = LiveWindows.of(settings, notes or {}, START_MS, "monitor.state.db")
    found.assign(PARTITION.values(), START_MS)
    return found


def payload(topic: Topic, ts_ms: int, server_id: str = "a", value: float = 50) -> bytes:
    values = dict.fromkeys([metric.name for metric in topic.metrics], value)
    return json.dumps({"ts": ts_ms, "server_id": server_id, **values}).encode()


def take(into: LiveWindows, topic: Topic, *payloads: bytes, first: int = 0) -> None:
    where = PARTITION[topic]
    messages = [
        Message(where.topic_name, where.number, offset, b"key", value)
        for offset, value in enumerate(payloads, first)
    ]
    fetched = Fetched(where, messages, None)
    into.take(fetched, START_MS + 10**7)


def test_each_family_closes_its_own_windows() -> None:
    into = live()
    for topic in (CPU, MEM):
        take(into, topic, payload(topic, START_MS), payload(topic, START_MS + 35_000))
    take(into, NET, payload(NET, START_MS), payload(NET, START_MS + 35_000))
    drained = into.drain()
    assert [(part.family.name, len(part)) for part in drained.windows] == [("cpu_mem", 1)]
    assert into.drain().windows == []
    into.finish()
    assert {part.family.name for part in into.drain().windows} == {"cpu_mem", "net_disk"}


def test_bad_messages_trip_the_limit_and_those_of_the_wrong_time_do_not() -> None:
    settings = Settings.model_validate({"rejects": {"max_in_a_row": 3, "max_ratio": 1.0}})
    into = live(settings)
    for topic in (CPU, MEM):
        take(into, topic, payload(topic, START_MS), payload(topic, START_MS + 100_000))
    take(into, CPU, *[payload(CPU, START_MS - 60_000)] * 5, first=2)
    take(into, CPU, b"bad", b"bad", payload(CPU, START_MS + 100_000), b"bad", b"bad", first=7)
    assert into.tripped is None
    take(into, MEM, b"bad", first=2)
    assert into.tripped == "3 rejects in a row"
    assert into.drain().classes() == {"late": 5, "malformed": 5}


def test_notes_go_on_where_they_were_and_only_with_the_same_windows() -> None:
    into = live()
    take(into, CPU, payload(CPU, START_MS), payload(CPU, START_MS + 35_000))
    again = live(notes=into.notes())
    take(again, MEM, payload(MEM, START_MS + 35_000))
    assert again.drain().window_count == 1
    other = Settings.model_validate({"window": {"size_s": 60}})
    with pytest.raises(UsageError, match=r"monitor\.state\.db: .*size_ms 60000"):
        live(other, into.notes())
    with pytest.raises(DamagedState, match=r"monitor\.state\.db: "):
        live(notes={"engine.cpu_mem": b"?"})


def test_a_drain_that_runs_ahead_waits_above_the_limit_and_goes_on_below_half_of_it() -> None:
    into = live()
    into.most_open_bytes = 20 * PANE_BYTES
    # Message by message, one topic reaches its end ten times as fast.
    left = {CPU: backlog(1000), MEM: backlog(10_000)}
    samples, holding, open_bytes = [], [], []
    while left:
        ahead = into.ahead()
        for topic in [one for one in left if PARTITION[one] not in ahead]:
            found = next(left[topic], None)
            if found is None:
                del left[topic]
                # Silent from here on, it holds nobody back.
                into.advance(START_MS + 10**8, {PARTITION[one] for one in left})
                continue
            take(into, topic, payload(topic, found))
            samples.append(Sample(found, "a", {topic.metrics[0].name: 50.0}))
        holding.append(bool(ahead))
        open_bytes.append(into.engines[0].open_bytes)
    # As much as was read between two looks may come on top.
    assert max(open_bytes) <= 21 * PANE_BYTES
    changes = [at for at in range(1, len(holding)) if holding[at] != holding[at - 1]]
    assert len(changes) > 4
    assert all(open_bytes[at - 1] > 20 * PANE_BYTES for at in changes if holding[at])
    assert all(open_bytes[at - 1] <= 10 * PANE_BYTES for at in changes if not holding[at])
    into.finish()
    rows = [row for part in into.drain().windows for row in part.rows()]
    wanted = fold(samples, SETTINGS.window.spec(), SETTINGS.rule_set(CPU_MEM), SETTINGS.arithmetic)
    assert rows == wanted
    text = format_windows(CPU_MEM, rows, 0, TimeFormat.ISO, SETTINGS.time.tz)
    assert len(list(text)) == len(wanted) + 1


def backlog(step_ms: int) -> Iterator[int]:
    """The instants of an hour."""
    return iter(range(START_MS, START_MS + 3_600_000, step_ms))

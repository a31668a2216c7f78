"""A drain that reads only partitions that are not too far ahead of others."""

import datetime as dt
from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.codec.message import encode_message
from fleetpulse.config import Settings
from fleetpulse.domain.aggregate import Arithmetic, fold
from fleetpulse.domain.metric import CPU_MEM
from fleetpulse.domain.position import Partition
from fleetpulse.domain.sample import Record, Sample
from fleetpulse.engine import Engine, Liveness, Messages

START_MS = 1_759_697_580_000
SETTINGS = Settings()
SPEC = SETTINGS.window.spec()
RULES = SETTINGS.rule_set(CPU_MEM)
LEAD_MS = 60_000
LATENESS_MS = 5_000
LONGEST_STEP_MS = 45_000
PARTITIONS = [Partition(topic.key, number) for topic in CPU_MEM.topics for number in range(2)]
TOPICS = {topic.key: topic for topic in CPU_MEM.topics}
TOPIC_OF = {where: TOPICS[where.topic_name] for where in PARTITIONS}

# How each partition's time goes on, from one message to the next.
steps = st.lists(st.sampled_from([0, 1000, 10_000, LONGEST_STEP_MS]), min_size=1, max_size=40)
backlogs = st.fixed_dictionaries(dict.fromkeys(PARTITIONS, steps))


def engine() -> Engine:
    found = Engine(
        RULES,
        lambda _: SPEC,
        Arithmetic.EXACT,
        Liveness(LATENESS_MS, 15_000, None),
        dt.UTC,
        dt.date(2025, 10, 5),
    )
    found.assign(TOPIC_OF, 0)
    return found


def instants(steps_ms: list[int]) -> list[int]:
    found, now_ms = [], START_MS
    for step_ms in steps_ms:
        now_ms += step_ms
        found.append(now_ms)
    return found


@given(st.data(), backlogs)
def test_waiting_partitions_bound_what_is_open_and_change_no_row(
    data: st.DataObject, backlogs_ms: dict[Partition, list[int]]
) -> None:
    left = {where: instants(one) for where, one in backlogs_ms.items()}
    samples, rows = [], []
    read = engine()
    while any(left.values()):
        ahead = read.ahead(LEAD_MS)
        # A partition that was read to its end does not hold the others back for ever: it is silent.
        behind = {where for where, rest in left.items() if rest}
        if not behind - ahead:
            rows += read.advance(10**6, behind).rows()
            ahead = read.ahead(LEAD_MS)
        free = sorted(behind - ahead, key=str)
        assert free, "all wait for each other"
        where = data.draw(st.sampled_from(free))
        ts_ms = left[where].pop(0)
        topic = TOPIC_OF[where]
        record = Record(topic, ts_ms, "a", (50.0,))
        samples.append(Sample(ts_ms, "a", {topic.metrics[0].name: 50.0}))
        closed = read.receive(Messages(where, [0], [encode_message(record)]), 0)
        assert closed.refusals == []
        rows += closed.rows()
        # From the one that holds back to the one that is furthest ahead, and what is not closed.
        span_ms = LEAD_MS + LONGEST_STEP_MS + LATENESS_MS + SPEC.size_ms + SPEC.slide_ms
        panes = span_ms // SPEC.slide_ms + 1
        assert read.open_bytes <= panes * bytes_of_a_pane()
    rows += read.finish().rows()
    assert sorted(rows, key=lambda row: row.start_ms) == fold(
        samples, SPEC, RULES, Arithmetic.EXACT
    )


@cache
def bytes_of_a_pane() -> int:
    one = engine()
    record = Record(CPU_MEM.topics[0], START_MS, "a", (50.0,))
    one.receive(Messages(PARTITIONS[0], [0], [encode_message(record)]), 0)
    return one.open_bytes


@given(
    st.dictionaries(st.sampled_from(PARTITIONS), steps),
    st.integers(0, 100_000),
    st.sets(st.sampled_from(PARTITIONS)),
)
def test_those_ahead_are_further_than_the_lead_from_the_last_that_is_not_silent(
    backlogs_ms: dict[Partition, list[int]], lead_ms: int, awake: set[Partition]
) -> None:
    read = engine()
    for where, steps_ms in backlogs_ms.items():
        for ts_ms in instants(steps_ms):
            record = Record(TOPIC_OF[where], ts_ms, "a", (50.0,))
            read.receive(Messages(where, [0], [encode_message(record)]), 0)
    # A partition that nobody has heard of is behind all others.
    latest_ms = {where: START_MS + sum(backlogs_ms.get(where, [-START_MS])) for where in PARTITIONS}
    assert read.ahead(lead_ms) == further(latest_ms, lead_ms)
    read.advance(10**6, awake)
    assert read.ahead(lead_ms) == further({where: latest_ms[where] for where in awake}, lead_ms)


def further(latest_ms: dict[Partition, int], lead_ms: int) -> set[Partition]:
    last_ms = min(latest_ms.values(), default=0)
    return {where for where, ts_ms in latest_ms.items() if ts_ms > last_ms + lead_ms}

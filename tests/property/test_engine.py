"""The engine against the reference, and against a literal reading of the live rules."""

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from fleetpulse.codec.message import encode_message
from fleetpulse.domain.aggregate import Arithmetic, WindowRow, fold, statistic
from fleetpulse.domain.closing import ClosedBy, ClosedWindow
from fleetpulse.domain.metric import FAMILIES, Family, Statistic
from fleetpulse.domain.position import Partition
from fleetpulse.domain.rule import Compare, Operator, Override, RuleSet, Threshold
from fleetpulse.domain.sample import Record, Sample
from fleetpulse.domain.window import WindowSpec
from fleetpulse.engine import Closed, Engine, Liveness, Messages

START_MS = 1_759_697_580_000
START_DATE = dt.date(2025, 10, 5)
SERVERS = ("a", "A", "server_1", "server_10", "web-7.example:9100", "x" * 64)
PARTITIONS = 2

values = st.one_of(
    st.integers(0, 100),
    st.integers(0, 10_000).map(lambda number: number / 100),
    st.sampled_from([0.0, 79.995, 79.996, 80.0, 80.000001, 1.2345675, 0.1234565, 99.9999999]),
    st.integers(0, 10**9).map(lambda number: number / 10**7),
    st.floats(0, 100),
)
specs = st.builds(
    lambda slide, panes, origin, *, drop: WindowSpec(
        slide * panes, slide, origin % slide, is_leading_dropped=drop
    ),
    st.sampled_from([1000, 10_000, 7001]),
    st.integers(1, 4),
    st.integers(0, 20_000),
    drop=st.booleans(),
)


@st.composite
def rule_sets(draw: st.DrawFn) -> RuleSet:
    family = draw(st.sampled_from(FAMILIES))

    def pair(name: str) -> tuple[Threshold, Threshold]:
        first, second = (
            Threshold(
                metric,
                draw(st.sampled_from(Operator)),
                draw(st.sampled_from([0, 79_996_000, 80_000_000, 50_000_000])),
                f"{name} {metric.name}",
            )
            for metric in family.metrics
        )
        return first, second

    overrides = tuple(
        Override(glob, pair(glob)) for glob in draw(st.sampled_from([(), ("server_*", "?")]))
    )
    return RuleSet(family, pair("any"), "both", draw(st.sampled_from(Compare)), overrides)


@dataclass(frozen=True)
class Sent:
    """A record and the partition of its topic that it goes to."""

    record: Record
    number: int

    @property
    def partition(self) -> Partition:
        return Partition(self.record.topic.key, self.number)


@st.composite
def streams(draw: st.DrawFn, family: Family) -> list[Sent]:
    """Records in the order in which they are received, over one to four partitions.

    Time goes on, and some records come from before.
    """
    counts = draw(st.sampled_from([(1, 0), (0, 1), (1, 1), (2, 1), (PARTITIONS, PARTITIONS)]))
    places = [
        (topic, number)
        for topic, count in zip(family.topics, counts, strict=True)
        for number in range(count)
    ]
    one = st.tuples(
        st.sampled_from(places),
        st.sampled_from([0, 0, 1, 1000, 5000, 10_000, 40_000]),
        st.sampled_from([0, 0, 0, 1, 4999, 5000, 12_000, 35_000, 100_000]),
        st.sampled_from(SERVERS),
        values,
    )
    found, reached_ms = [], START_MS + draw(st.integers(0, 10_000))
    for (topic, number), step_ms, back_ms, server, value in draw(
        st.lists(one, min_size=draw(st.sampled_from([1, 10, 30])), max_size=60)
    ):
        reached_ms += step_ms
        record = Record(topic, reached_ms - back_ms, server, (value,) * len(topic.metrics))
        found.append(Sent(record, number))
    return found


def engine_of(
    rules: RuleSet,
    spec: WindowSpec,
    arithmetic: Arithmetic,
    live: Liveness,
    now_ms: int,
    sent: Sequence[Sent],
) -> Engine:
    """An engine that listens to the partitions that something is sent to."""
    engine = Engine(rules, lambda _: spec, arithmetic, live, dt.UTC, START_DATE)
    partitions = {one.partition: one.record.topic for one in sent}
    engine.assign(partitions, now_ms)
    return engine


def restarted(
    engine: Engine,
    rules: RuleSet,
    spec: WindowSpec,
    arithmetic: Arithmetic,
    live: Liveness,
    now_ms: int,
) -> Engine:
    """Another engine that goes on from a snapshot."""
    partitions = {
        where: next(topic for topic in rules.family.topics if topic.key == where.topic_name)
        for where in engine.latest_ms
    }
    other = Engine(rules, lambda _: spec, arithmetic, live, dt.UTC, START_DATE)
    other.restore(engine.snapshot(), now_ms, "state.db")
    other.assign(partitions, now_ms)
    return other


def batches(sent: Sequence[Sent], cuts: Sequence[int]) -> list[list[Sent]]:
    """Cut where the partition changes and at `cuts`, so that the order of records stays."""
    found: list[list[Sent]] = []
    for place, one in enumerate(sent):
        if place in cuts or not found or found[-1][0].partition != one.partition:
            found.append([])
        found[-1].append(one)
    return found


def messages(batch: Sequence[Sent], first_offset: int = 0) -> Messages:
    offsets = range(first_offset, first_offset + len(batch))
    payloads = [encode_message(one.record) for one in batch]
    return Messages(batch[0].partition, offsets, payloads)


def samples_of(sent: Sequence[Sent]) -> list[Sample]:
    return [
        Sample(
            one.record.ts_ms,
            one.record.server_id,
            {
                metric.name: value
                for metric, value in zip(one.record.topic.metrics, one.record.values, strict=True)
            },
        )
        for one in sent
    ]


def by_server(rows: Sequence[WindowRow]) -> list[WindowRow]:
    return sorted(rows, key=lambda row: (row.server_id.encode(), row.start_ms))


@given(st.data(), rule_sets(), specs, st.sampled_from(Arithmetic))
def test_rows_are_those_of_the_reference_if_nothing_closes_before_the_end(
    data: st.DataObject, rules: RuleSet, spec: WindowSpec, arithmetic: Arithmetic
) -> None:
    sent = data.draw(streams(rules.family))
    engine = engine_of(rules, spec, arithmetic, Liveness(None, 15_000, None), 0, sent)
    cuts = data.draw(st.sets(st.integers(0, 60), max_size=10))
    rows: list[WindowRow] = []
    for batch in batches(sent, sorted(cuts)):
        closed = engine.receive(messages(batch), 0)
        assert (closed.accepted, list(closed.windows)) == (len(batch), [])
    rows += engine.finish().rows()
    assert by_server(rows) == fold(samples_of(sent), spec, rules, arithmetic)
    assert list(rows) == sorted(rows, key=lambda row: (row.end_ms, row.server_id.encode()))


@dataclass
class Literal:
    """The live rules, word by word and record by record; `ended_ms` is how far windows closed."""

    rules: RuleSet
    spec: WindowSpec
    arithmetic: Arithmetic
    live: Liveness
    partitions: list[Partition]
    latest_ms: dict[Partition, int] = field(default_factory=dict)
    heard_ms: dict[Partition, int] = field(default_factory=dict)
    idle: set[Partition] = field(default_factory=set)
    first_ms: dict[str, int] = field(default_factory=dict)
    ended_ms: int = -(10**18)
    windows: dict[tuple[int, bytes], dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def receive(self, one: Sent, now_ms: int) -> tuple[list[ClosedWindow], str]:
        ts_ms, server = one.record.ts_ms, one.record.server_id
        if self.live.max_skew_ms is not None and ts_ms > now_ms + self.live.max_skew_ms:
            return [], "future"
        starts = [
            start
            for start in self.spec.starts_covering(ts_ms)
            if start + self.spec.size_ms > self.ended_ms
        ]
        if not starts:
            return [], "late"
        self.first_ms[server] = min(self.first_ms.get(server, ts_ms), ts_ms)
        name, value = one.record.topic.metrics[0].name, one.record.values[0]
        for start in starts:
            self.windows[start, server.encode()][name].append(value)
        where = one.partition
        self.latest_ms[where] = max(self.latest_ms.get(where, ts_ms), ts_ms)
        self.heard_ms[where] = now_ms
        self.idle.discard(where)
        return self.pass_watermark(), "accepted"

    def advance(self, now_ms: int, behind: set[Partition]) -> list[ClosedWindow]:
        self.heard_ms.update(dict.fromkeys(behind, now_ms))
        self.idle = {
            where
            for where in self.partitions
            if now_ms - self.heard_ms.get(where, START_MS) >= self.live.idle_close_ms
        }
        if len(self.idle) == len(self.partitions):
            return self.close_all(ClosedBy.IDLE)
        return self.pass_watermark()

    def pass_watermark(self) -> list[ClosedWindow]:
        awake = [where for where in self.partitions if where not in self.idle]
        if self.live.lateness_ms is None or not set(awake) <= set(self.latest_ms):
            return []
        watermark_ms = min(self.latest_ms[where] for where in awake) - self.live.lateness_ms
        return self.close(watermark_ms, ClosedBy.WATERMARK)

    def close_all(self, cause: ClosedBy) -> list[ClosedWindow]:
        ends = [start + self.spec.size_ms for start, _ in self.windows]
        return self.close(max(ends, default=self.ended_ms), cause)

    def close(self, instant_ms: int, cause: ClosedBy) -> list[ClosedWindow]:
        self.ended_ms = max(self.ended_ms, instant_ms)
        found = []
        for start, server in sorted(self.windows):
            if start + self.spec.size_ms > self.ended_ms:
                continue
            sides = self.windows.pop((start, server))
            name = server.decode()
            is_leading = start < self.spec.pane_start(self.first_ms[name])
            if self.spec.is_leading_dropped and is_leading:
                continue
            found.append(self.closed(start, name, sides, cause))
        return found

    def closed(
        self, start: int, server: str, sides: dict[str, list[float]], cause: ClosedBy
    ) -> ClosedWindow:
        family = self.rules.family
        numbers = [sides.get(metric.name, []) for metric in family.metrics]
        # One window alone, with the reference's arithmetic and rules.
        spec = WindowSpec(self.spec.size_ms, self.spec.size_ms, start % self.spec.size_ms)
        alone = [
            Sample(start, server, {metric.name: value})
            for metric, values in zip(family.metrics, numbers, strict=True)
            for value in values
        ]
        (row,) = fold(alone, spec, self.rules, self.arithmetic)
        exact = [
            statistic(values, metric.statistic, self.arithmetic) if values else None
            for metric, values in zip(family.metrics, numbers, strict=True)
        ]
        over = [
            sum(
                threshold.is_met(statistic([value], Statistic.MAX, self.arithmetic))
                for value in values
            )
            for threshold, values in zip(self.rules.thresholds_for(server), numbers, strict=True)
        ]
        return ClosedWindow(
            row,
            (exact[0], exact[1]),
            (len(numbers[0]), len(numbers[1])),
            (over[0], over[1]),
            cause,
        )


lives = st.builds(
    Liveness,
    st.sampled_from([None, 0, 1, 5000, 20_000]),
    st.sampled_from([1, 15_000]),
    st.sampled_from([None, None, 0, 60_000]),
)


def windows_of(closed: Closed) -> list[ClosedWindow]:
    return [one for windows in closed.windows for one in windows.closed()]


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), rule_sets(), specs, st.sampled_from(Arithmetic), lives)
def test_live_rules_hold_record_by_record_over_any_batches_and_restarts(
    data: st.DataObject, rules: RuleSet, spec: WindowSpec, arithmetic: Arithmetic, live: Liveness
) -> None:
    sent = data.draw(streams(rules.family))
    engine = engine_of(rules, spec, arithmetic, live, START_MS, sent)
    literal = Literal(rules, spec, arithmetic, live, list(engine.latest_ms))
    now_ms = START_MS
    cuts = data.draw(st.sets(st.integers(0, 60), max_size=10))
    for batch in batches(sent, sorted(cuts)):
        now_ms += data.draw(st.sampled_from([0, 0, 10_000, 100_000]))
        steps = [literal.receive(one, now_ms) for one in batch]
        closed = engine.receive(messages(batch, 7), now_ms)
        assert windows_of(closed) == [window for windows, _ in steps for window in windows]
        fates = [fate for _, fate in steps]
        for fate in fates:
            event(fate)
        assert closed.accepted == fates.count("accepted")
        assert [(one.offset, one.reject.reject_class.value) for one in closed.refusals] == [
            (offset, fate) for offset, fate in enumerate(fates, start=7) if fate != "accepted"
        ]
        if data.draw(st.integers(0, 4)) == 0:
            engine = restarted(engine, rules, spec, arithmetic, live, now_ms)
            literal.heard_ms = dict.fromkeys(literal.partitions, now_ms)
            literal.idle = set()
        if data.draw(st.integers(0, 2)) == 0:
            behind = data.draw(st.sets(st.sampled_from(literal.partitions)))
            now_ms += data.draw(st.sampled_from([0, 1, 14_999, 15_000]))
            expected = literal.advance(now_ms, behind)
            event(f"advance closes: {bool(expected)}")
            assert windows_of(engine.advance(now_ms, behind)) == expected
    assert windows_of(engine.finish()) == literal.close_all(ClosedBy.END)

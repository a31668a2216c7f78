"""The engine of one family: watermarks decide what is late and what closes.

The watermark of a partition is its latest accepted instant minus the lateness. The engine's is the
lowest of those partitions that are not idle, and a window closes once it reaches the window's end.
All of this holds record by record: how messages are cut into batches changes nothing. How the
partitions' messages alternate decides only about records later than the allowed lateness.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, tzinfo
from operator import attrgetter

import numpy as np

from fleetpulse.domain.aggregate import Arithmetic
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.closing import ClosedBy
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.metric import Topic
from fleetpulse.domain.position import ClockState, Partition
from fleetpulse.domain.reject import RejectClass
from fleetpulse.domain.rule import RuleSet
from fleetpulse.domain.window import WindowSpec
from fleetpulse.engine.columns import Columns, Read
from fleetpulse.engine.facts import Closed, Messages, Refusal, Refused, explained
from fleetpulse.engine.family import NEVER, OpenWindows
from fleetpulse.engine.intake import TopicIntake
from fleetpulse.engine.snapshot import pack, unpack
from fleetpulse.engine.table import Table
from fleetpulse.engine.text import Flags, Ints
from fleetpulse.engine.verdict import Verdicts
from fleetpulse.engine.window import Windows


@dataclass(frozen=True, slots=True)
class Liveness:
    """How long the engine waits, in milliseconds.

    `lateness_ms` for records that are out of order; None closes nothing before the end of input.
    `idle_close_ms` by the wall clock for partitions that are silent. `max_skew_ms` is how far a
    record may be dated ahead of the wall clock; None is no limit.
    """

    lateness_ms: int | None = 5_000
    idle_close_ms: int = 15_000
    max_skew_ms: int | None = 60_000


@dataclass(slots=True)
class Feed:
    """One partition: its side of the family, latest accepted instant, and when it was heard."""

    side: int
    times: TimeReader
    heard_ms: int
    latest_ms: int = NEVER
    is_idle: bool = False

    @property
    def clock(self) -> ClockState | None:
        """Where its clock times stand."""
        last_ms = self.times.last_clock_ms
        return None if last_ms is None else ClockState(self.times.start_date, last_ms)

    def hear(self, accepted: Columns, now_ms: int | None) -> None:
        """Note that records were accepted at this moment; None is a file without a clock."""
        self.latest_ms = max(self.latest_ms, int(accepted.ts_ms.max()))
        self.is_idle = False
        if now_ms is not None:
            self.heard_ms = now_ms


@dataclass(frozen=True, slots=True)
class _Taken:
    windows: list[Windows]
    refused: list[Refused]
    accepted: int


@dataclass(slots=True)
class Engine:
    """Windows of one family over the partitions of its topics.

    `spec_of` returns the windows, given the earliest instant of the first messages (the grid may
    hang on it) or None before them. `zone` and `start_date` are those of clock times.
    """

    rules: RuleSet
    spec_of: Callable[[int | None], WindowSpec]
    arithmetic: Arithmetic
    liveness: Liveness
    zone: tzinfo
    start_date: date
    _feeds: dict[Partition, Feed] = field(default_factory=dict)
    _intakes: tuple[TopicIntake, TopicIntake] = field(init=False)
    _open: OpenWindows = field(init=False)
    _has_begun: bool = False

    def __post_init__(self) -> None:
        """Prepare to read the family's topics."""
        family = self.rules.family
        first, second = (
            TopicIntake(topic, metric)
            for topic, metric in zip(family.topics, family.metrics, strict=True)
        )
        self._intakes = (first, second)
        self._open = OpenWindows(Verdicts(self.rules, self.arithmetic), self.spec_of(None))

    @property
    def latest_ms(self) -> dict[Partition, int | None]:
        """The latest accepted instant of each partition, None before its first."""
        return {
            partition: None if feed.latest_ms == NEVER else feed.latest_ms
            for partition, feed in self._feeds.items()
        }

    @property
    def clocks(self) -> dict[Partition, ClockState | None]:
        """Where the clock times of each partition stand."""
        return {partition: feed.clock for partition, feed in self._feeds.items()}

    @property
    def size_bytes(self) -> int:
        """The memory of the open panes."""
        return self._open.panes.size_bytes

    @property
    def open_bytes(self) -> int:
        """The part of it that open panes of known servers fill."""
        return self._open.panes.bytes_of(self._open.servers.count)

    def ahead(self, lead_ms: int) -> set[Partition]:
        """Return the partitions that are further than that ahead of the one that holds them back.

        Those hold back that are not idle; one without a message yet is behind all others.
        """
        holding = [feed.latest_ms for feed in self._feeds.values() if not feed.is_idle]
        if not holding:
            return set()
        limit_ms = min(holding) + lead_ms
        return {
            partition
            for partition, feed in self._feeds.items()
            if feed.latest_ms > limit_ms and not feed.is_idle
        }

    def assign(self, partitions: Mapping[Partition, Topic], now_ms: int) -> None:
        """Listen to these partitions and no others; the watermark waits for each of them.

        A partition that was listened to before goes on where it was. Raises ValueError for a topic
        that is none of the family's.
        """
        topics = self.rules.family.topics
        feeds = {}
        for partition, topic in partitions.items():
            feed = self._feeds.get(partition)
            if feed is None:
                times = TimeReader(self.zone, self.start_date)
                feed = Feed(topics.index(topic), times, now_ms)
            feeds[partition] = feed
        self._feeds = feeds

    def receive(self, messages: Messages, now_ms: int) -> Closed:
        """Count messages of an assigned partition, and close what their event times close.

        `now_ms` is the wall clock. Raises KeyError for a partition that is not assigned.
        """
        feed = self._feeds[messages.partition]
        self._open.make_room()
        read = self._intakes[feed.side].read(messages.payloads, self._open.servers, feed.times)
        return self._step(messages, read, now_ms)

    def receive_table(self, where: Partition, table: Table, chunk: bytes | None) -> Closed:
        """Count the lines of a file that stands for a partition; None is the end of the file.

        Refusals name the number of the line as offset and have the line as payload. There is no
        wall clock: no line is from the future. Raises UsageError for a header without the needed
        columns.
        """
        self._open.make_room()
        servers = self._open.servers
        read, lines, numbers = (
            table.finish(servers) if chunk is None else table.read(chunk, servers)
        )
        return self._step(Messages(where, numbers, lines), read, None)

    def advance(self, now_ms: int, behind: Collection[Partition] = ()) -> Closed:
        """Let the wall clock pass: silent partitions are set aside, then what can closes.

        A partition is silent once no record of it was accepted for `idle_close_ms`, unless it is in
        `behind`: the caller knows of messages that it has yet to read. While all are silent, every
        window closes.
        """
        for partition, feed in self._feeds.items():
            # A clock that was set back must not keep a partition awake.
            feed.heard_ms = now_ms if partition in behind else min(feed.heard_ms, now_ms)
            feed.is_idle = now_ms - feed.heard_ms >= self.liveness.idle_close_ms
        if self._feeds and all(feed.is_idle for feed in self._feeds.values()):
            return Closed(self._open.close_all(ClosedBy.IDLE))
        return Closed(self._close_by_watermark())

    def finish(self) -> Closed:
        """Close every window that holds a sample: the input ended."""
        return Closed(self._open.close_all(ClosedBy.END))

    def snapshot(self) -> bytes:
        """Return the state: together with the offsets read, it is all that a restart needs."""
        facts = {
            "windows": self._settings(),
            "origin_ms": self._open.spec.origin_ms,
            "has_begun": self._has_begun,
            "partitions": [
                [
                    where.topic_name,
                    where.number,
                    feed.side,
                    feed.latest_ms,
                    feed.times.start_date.isoformat(),
                    feed.times.last_clock_ms,
                ]
                for where, feed in self._feeds.items()
            ],
        }
        return pack(self._open.state(facts))

    def restore(self, data: bytes, now_ms: int, where: str) -> None:
        """Become the engine that gave a snapshot; call it before anything else.

        All its partitions count as heard now. Raises DamagedState, naming `where`, for bytes that
        are no snapshot, and UsageError if windows or arithmetic are set otherwise than they were.
        """
        state = unpack(data, where)
        was, wanted = state.facts["windows"], self._settings()
        if was != wanted:
            raise UsageError(
                f"{where}: the open windows were made with {_shown(was)}, but the settings say "
                f"{_shown(wanted)}; set them back, or remove the state to begin anew"
            )
        self._has_begun = state.facts["has_begun"]
        self._open.spec = replace(self._open.spec, origin_ms=state.facts["origin_ms"])
        self._open.restore(state)
        for name, number, side, latest_ms, start_date, last_clock_ms in state.facts["partitions"]:
            times = TimeReader(self.zone, date.fromisoformat(start_date), last_clock_ms)
            self._feeds[Partition(name, number)] = Feed(side, times, now_ms, latest_ms)

    def _settings(self) -> dict[str, str | int | bool]:
        """Return what the open windows hang on."""
        spec = self._open.spec
        return {
            "family": self.rules.family.name,
            "size_ms": spec.size_ms,
            "slide_ms": spec.slide_ms,
            "arithmetic": self.arithmetic.value,
        }

    def _step(self, messages: Messages, read: Read, now_ms: int | None) -> Closed:
        self._open.meet(read.new_ids)
        taken = self._take(self._feeds[messages.partition], read.columns, now_ms)
        refusals = [
            Refusal(messages.partition, messages.offsets[row], messages.payloads[row], reject)
            for row, reject in read.rejects
        ]
        for refused in taken.refused:
            ids = self._open.servers.ids(refused.columns.servers)
            refusals += explained(messages, refused, ids.tolist())
        refusals.sort(key=attrgetter("offset"))
        return Closed(taken.windows, refusals, taken.accepted)

    def _take(self, feed: Feed, columns: Columns, now_ms: int | None) -> _Taken:
        """Count columns of one partition, in order."""
        refused = []
        skew_ms = self.liveness.max_skew_ms
        if skew_ms is not None and now_ms is not None:
            is_future = columns.ts_ms > now_ms + skew_ms
            if is_future.any():
                why = f"is more than {skew_ms / 1000:g} s ahead of the receiving clock"
                refused.append(Refused(RejectClass.FUTURE, columns.taken(is_future), why))
                columns = columns.taken(~is_future)
        if not len(columns.rows):
            return _Taken([], refused, 0)
        if not self._has_begun:
            self._open.spec = self.spec_of(int(columns.ts_ms.min()))
            self._has_begun = True
        if self.liveness.lateness_ms is None and self._open.last_closed == NEVER:
            # A file: nothing has closed, and nothing will before its end.
            self._open.add(feed.side, columns)
            feed.hear(columns, now_ms)
            return _Taken([], refused, len(columns.rows))
        windows: list[Windows] = []
        bounds = self._bounds(feed, columns.ts_ms)
        panes = (columns.ts_ms - self._open.spec.origin_ms) // self._open.spec.slide_ms
        is_late = panes <= bounds
        # What counts in some of its windows only, because others had closed before it came.
        is_partly_late = (panes - self._open.panes_per_window < bounds) & ~is_late
        if is_late.any():
            why = "came after its windows had closed"
            refused.append(Refused(RejectClass.LATE, columns.taken(is_late), why))
        done = 0
        for row in _first_of_each(bounds, is_partly_late):
            self._count(feed, columns, ~is_late, slice(done, row))
            windows += self._open.close_to(int(bounds[row]), ClosedBy.WATERMARK)
            done = row
        self._count(feed, columns, ~is_late, slice(done, None))
        accepted = len(columns.rows) - int(is_late.sum())
        if accepted:
            feed.hear(columns, now_ms)
        return _Taken(windows + self._close_by_watermark(), refused, accepted)

    def _count(self, feed: Feed, columns: Columns, is_on_time: Flags, part: slice) -> None:
        columns, kept = columns.taken(part), is_on_time[part]
        self._open.add(feed.side, columns if kept.all() else columns.taken(kept))

    def _bounds(self, feed: Feed, ts_ms: Ints) -> Ints:
        """Return, for each record, the last window that had closed when it came."""
        before = np.empty_like(ts_ms)
        before[0], before[1:] = feed.latest_ms, ts_ms[:-1]
        np.maximum.accumulate(before, out=before)
        others = [
            one.latest_ms for one in self._feeds.values() if one is not feed and not one.is_idle
        ]
        if others:
            np.minimum(before, min(others), out=before)
        return np.maximum(self._ended(before), self._open.last_closed)

    def _close_by_watermark(self) -> list[Windows]:
        latest = [feed.latest_ms for feed in self._feeds.values() if not feed.is_idle]
        if not latest:
            return []
        last = int(self._ended(np.array([min(latest)]))[0])
        return self._open.close_to(last, ClosedBy.WATERMARK)

    def _ended(self, latest_ms: Ints) -> Ints:
        """Return the last window that ends at or before the watermark of each instant."""
        if self.liveness.lateness_ms is None:
            return np.full_like(latest_ms, NEVER)
        spec = self._open.spec
        panes = (latest_ms - self.liveness.lateness_ms - spec.origin_ms) // spec.slide_ms
        return panes - self._open.panes_per_window


def _shown(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _first_of_each(bounds: Ints, is_partly_late: Flags) -> list[int]:
    """Return the rows before which windows must close, because the row counts in none of them.

    Bounds never fall, so it is the first such row of each bound.
    """
    rows = np.flatnonzero(is_partly_late)
    is_first = np.diff(bounds[rows], prepend=NEVER - 1) > 0
    return [int(row) for row in rows[is_first]]

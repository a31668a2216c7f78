"""Messages of the four topics -> closed windows and refusals, through the engines of both families.

Nothing here waits or writes: what came is kept until it is drained, for one commit.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Self

from fleetpulse.config import Settings
from fleetpulse.domain.metric import FAMILIES, Topic
from fleetpulse.domain.position import Partition
from fleetpulse.domain.reject import RejectClass, RejectLimit
from fleetpulse.edges.kafka.fetched import Fetched
from fleetpulse.engine import Closed, Engine, Liveness, Messages, Refusal, Windows

# These are about the time of a valid record: they do not count against the reject limit.
MISTIMED: Final = frozenset({RejectClass.LATE, RejectClass.FUTURE})
# While one partition is read far ahead of another, the panes between them stay open.
_MOST_OPEN_BYTES: Final = 32 << 20
_LEAD_WINDOWS: Final = 2


@dataclass(slots=True)
class Drained:
    """What the engines brought, in the order in which it came."""

    windows: list[Windows] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)

    @property
    def window_count(self) -> int:
        """How many windows closed."""
        return sum(map(len, self.windows))

    def classes(self) -> Counter[str]:
        """Return how many refusals each class has."""
        return Counter(one.reject.reject_class.value for one in self.refusals)


@dataclass(slots=True)
class LiveWindows:
    """Both engines, and what they brought since the last drain.

    `tripped` says that the reject limit was reached. Partitions may always be read `lead_ms` ahead
    of others, and further while open panes take at most `most_open_bytes`. `now_ms` is the wall
    clock.
    """

    topics: Mapping[str, Topic]
    engines: tuple[Engine, ...]
    limit: RejectLimit
    lead_ms: int
    most_open_bytes: int = _MOST_OPEN_BYTES
    tripped: str | None = None
    waiting: Drained = field(default_factory=Drained)
    _engine_of: dict[Partition, Engine] = field(default_factory=dict)
    _is_holding: bool = False

    @classmethod
    def of(cls, settings: Settings, notes: Mapping[str, bytes], now_ms: int, where: str) -> Self:
        """Return the windows of the settings, going on from the notes of an earlier run.

        Raises UsageError for other window settings than those of the notes, and DamagedState, both
        naming `where` the notes are from.
        """
        engines = tuple(_engines(settings))
        for engine in engines:
            name = _note_name(engine)
            if name in notes:
                engine.restore(notes[name], now_ms, where)
        return cls(
            {settings.topics.name(topic): topic for one in FAMILIES for topic in one.topics},
            engines,
            RejectLimit(settings.rejects.max_ratio, settings.rejects.max_in_a_row),
            _LEAD_WINDOWS * settings.window.size_s * 1000,
        )

    def assign(self, partitions: Iterable[Partition], now_ms: int) -> None:
        """Listen to these partitions and no others."""
        self._engine_of = {}
        found = list(partitions)
        for engine in self.engines:
            own = {
                partition: topic
                for partition in found
                if (topic := self.topics[partition.topic_name]) in engine.rules.family.topics
            }
            engine.assign(own, now_ms)
            self._engine_of |= dict.fromkeys(own, engine)

    def take(self, fetched: Fetched, now_ms: int) -> None:
        """Count messages of one partition."""
        offsets = fetched.offsets
        messages = Messages(fetched.partition, offsets, fetched.payloads)
        closed = self._engine_of[fetched.partition].receive(messages, now_ms)
        self._keep(closed)
        done = offsets[0] - 1
        for one in closed.refusals:
            if one.reject.reject_class in MISTIMED:
                continue
            self.limit.note_valid(one.offset - done - 1)
            self.limit.note(is_reject=True)
            self.tripped = self.tripped or self.limit.tripped()
            done = one.offset
        self.limit.note_valid(offsets[-1] - done)

    def advance(self, now_ms: int, behind: set[Partition]) -> None:
        """Let time pass; `behind` are the partitions that may hold unread messages."""
        for engine in self.engines:
            self._keep(engine.advance(now_ms, behind))

    def finish(self) -> None:
        """Close every window: the input ended."""
        for engine in self.engines:
            self._keep(engine.finish())

    def ahead(self) -> set[Partition]:
        """Return the partitions that have to wait for others, so that memory stays bounded."""
        open_bytes = max(engine.open_bytes for engine in self.engines)
        # Half of it is enough to go on: each change of mind costs what was fetched in advance.
        self._is_holding = open_bytes > self.most_open_bytes // (2 if self._is_holding else 1)
        if not self._is_holding:
            return set()
        return set().union(*(engine.ahead(self.lead_ms) for engine in self.engines))

    def drain(self) -> Drained:
        """Return what came and begin anew."""
        drained, self.waiting = self.waiting, Drained()
        return drained

    def notes(self) -> dict[str, bytes]:
        """Return all that a restart needs beside the positions."""
        return {_note_name(engine): engine.snapshot() for engine in self.engines}

    def _keep(self, closed: Closed) -> None:
        self.waiting.windows += closed.windows
        self.waiting.refusals += closed.refusals


def _engines(settings: Settings) -> Iterator[Engine]:
    liveness = Liveness(
        lateness_ms=settings.window.lateness_s * 1000,
        idle_close_ms=settings.window.idle_close_s * 1000,
        max_skew_ms=settings.time.max_skew_s * 1000,
    )
    zone = settings.time.tz
    start_date = settings.time.start_date(datetime.now(zone).date())
    for family in FAMILIES:
        yield Engine(
            settings.rule_set(family),
            settings.window.spec,
            settings.arithmetic,
            liveness,
            zone,
            start_date,
        )


def _note_name(engine: Engine) -> str:
    return f"engine.{engine.rules.family.name}"

"""Proves from offsets, files and rejects that each record is in exactly one place.

Everything is taken as it was at one instant: what the state says was committed then. So it works
while consumers run, takes no lock and changes nothing.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from fleetpulse.codec.rejects import rejects_file_name
from fleetpulse.codec.table import record_file_name
from fleetpulse.config import Settings
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.errors import DataChanged, UsageError
from fleetpulse.domain.metric import FAMILIES, Family, Topic
from fleetpulse.domain.position import GapKind, LogFacts, Partition, Position, find_gap
from fleetpulse.edges.kafka.consumer import LogConsumer
from fleetpulse.edges.sink import StateView, read_state, state_paths
from fleetpulse.edges.sink.reading import open_committed
from fleetpulse.edges.sink.state import STATE_SUFFIX
from fleetpulse.roles.access import kafka_access
from fleetpulse.roles.auditing.expected import Stretch
from fleetpulse.roles.auditing.finding import Fault, Findings
from fleetpulse.roles.auditing.rejects import read_rejects
from fleetpulse.roles.auditing.rows import judge_bytes
from fleetpulse.roles.auditing.topic import (
    PORTION_LINES,
    Files,
    Source,
    TopicAudit,
    audit_topic,
)
from fleetpulse.roles.consume import CONSUMER_NAMES
from fleetpulse.roles.gap_mark import GapMark
from fleetpulse.roles.locate import LOST_OFFSETS


@dataclass(frozen=True, slots=True)
class RoleAudit:
    """What was found of a consumer; `unplaced` are faults of the rejects file without a topic.

    `lost_offsets` counts what gaps of the topics took before it was read, `partitions` are those
    that its state knows.
    """

    name: str
    topics: tuple[TopicAudit, ...]
    unplaced: Findings
    lost_offsets: int
    partitions: frozenset[Partition]

    def count(self, fault: Fault) -> int:
        """Return how many faults of a kind there are."""
        parts = [self.unplaced, *(topic.findings for topic in self.topics)]
        return sum(part.counts[fault] for part in parts)

    @property
    def is_exact(self) -> bool:
        """Whether nothing is wrong with what can be checked."""
        return not any(map(self.count, Fault))


def audit(
    settings: Settings,
    names: Iterable[str],
    *,
    say: Callable[[str], None],
    report: Callable[[int, float | None], None],
    timeout_s: float,
    portion_lines: int = PORTION_LINES,
) -> list[RoleAudit]:
    """Return what is found of the consumers `names`; without names, of each that ran here.

    `report` gets how many messages were read again. Up to `portion_lines` lines of a topic are held
    at once; where there are more, it is read several times. Raises ServiceUnreachable (no broker or
    no topic within `timeout_s`), UsageError, DamagedState, DiskError, and DataChanged where state
    or a whole file is gone, or the topics are no longer those that were read.
    """
    given = list(names)
    audits = [
        _Audit(settings, family, found, say, report, timeout_s, portion_lines)
        for family in FAMILIES
        if not given or CONSUMER_NAMES[family.name] in given
        for found in _consumers(settings.output_dir, family)
    ]
    if not audits:
        raise UsageError(
            f"{settings.output_dir}: no {' or '.join(given) or 'consumer'} has run here; check "
            "output_dir, or name the settings file of the consumer (--config)"
        )
    found = [one.run() for one in audits]
    for number, one in enumerate(found):
        for other in found[:number]:
            for partition in sorted(one.partitions & other.partitions, key=str):
                text = f"{partition} is in the files of {other.name} too"
                one.unplaced.add(Fault.DUPLICATE, None, text)
    return found


def _consumers(folder: Path, family: Family) -> list[str]:
    """Return the names of the family's consumers that ran here, each alone or on its share.

    Raises DataChanged for files without their state.
    """
    base = CONSUMER_NAMES[family.name]
    names = [path.name.removesuffix(STATE_SUFFIX) for path in state_paths(folder, base)]
    for path in sorted(folder.glob("*")):
        for name in _owners(path.name, family):
            if name not in names and path.stat().st_size:
                raise DataChanged(
                    f"{path}: it has {path.stat().st_size} bytes, but "
                    f"{folder / name}{STATE_SUFFIX} is missing: put the state back, without it "
                    "nothing tells what was done; or name another consumer (--role)"
                )
    return names


def _owners(file_name: str, family: Family) -> list[str]:
    """Return the consumer that a file is of; empty for another file."""
    base = CONSUMER_NAMES[family.name]
    shapes = [rejects_file_name(base), *map(record_file_name, family.topics)]
    splits = (shape.rpartition(".") for shape in shapes)
    matches = (
        re.fullmatch(rf"{re.escape(stem)}(\.p[0-9-]+)?\.{end}", file_name)
        for stem, _, end in splits
    )
    return [base + (match[1] or "") for match in matches if match]


@dataclass(slots=True)
class _Audit:
    """The audit of one consumer, by its name: that of its share stands in it."""

    settings: Settings
    family: Family
    name: str
    say: Callable[[str], None]
    report: Callable[[int, float | None], None]
    timeout_s: float
    portion_lines: int
    _read_count: int = 0
    _whole_count: int = 0

    @property
    def _state_path(self) -> Path:
        return self.settings.output_dir / f"{self.name}{STATE_SUFFIX}"

    @property
    def _share(self) -> str:
        """What the names of its files have before their ending."""
        return self.name.removeprefix(CONSUMER_NAMES[self.family.name])

    def run(self) -> RoleAudit:
        view = read_state(self._state_path)
        if view is None:
            raise UsageError(
                f"{self._state_path}: it holds nothing yet; run this again once {self.name} runs"
            )
        names = [self.settings.topics.name(topic) for topic in self.family.topics]
        for position in view.positions:
            if position.topic_name not in names:
                raise UsageError(
                    f"{self._state_path}: it is of topic {position.topic_name}, which the settings "
                    "do not name; give the settings file of the consumer (--config)"
                )
        access = kafka_access(self.settings, self.say)
        # Only the whole consumer's group is one that its user may name everywhere.
        group_id = f"fleetpulse-{CONSUMER_NAMES[self.family.name]}"
        consumer = LogConsumer(access, group_id, names)
        try:
            facts = consumer.survey(view.positions, self.timeout_s)
            return self._audited(view, facts, consumer)
        finally:
            consumer.close()

    def _audited(
        self, view: StateView, facts: Mapping[Partition, LogFacts], consumer: LogConsumer
    ) -> RoleAudit:
        marks = {
            partition: GapMark.unpack(view.notes[GapMark.name(partition)], str(self._state_path))
            for partition in view.positions
            if GapMark.name(partition) in view.notes
        }
        stretches = {
            partition: self._stretch(position, facts.get(partition), marks.get(partition))
            for partition, position in view.positions.items()
        }
        self._whole_count = sum(max(one.end - one.start, 0) for one in stretches.values())
        rejects_name = rejects_file_name(self.name)
        files = Files(self.settings.output_dir, view.files, rejects_name)
        with open_committed(files.folder, files.state(rejects_name)) as file:
            rejects, unplaced = read_rejects(file, stretches)
            crc = file.crc
            topics = tuple(
                audit_topic(
                    self._source(topic, consumer),
                    stretches,
                    rejects,
                    files,
                    self.portion_lines,
                )
                for topic in self.family.topics
            )
            if not any(topic.findings.counts.total() for topic in topics):
                judge_bytes(file, crc, unplaced)
        lost_offsets = view.counters.get(LOST_OFFSETS, 0)
        return RoleAudit(self.name, topics, unplaced, lost_offsets, frozenset(stretches))

    def _stretch(self, position: Position, facts: LogFacts | None, mark: GapMark | None) -> Stretch:
        """Return what of a partition can be checked; raises DataChanged for another log."""
        if facts is None:
            raise DataChanged(
                f"{position.partition}: the state knows it, but the broker has no such partition; "
                "the topic is not the one that was read"
            )
        gap = find_gap(position, facts)
        if gap is not None and gap.kind is not GapKind.RETENTION_PASSED:
            raise DataChanged(
                f"{position.partition}: {gap.kind}: committed up to offset "
                f"{position.next_offset}, the broker has {facts.low} to {facts.high}; what was "
                "read cannot be read again, so nothing can be checked"
            )
        first = mark.resume_offset if mark else 0
        start = min(max(first, facts.low), position.next_offset)
        zone, clock = self.settings.time.tz, position.clock
        if clock is None:
            start_date = self.settings.time.start_date(datetime.now(zone).date())
        else:
            start_date = clock.start_date
            if start > first:
                # The dates of clock times follow from those before, which are gone.
                start = position.next_offset
        last_ms = mark.clock_ms if mark else None
        return Stretch(position, start, partial(TimeReader, zone, start_date, last_ms), mark)

    def _source(self, topic: Topic, consumer: LogConsumer) -> Source:
        stem, _, end = record_file_name(topic).rpartition(".")
        file_name = f"{stem}{self._share}.{end}"
        name = self.settings.topics.name(topic)
        return Source(topic, name, file_name, consumer, self._count)

    def _count(self, count: int) -> None:
        self._read_count += count
        whole = max(self._whole_count, 1)
        self.report(self._read_count, min(self._read_count / whole, 1.0))

"""One topic and its file: every valid record is a row of it, every other one a reject."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from fleetpulse.domain.metric import Topic
from fleetpulse.domain.position import Partition
from fleetpulse.edges.kafka.consumer import LogConsumer
from fleetpulse.edges.sink import FileState
from fleetpulse.edges.sink.reading import open_committed
from fleetpulse.roles.auditing.expected import Expected, Portion, Stretch, expect
from fleetpulse.roles.auditing.finding import Fault, Findings
from fleetpulse.roles.auditing.reconcile import Column, Differences, reconcile
from fleetpulse.roles.auditing.rejects import RejectLines, judge_rejects
from fleetpulse.roles.auditing.rows import RowFile, RowForm, judge_bytes, judge_rows

# A line takes about fifty bytes meanwhile; where there are more the topic is read several times.
PORTION_LINES: Final = 2_000_000


@dataclass(frozen=True, slots=True)
class PartitionAudit:
    """What a partition's records below the stored next offset amount to."""

    partition: Partition
    next_offset: int
    rows: int
    rejects: int

    @property
    def records(self) -> int:
        """How many records there are; transaction markers and aborted records are none."""
        return self.rows + self.rejects


@dataclass(frozen=True, slots=True)
class TopicAudit:
    """What was found of a topic.

    Kafka no longer has `gone_offsets` of its offsets, so `gone_rows` and `gone_rejects` lines of
    the files cannot be checked against it.
    """

    topic_name: str
    file_name: str
    partitions: tuple[PartitionAudit, ...]
    gone_offsets: int
    gone_rows: int
    gone_rejects: int
    findings: Findings


@dataclass(frozen=True, slots=True)
class Source:
    """A topic, its name in Kafka, its file and who reads it; `report` gets how much came."""

    topic: Topic
    name: str
    file_name: str
    consumer: LogConsumer
    report: Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a consumer, as its state knows them."""

    folder: Path
    states: Mapping[str, FileState]
    rejects_name: str

    def state(self, name: str) -> FileState:
        """Return what is committed of a file; of one that the state does not know nothing is."""
        return self.states.get(name, FileState(name))


def audit_topic(
    source: Source,
    stretches: Mapping[Partition, Stretch],
    rejects: Mapping[Partition, RejectLines],
    files: Files,
    portion_lines: int,
) -> TopicAudit:
    """Return what is found of a topic; of the stretches and rejects only its own are looked at.

    Up to `portion_lines` lines are held at once. Raises what `expect` and `open_committed` raise.
    """
    mine = {where: one for where, one in stretches.items() if where.topic_name == source.name}
    state = files.state(source.file_name)
    findings = Findings()
    with open_committed(files.folder, state) as committed:
        breaks_bytes = [one.break_bytes(state.name) for one in mine.values()]
        file = RowFile(committed, RowForm.of(source.topic), min(breaks_bytes, default=0))
        rows = _Rows(file, mine, rejects, _gone_most(mine, file, rejects))
        whole = max(state.lines, sum(one.end - one.start for one in mine.values()), 1)
        count = -(-whole // portion_lines)
        for number in range(count):
            portion = Portion(number, count)
            found = expect(source.consumer, source.topic, mine, portion, source.report)
            rows.take(portion, found)
        judge_rows(file, rows.differences, findings)
        if (over := rows.differences.gone_count - rows.gone_most) > 0:
            # Portion by portion each could be of a record that is gone, all together cannot.
            text = f"{file.name} has {over} rows more than records that are gone"
            findings.add(Fault.DUPLICATE, None, text)
            findings.add_unnamed(Fault.DUPLICATE, over - 1)
        for where, stretch in mine.items():
            judge_rejects(
                where,
                rows.rejects[where],
                rejects[where],
                file_name=files.rejects_name,
                rows=rows.rejected(where),
                end=stretch.end,
                findings=findings,
            )
        judge_bytes(committed, rows.crc, findings)
    return TopicAudit(
        source.name,
        state.name,
        tuple(
            PartitionAudit(where, stretch.end, rows.counts[where], len(rows.rejects[where]))
            for where, stretch in sorted(mine.items(), key=lambda item: item[0].number)
        ),
        gone_offsets=sum(one.gone_offsets for one in mine.values()),
        gone_rows=rows.before_count + rows.differences.gone_count,
        gone_rejects=sum(rejects[where].gone_count for where in mine),
        findings=findings,
    )


@dataclass(slots=True)
class _Rows:
    """The rows of a topic against its file, portion by portion."""

    file: RowFile
    stretches: Mapping[Partition, Stretch]
    found_rejects: Mapping[Partition, RejectLines]
    gone_most: int
    differences: Differences = field(default_factory=Differences)
    rejects: dict[Partition, Column] = field(default_factory=dict)
    counts: dict[Partition, int] = field(default_factory=dict)
    before_count: int = 0
    crc: int = 0
    _rejected: dict[Partition, set[int]] = field(default_factory=dict)

    def take(self, portion: Portion, expected: Mapping[Partition, Expected]) -> None:
        """Compare a portion of the rows; the first one brings the rejects and all counts."""
        lines, self.before_count = self.file.column(portion)
        self.crc = self.file.file.crc
        rows = {where: one.rows.column() for where, one in expected.items()}
        for where, one in expected.items():
            self.rejects.setdefault(where, one.rejects.column())
            self.counts[where] = one.row_count
            asked = np.array(self.found_rejects[where].offsets, np.int64)
            both = np.intersect1d(rows[where].numbers, asked).tolist()
            self._rejected.setdefault(where, set()).update(both)
        self.differences.add(reconcile(rows, lines, self.gone_most))

    def rejected(self, where: Partition) -> dict[int, bool]:
        """Return the rejected offsets of valid records, and whether the row of each is there."""
        missing = {offset for one, offset in self.differences.missing if one == where}
        return {offset: offset not in missing for offset in self._rejected[where]}


def _gone_most(
    stretches: Mapping[Partition, Stretch],
    file: RowFile,
    rejects: Mapping[Partition, RejectLines],
) -> int:
    """Return how many rows of records that are gone may stand behind the file's first part."""
    most = 0
    for where, one in stretches.items():
        count = one.gone_offsets
        if one.mark and one.break_bytes(file.name) == file.gone_bytes:
            count -= one.mark.done_offsets
        elif not one.mark:
            count -= rejects[where].gone_count
        most += max(count, 0)
    return most

"""A CSV file against the valid records of its topic."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date
from typing import Final

from fleetpulse.codec.table import TableReader, read_header, record_line, table_header
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.metric import Topic
from fleetpulse.domain.position import Partition
from fleetpulse.domain.sample import Record
from fleetpulse.edges.sink.reading import CommittedFile
from fleetpulse.roles.auditing.expected import Lines, Portion
from fleetpulse.roles.auditing.finding import Fault, Findings
from fleetpulse.roles.auditing.reconcile import Column, Differences
from fleetpulse.roles.auditing.rejects import excerpt

_ANY_DAY: Final = date(2000, 1, 1)


@dataclass(frozen=True, slots=True)
class RowForm:
    """What a whole line of a topic's file looks like: read and printed again it is the same."""

    topic: Topic
    reader: TableReader

    @classmethod
    def of(cls, topic: Topic) -> "RowForm":
        """Return the form of a topic."""
        header = table_header(topic.metrics).encode()
        times = TimeReader(UTC, _ANY_DAY)
        return cls(topic, read_header(header.rstrip(), topic.metrics, times, "header"))

    def has(self, line: bytes) -> bool:
        """Tell whether a line without its end has it."""
        row = self.reader.read(line)
        if row.sample is None or row.rejects:
            return False
        sample = row.sample
        values = tuple(sample.values[metric.name] for metric in self.topic.metrics)
        record = Record(self.topic, sample.ts_ms, sample.server_id, values)
        return record_line(record)[:-1].encode() == line


@dataclass(frozen=True, slots=True)
class RowFile:
    """A file, its form, and the bytes in front that are of logs which are gone."""

    file: CommittedFile
    form: RowForm
    gone_bytes: int

    @property
    def name(self) -> str:
        """Its name in its folder."""
        return self.file.path.name

    def column(self, portion: Portion) -> tuple[Column, int]:
        """Return the lines that can be checked, and how many rows stand before them."""
        found, gone_count = Lines(), -1
        for number, lines in self._pieces():
            if number < 0:
                gone_count += len(lines)
                continue
            rows = lines[1:] if number == 1 else lines
            numbers = range(number + len(lines) - len(rows), number + len(lines))
            found.add(portion.column(numbers, map(hash, rows), len(rows)))
        return found.column(), max(gone_count, 0)

    def has_header(self) -> bool:
        """Tell whether the first line is the header; a file of which nothing is committed is."""
        wanted = table_header(self.form.topic.metrics).rstrip().encode()
        first = next(self.file.lines(), None)
        return first is None or first[0] == wanted

    def picked(self, numbers: set[int]) -> Iterator[tuple[int, bytes]]:
        """Yield the lines of these numbers."""
        number = 1
        for lines in self.file.lines():
            for place in sorted(numbers.intersection(range(number, number + len(lines)))):
                yield place, lines[place - number]
            number += len(lines)

    def torn(self) -> Iterator[int]:
        """Yield the numbers of all lines below the header that are not whole."""
        number = 1
        for lines in self.file.lines():
            for line in lines:
                if number > 1 and not self.form.has(line):
                    yield number
                number += 1

    def _pieces(self) -> Iterator[tuple[int, list[bytes]]]:
        """Yield lists of lines, each with the number of its first line; gone ones have -1."""
        number = 1
        for lines in self.file.lines(0, self.gone_bytes):
            yield -1, lines
            number += len(lines)
        for lines in self.file.lines(self.gone_bytes):
            yield number, lines
            number += len(lines)


def judge_rows(file: RowFile, differences: Differences, findings: Findings) -> None:
    """Add the differences between a file and its records, and what is wrong with the file."""
    name = file.name
    for partition, offset in sorted(differences.missing, key=_place):
        findings.add(Fault.MISSING, (partition, offset), f"its row is not in {name}")
    for number, partition, offset in sorted(differences.repeated, key=_line):
        text = f"{name} line {number} is the row again"
        findings.add(Fault.DUPLICATE, (partition, offset), text)
    torn = _judge_foreign(file, differences, findings)
    if differences.gone_count or file.gone_bytes:
        for number in file.torn():
            if number not in torn:
                findings.add(Fault.TORN, None, f"{name} line {number} is not whole")
    for number, partition, offset in differences.moved:
        text = f"{name} line {number} has its row before its turn"
        findings.add(Fault.DISORDER, (partition, offset), text)
    findings.add_unnamed(Fault.DISORDER, differences.moved_count - len(differences.moved))
    if not file.has_header():
        findings.add(Fault.CHANGED, None, f"{name} line 1 is not the header")


def judge_bytes(file: CommittedFile, crc: int, findings: Findings) -> None:
    """Add what length and checksum tell where the lines told nothing."""
    state, name = file.state, file.path.name
    if file.found_bytes < state.committed_bytes and not findings.counts[Fault.TORN]:
        text = f"{name} ends at byte {file.found_bytes}, {state.committed_bytes} are committed"
        findings.add(Fault.TORN, None, text)
    elif crc != state.running_crc and not findings.counts.total():
        text = f"{name} has not the checksum that its state names"
        findings.add(Fault.CHANGED, None, text)


def _judge_foreign(file: RowFile, differences: Differences, findings: Findings) -> set[int]:
    """Add the lines that no record gives, and return the numbers of those that are torn."""
    places = {number: (where, offset) for number, where, offset in differences.foreign}
    torn = set()
    for number, line in file.picked(set(places)):
        is_torn = not file.form.has(line)
        if is_torn:
            torn.add(number)
        where, offset = places[number]
        place = None if where is None or offset is None else (where, offset)
        text = (
            f"{file.name} line {number} is {'not whole' if is_torn else 'no record of the topic'}: "
            f"{excerpt(line)}"
        )
        findings.add(Fault.TORN if is_torn else Fault.CHANGED, place, text)
    return torn


def _place(found: tuple[Partition, int]) -> tuple[str, int, int]:
    partition, offset = found
    return partition.topic_name, partition.number, offset


def _line(found: tuple[int, Partition, int]) -> int:
    return found[0]

"""A rejects file against the records that are no valid samples: by topic, partition and offset."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from fleetpulse.domain.position import Partition
from fleetpulse.edges.sink.reading import CommittedFile
from fleetpulse.roles.auditing.expected import Stretch, reject_hash
from fleetpulse.roles.auditing.finding import Fault, Findings
from fleetpulse.roles.auditing.reconcile import Column

# What a line says of its place stands first, so a line that was cut still tells.
_PLACE: Final = re.compile(
    rb'\{"topic": "([A-Za-z0-9._-]{1,249})", "partition": (\d{1,9}), "offset": (\d{1,18}),'
)


@dataclass(slots=True)
class RejectLines:
    """The lines of one partition: offset, line number and hash of each whole one, in file order.

    `torn` are the offsets of lines that are not whole, `gone_count` counts those of records that
    nobody can look at any more.
    """

    offsets: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    hashes: list[int] = field(default_factory=list)
    torn: dict[int, int] = field(default_factory=dict)
    gone_count: int = 0


def read_rejects(
    file: CommittedFile, stretches: Mapping[Partition, Stretch]
) -> tuple[dict[Partition, RejectLines], Findings]:
    """Return the lines by partition, and what is wrong with lines that name none.

    Of a partition, lines below its stretch and before the break of its log are gone.
    """
    found = {partition: RejectLines() for partition in stretches}
    unplaced = Findings()
    for number, start, line in _numbered(file):
        match = _PLACE.match(line)
        partition = Partition(match[1].decode(), int(match[2])) if match else None
        if match is None or partition not in found:
            fault = Fault.CHANGED if match else Fault.TORN
            unplaced.add(
                fault, None, f"{_at(file, number)} is of no record that was read: {excerpt(line)}"
            )
            continue
        into, offset = found[partition], int(match[3])
        stretch = stretches[partition]
        if offset < stretch.start or start < stretch.break_bytes(file.path.name):
            into.gone_count += 1
            continue
        try:
            into.hashes.append(reject_hash(line))
        except (TypeError, ValueError, RecursionError):
            into.torn[offset] = number
        else:
            into.offsets.append(offset)
            into.lines.append(number)
    return found, unplaced


def judge_rejects(
    partition: Partition,
    expected: Column,
    found: RejectLines,
    *,
    file_name: str,
    rows: Mapping[int, bool],
    end: int,
    findings: Findings,
) -> None:
    """Add what is wrong with the rejects of one partition.

    `rows` has those of the rejected offsets whose records are valid, and whether the row of each
    is in its file; `end` is the consumer's next offset.
    """
    wanted = dict(zip(expected.numbers.tolist(), expected.hashes.tolist(), strict=True))
    seen: set[int] = set()
    latest = -1
    for offset, number, value in zip(found.offsets, found.lines, found.hashes, strict=True):
        place, line = (partition, offset), f"{file_name} line {number}"
        if offset in seen:
            findings.add(Fault.DUPLICATE, place, f"{line} rejects it again")
        elif offset in wanted:
            if wanted[offset] != value:
                findings.add(Fault.CHANGED, place, f"{line} does not say what its message gives")
        elif rows.get(offset):
            findings.add(Fault.DUPLICATE, place, f"{line} rejects it, and its row is there too")
        elif offset in rows:
            findings.add(Fault.CHANGED, place, f"{line} rejects it, but it is valid")
        else:
            why = "is not done yet" if offset >= end else "holds no record"
            findings.add(Fault.CHANGED, place, f"{line} rejects it, but that offset {why}")
        if offset < latest and offset not in seen:
            findings.add(Fault.DISORDER, place, f"{line} stands behind a later offset")
        seen.add(offset)
        latest = max(latest, offset)
    for offset, number in found.torn.items():
        findings.add(Fault.TORN, (partition, offset), f"{file_name} line {number} is not whole")
    for offset in np.setdiff1d(expected.numbers, [*seen, *found.torn]).tolist():
        findings.add(Fault.MISSING, (partition, offset), f"no line of {file_name} rejects it")


def excerpt(line: bytes) -> str:
    """Return the beginning of a line as it can be shown on a terminal."""
    return ascii(line[:80].decode(errors="backslashreplace"))


def _at(file: CommittedFile, number: int) -> str:
    return f"{file.path.name} line {number}"


def _numbered(file: CommittedFile) -> Iterator[tuple[int, int, bytes]]:
    """Yield the lines with their numbers from 1 and the bytes before each."""
    number = start = 0
    for lines in file.lines():
        for line in lines:
            number += 1
            yield number, start, line
            start += len(line) + 1

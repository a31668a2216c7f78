"""What an audit finds: each fault with its place; all are counted, the first ones named."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from fleetpulse.domain.position import Partition
from fleetpulse.roles.auditing.reconcile import NAMED


class Fault(StrEnum):
    """What is wrong with a record or a line; CHANGED is a whole line that no record gives."""

    MISSING = "missing"
    DUPLICATE = "duplicate"
    TORN = "torn"
    CHANGED = "changed"
    DISORDER = "out of order"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault; offset and partition are None where the line itself does not tell."""

    fault: Fault
    partition: Partition | None
    offset: int | None
    text: str

    def __str__(self) -> str:
        """Return it as a line for people."""
        place = "" if self.partition is None else f"{self.partition} offset {self.offset}: "
        return f"{self.fault}: {place}{self.text}"


@dataclass(slots=True)
class Findings:
    """Counts all faults and keeps the first ones of each kind."""

    counts: Counter[Fault] = field(default_factory=Counter)
    named: list[Finding] = field(default_factory=list)

    def add(self, fault: Fault, where: tuple[Partition, int] | None, text: str) -> None:
        """Take a fault."""
        self.counts[fault] += 1
        if self.counts[fault] <= NAMED:
            partition, offset = where or (None, None)
            self.named.append(Finding(fault, partition, offset, text))

    def add_unnamed(self, fault: Fault, count: int) -> None:
        """Count faults beyond those that are named."""
        self.counts[fault] += count

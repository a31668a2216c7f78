r"""A shortcut from message to line for messages in the very form that `encode_message` writes.

Such a message already holds its line's cells as they are to be printed, so it is matched and cut
instead of being parsed and printed again, in about a quarter of the time. Every other form goes the
long way; for any message both ways give the same line (tests/property/test_intake.py).
"""

import re
from dataclasses import dataclass, field
from typing import Final, Self

from fleetpulse.domain.clock import iso_text
from fleetpulse.domain.metric import Metric, Topic
from fleetpulse.domain.sample import Record

# Instants repeat, since servers are sampled together; this bounds the memory.
_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class PlainForm:
    """The plain form of one topic's messages; knows the instants that it has been shown."""

    pattern: re.Pattern[bytes]
    instants: set[bytes] = field(default_factory=set)

    @classmethod
    def of(cls, topic: Topic) -> Self:
        """Return the form of a topic."""
        values = ",".join(f'"{metric.name}":({_number(metric)})' for metric in topic.metrics)
        server_id = "[A-Za-z0-9][A-Za-z0-9._:-]{0,63}"
        text = rf'\{{"ts":"([0-9TZ:.-]{{20,24}})","server_id":"({server_id})",{values}\}}'
        return cls(re.compile(text.encode()))

    def line(self, payload: bytes) -> bytes | None:
        """Return the line of a message, or None where only the long way can tell."""
        match = self.pattern.fullmatch(payload)
        if match is None or match[1] not in self.instants:
            return None
        return b",".join(match.groups()) + b"\n"

    def learn(self, record: Record) -> None:
        """Remember the instant of a record that came the long way, in its only plain spelling."""
        if len(self.instants) >= _REMEMBERED:
            self.instants.clear()
        self.instants.add(iso_text(record.ts_ms).encode())


def _number(metric: Metric) -> str:
    """Return a pattern of numbers in range that read and print as the same text.

    Up to as many digits as stay below the highest value, and up to four decimals: fewer than 16
    digits survive a double, and from 0.0001 on Python prints no exponent.
    """
    digits = len(str(metric.highest)) - 1
    return rf"(?:0|[1-9][0-9]{{0,{digits - 1}}})(?:\.(?:0|[0-9]{{0,3}}[1-9]))?"

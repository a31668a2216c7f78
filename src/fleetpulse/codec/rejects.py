"""A reject as one JSON line: what it was, where it came from, why, and the first KiB of it."""

import json
from typing import Final

from fleetpulse.domain.reject import Reject

REJECT_EXCERPT_BYTES: Final = 1024


def message_reject_line(
    topic_name: str, partition: int, offset: int, reject: Reject, payload: bytes | None
) -> str:
    """Return a rejected Kafka message as a line with its end."""
    place = {"topic": topic_name, "partition": partition, "offset": offset}
    return _line(place, reject, payload or b"")


def file_reject_line(file_name: str, line_number: int, reject: Reject, line: bytes) -> str:
    """Return a rejected line, or cell of a line, of a file as a line with its end."""
    return _line({"file": file_name, "line": line_number}, reject, line)


def rejects_file_name(role: str) -> str:
    """Return the name of the file that a role keeps its rejects in."""
    return f"rejects.{role}.jsonl"


def _line(place: dict[str, object], reject: Reject, raw: bytes) -> str:
    # Backslashes escape what is not UTF-8, JSON the rest: a terminal never sees a control
    # character.
    excerpt = raw[:REJECT_EXCERPT_BYTES].decode(errors="backslashreplace")
    fields = {"class": reject.reject_class, "reason": reject.reason, "excerpt": excerpt}
    return json.dumps({**place, **fields}) + "\n"

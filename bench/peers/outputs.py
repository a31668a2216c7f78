"""Rows and alerts of a contestant as they appear: in files, in its standard output, or in a topic.

What is new is taken at once with the instant; it is parsed later, in small portions, so that a
burst of rows delays neither the sender nor the next look.
"""

import datetime as dt
import json
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

from confluent_kafka import Consumer, TopicPartition

from fleetpulse.domain.metric import FAMILIES
from peers.process import ALERT
from peers.rows import PLACES, parse_row

# A folder of parts, Spark's, has hundreds of files; it is looked into less often.
_FOLDER_EVERY_S: Final = 0.02
_MOST_MESSAGES: Final = 10_000
_QUERY_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A row of a family and server that can be read since `at_s`; `is_alert` tells its verdict."""

    family: str
    server: str
    start_ms: int
    is_alert: bool
    at_s: float


class Output(Protocol):
    """Where rows appear."""

    def look(self) -> None:
        """Take what is new, with the present as its instant."""

    def take(self, most: int) -> list[Seen]:
        """Return the next rows that were taken and not returned yet, about `most` of them."""


class _Tail:
    """The lines that are added to a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._partial = b""

    def added(self) -> list[bytes]:
        """Return the lines that are new."""
        try:
            if self._path.stat().st_size == self._offset:
                return []
        except FileNotFoundError:
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            added = file.read()
        self._offset += len(added)
        *lines, self._partial = (self._partial + added).split(b"\n")
        return lines


class FileRows:
    """Rows in the files of both families below a folder."""

    def __init__(self, out: Path) -> None:
        """Begin with no row seen."""
        self._out = out
        self._tails = [
            (family.name, _Tail(out / place))
            for family in FAMILIES
            for place in PLACES[family]
            if "*" not in place
        ]
        self._parts: dict[Path, tuple[str, _Tail]] = {}
        self._next_folder_s = 0.0
        self._taken: deque[tuple[str, bytes, float]] = deque()

    def look(self) -> None:
        """Take what is new."""
        self._look_at(self._tails)
        if time.monotonic() < self._next_folder_s:
            return
        for family in FAMILIES:
            for place in PLACES[family]:
                for path in self._out.glob(place) if "*" in place else ():
                    self._parts.setdefault(path, (family.name, _Tail(path)))
        self._look_at(self._parts.values())
        self._next_folder_s = time.monotonic() + _FOLDER_EVERY_S

    def take(self, most: int) -> list[Seen]:
        """Return the next rows."""
        found = []
        for family, line, at_s in _next(self._taken, most):
            row = parse_row(line.decode())
            if row is not None:
                found.append(Seen(family, row[0], row[1], bool(row[4]), at_s))
        return found

    def _look_at(self, tails: Iterable[tuple[str, _Tail]]) -> None:
        for family, tail in tails:
            if lines := tail.added():
                now_s = time.time()
                self._taken.extend((family, line, now_s) for line in lines)


class AlertLines:
    """Alerts in the standard output of `fleetpulse monitor --json`."""

    def __init__(self, log_path: Path) -> None:
        """Begin at the start of the output."""
        self._tail = _Tail(log_path)
        self._taken: deque[tuple[bytes, float]] = deque()

    def look(self) -> None:
        """Take what is new."""
        if lines := self._tail.added():
            now_s = time.time()
            self._taken.extend((line, now_s) for line in lines)

    def take(self, most: int) -> list[Seen]:
        """Return the next alerts."""
        return [
            _of_object(json.loads(line), at_s)
            for line, at_s in _next(self._taken, most)
            if line.startswith(ALERT)
        ]


class TopicRows:
    """Rows in the windows topic, committed ones only."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        """Begin without a connection: the topic need not be there yet."""
        self._topic = topic
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"follower-{uuid.uuid4()}",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "topic.metadata.refresh.interval.ms": 500,
                "fetch.queue.backoff.ms": 10,
                "log_level": 0,
            }
        )
        self._consumer.assign([TopicPartition(topic, 0, 0)])
        self._taken: deque[tuple[bytes, float]] = deque()

    def look(self) -> None:
        """Take what is new."""
        if messages := self._consumer.consume(_MOST_MESSAGES, 0):
            now_s = time.time()
            self._taken.extend(
                (value, now_s)
                for message in messages
                if message.error() is None and (value := message.value()) is not None
            )

    def take(self, most: int) -> list[Seen]:
        """Return the next rows."""
        return [_of_object(json.loads(value), at_s) for value, at_s in _next(self._taken, most)]


def _next(taken: "deque[Any]", most: int) -> Iterator[Any]:
    for _ in range(min(most, len(taken))):
        yield taken.popleft()


def _of_object(found: dict[str, Any], at_s: float) -> Seen:
    start_ms = _instant_ms(found["start"])
    return Seen(found["family"], found["server_id"], start_ms, bool(found["alert"]), at_s)


@lru_cache(maxsize=1024)
def _instant_ms(text: str) -> int:
    return round(dt.datetime.fromisoformat(text).timestamp() * 1000)

"""Messages of a topic -> columns, by layout where they have one, by the codec where not."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final, Self

import numpy as np

from fleetpulse.codec.message import decode_message, encode_message
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.metric import Metric, Topic
from fleetpulse.domain.reject import Reject
from fleetpulse.domain.sample import Record
from fleetpulse.engine.layout import Cut, Delimiters, Layout
from fleetpulse.engine.server import Servers
from fleetpulse.engine.text import Flags, Floats, Ints, Texts

# Programs that write to one topic seldom differ in more than their spaces and key order.
_MOST_LAYOUTS: Final = 4
_QUOTE: Final = ord('"')


@dataclass(frozen=True, slots=True)
class Columns:
    """Values of one metric: of the message `rows` (rising), the server's number and the instant."""

    rows: Ints
    servers: Ints
    ts_ms: Ints
    values: Floats

    def taken(self, kept: Flags | slice) -> Self:
        """Return a part of the columns."""
        return type(self)(self.rows[kept], self.servers[kept], self.ts_ms[kept], self.values[kept])


@dataclass(frozen=True, slots=True)
class Read:
    """The columns in messages, the ids that are new among their servers, and what was rejected."""

    columns: Columns
    new_ids: Sequence[bytes]
    rejects: Sequence[tuple[int, Reject]]


@dataclass(slots=True)
class TopicIntake:
    """Reads the messages of one topic; knows the layouts that it has seen."""

    topic: Topic
    metric: Metric
    _layouts: list[Layout] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start with the layout of our own producer."""
        example = Record(self.topic, 0, "server", (0,) * len(self.topic.metrics))
        self._learn(encode_message(example))

    def read(self, payloads: Sequence[bytes | None], servers: Servers, times: TimeReader) -> Read:
        """Return what the messages hold. `times` is that of their partition."""
        try:
            texts = Texts.of(payloads)  # type: ignore[arg-type]  # None is seldom, and told below
        except TypeError:
            texts = Texts.of([payload or b"" for payload in payloads])
        left = np.arange(len(payloads))
        parts: list[Columns] = []
        new_ids: list[bytes] = []
        found: dict[int, Delimiters] = {}
        by_use: list[tuple[int, Layout]] = []
        for layout in self._layouts:
            if len(left) and layout.delimiters not in found:
                found[layout.delimiters] = Delimiters.of(texts, _QUOTE, layout.delimiters)
            cut = layout.cut(texts, found[layout.delimiters], left, times) if len(left) else None
            by_use.append((0 if cut is None else -len(cut.rows), layout))
            if cut is not None and len(cut.rows):
                part, new = self._columns(texts, cut, servers)
                parts.append(part)
                new_ids += new
                left = _without(left, part.rows, len(payloads))
        # The layout of most messages is tried first; the sort is stable.
        self._layouts = [layout for _, layout in sorted(by_use, key=itemgetter(0))]
        rejects: list[tuple[int, Reject]] = []
        if len(left) or not parts:
            part, new, rejects = self._decoded(payloads, left, servers, times)
            parts.append(part)
            new_ids += new
        return Read(_merged(parts), new_ids, rejects)

    def _columns(self, texts: Texts, cut: Cut, servers: Servers) -> tuple[Columns, list[bytes]]:
        numbers, new = servers.find(texts, cut.id_starts, cut.id_ends)
        columns = Columns(cut.rows, numbers, cut.ts_ms, cut.values[self.metric])
        is_id = numbers >= 0
        return columns if is_id.all() else columns.taken(is_id), new

    def _decoded(
        self, payloads: Sequence[bytes | None], left: Ints, servers: Servers, times: TimeReader
    ) -> tuple[Columns, list[bytes], list[tuple[int, Reject]]]:
        place = self.topic.metrics.index(self.metric)
        rows, rejects, ids = [], [], []
        ts_ms, values = [], []
        learnt = False
        for row in left.tolist():
            payload = payloads[row]
            found = decode_message(self.topic, payload, times)
            if isinstance(found, Reject):
                rejects.append((row, found))
                continue
            rows.append(row)
            ids.append(found.server_id.encode())
            ts_ms.append(found.ts_ms)
            values.append(found.values[place])
            if not learnt and payload is not None:
                learnt = self._learn(payload)
        texts = Texts.of(ids)
        numbers, new = servers.find(texts, texts.starts, texts.ends)
        columns = Columns(
            np.array(rows, np.int64),
            numbers,
            np.array(ts_ms, np.int64),
            np.array(values, np.float64),
        )
        return columns, new, rejects

    def _learn(self, payload: bytes) -> bool:
        """Remember the layout of a message that the codec accepted, in place of the oldest."""
        layout = Layout.of_message(self.topic, payload)
        if layout is None or layout in self._layouts:
            return False
        del self._layouts[_MOST_LAYOUTS - 1 :]
        self._layouts.append(layout)
        return True


def _without(rows: Ints, taken: Ints, count: int) -> Ints:
    if len(rows) == len(taken):
        return rows[:0]
    is_left = np.zeros(count, np.bool_)
    is_left[rows] = True
    is_left[taken] = False
    return np.flatnonzero(is_left)


def _merged(parts: Sequence[Columns]) -> Columns:
    """Return the columns of all parts in the order of their rows."""
    if len(parts) == 1:
        return parts[0]
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows)
    return Columns(
        rows[order],
        np.concatenate([part.servers for part in parts])[order],
        np.concatenate([part.ts_ms for part in parts])[order],
        np.concatenate([part.values for part in parts])[order],
    )

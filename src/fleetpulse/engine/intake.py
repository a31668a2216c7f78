"""Messages of a topic -> columns, by layout where they have one, by the codec where not."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final

import numpy as np

from fleetpulse.codec.message import decode_message, encode_message
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.metric import Metric, Topic
from fleetpulse.domain.reject import Reject
from fleetpulse.domain.sample import Record
from fleetpulse.engine.columns import Columns, Read, SingleValues, without
from fleetpulse.engine.layout import Delimiters, Layout
from fleetpulse.engine.server import Servers
from fleetpulse.engine.text import Ints, Texts

# Programs that write to one topic seldom differ in more than their spaces and key order.
_MOST_LAYOUTS: Final = 4
_QUOTE: Final = ord('"')


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
                numbers, new = servers.find(texts, cut.id_starts, cut.id_ends)
                parts.append(Columns.of_cut(cut, numbers, self.metric))
                new_ids += new
                left = without(left, parts[-1].rows, len(payloads))
        # The layout of most messages is tried first; the sort is stable.
        self._layouts = [layout for _, layout in sorted(by_use, key=itemgetter(0))]
        if not len(left) and parts:
            return Read(Columns.merged(parts), new_ids, [])
        slow = self._decoded(payloads, left, servers, times)
        columns = Columns.merged([*parts, slow.columns])
        return Read(columns, [*new_ids, *slow.new_ids], slow.rejects)

    def _decoded(
        self, payloads: Sequence[bytes | None], left: Ints, servers: Servers, times: TimeReader
    ) -> Read:
        place = self.topic.metrics.index(self.metric)
        found, rejects = SingleValues(), []
        has_learnt = False
        for row in left.tolist():
            payload = payloads[row]
            record = decode_message(self.topic, payload, times)
            if isinstance(record, Reject):
                rejects.append((row, record))
                continue
            found.add(row, record.server_id, record.ts_ms, record.values[place])
            if not has_learnt and payload is not None:
                has_learnt = self._learn(payload)
        columns, new_ids = found.columns(servers)
        return Read(columns, new_ids, rejects)

    def _learn(self, payload: bytes) -> bool:
        """Remember the layout of a message that the codec accepted, in place of the oldest."""
        layout = Layout.of_message(self.topic, payload)
        if layout is None or layout in self._layouts:
            return False
        del self._layouts[_MOST_LAYOUTS - 1 :]
        self._layouts.append(layout)
        return True

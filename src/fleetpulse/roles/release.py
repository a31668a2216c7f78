"""What came of the messages is released: committed as one, then told, then published.

The commit also holds what is told and published after it. A start after a kill tells and publishes
the last commit's again: the windows topic knows what it has, and an alert that may have been told
before says so.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from fleetpulse.codec.rejects import message_reject_line
from fleetpulse.codec.windows import TimeFormat, instant_text
from fleetpulse.config import Settings
from fleetpulse.domain.aggregate import WindowRow
from fleetpulse.domain.position import Position
from fleetpulse.domain.reject import RejectClass
from fleetpulse.edges.sink import Batch, Lines, Sink
from fleetpulse.engine import Windows, printed_lines, published
from fleetpulse.roles.live import Drained
from fleetpulse.roles.publish import Outbox, Publisher

_OUTBOX_NOTE: Final = "outbox"
_ALERTS_NOTE: Final = "alerts"
_SKEW_EVERY_S: Final = 60.0


class Told(Protocol):
    """Who is told what happens."""

    def reading(self, seconds: float) -> None:
        """Take note that the first message came, so long after the start."""

    def alerts(self, rows: Iterable[WindowRow], values: Sequence[bytes], *, is_again: bool) -> None:
        """Take windows with an alert: their rows, and the same as messages of the windows topic.

        `is_again` says that a run that was killed may have told them already.
        """

    def clock_ahead(self, server_id: str, ahead_s: float) -> None:
        """Take note of a server whose clock is ahead of ours, at most once a minute for each."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where windows go beside the alerts: to the CSV files, to their topic."""

    rejects_file: str
    is_csv: bool
    is_published: bool


@dataclass(slots=True)
class Release:
    """Counts windows by family, alerts by label, refused messages by class, all of this run."""

    settings: Settings
    sink: Sink
    publisher: Publisher
    told: Told
    outputs: Outputs
    windows: Counter[str] = field(default_factory=Counter)
    alerts: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    _outbox: Outbox = field(default_factory=Outbox)
    _instant: Callable[..., str] = field(init=False)
    _skew_told_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Choose how instants are printed: a file that goes on growing cannot rely on one day."""
        chosen = self.settings.time.output
        if chosen is TimeFormat.AUTO:
            chosen = TimeFormat.ISO
        self._instant = instant_text(chosen, 0)

    def resume(self, notes: Mapping[str, bytes], where: str) -> bool:
        """Tell and publish what an earlier run committed last, unless it ended in order.

        False where the stop was set meanwhile. Raises DamagedState, naming `where` the notes are
        from.
        """
        self._outbox = Outbox.unpacked(notes.get(_OUTBOX_NOTE, b"0"))
        left = Outbox.unpacked(notes.get(_ALERTS_NOTE, b"0"))
        if left.values:
            self.told.alerts((one.row for one in left.windows(where)), left.values, is_again=True)
        keys = [one.row.server_id.encode() for one in self._outbox.windows(where)]
        return self.publisher.publish(self._outbox.number, keys, self._outbox.values)

    def commit(
        self, positions: Sequence[Position], drained: Drained, notes: Mapping[str, bytes]
    ) -> bool:
        """Release what came up to these positions; False where the stop was set meanwhile.

        After False nothing more may be committed: the next start publishes what is left.
        """
        alerting = [part.alerting() for part in drained.windows if part.labels.any()]
        alerts = Outbox(0, [value for part in alerting for value in published(part)])
        keys = self._fill_outbox(drained.windows)
        classes = drained.classes()
        notes = {
            **notes,
            _ALERTS_NOTE: alerts.packed(),
            _OUTBOX_NOTE: self._outbox.packed(),
        }
        self.sink.commit(Batch(self._lines(drained), positions, classes, notes))
        rows = (row for part in alerting for row in part.rows())
        self.told.alerts(rows, alerts.values, is_again=False)
        self._tell_skew(drained)
        for part in drained.windows:
            self.windows[part.family.name] += len(part)
        for part in alerting:
            self.alerts.update(part.texts[label] for label in part.labels.tolist())
        self.refused += classes
        return self.publisher.publish(self._outbox.number, keys, self._outbox.values)

    def _fill_outbox(self, windows: Sequence[Windows]) -> list[bytes]:
        """Put windows into the outbox, in place of those before; return their keys."""
        keys: list[bytes] = []
        values: list[bytes] = []
        if self.outputs.is_published:
            for part in windows:
                keys += part.server_ids.tolist()
                values += published(part)
        self._outbox = Outbox(self._outbox.number + bool(values), values)
        return keys

    def _lines(self, drained: Drained) -> dict[str, Lines]:
        lines: dict[str, Lines] = {}
        if self.outputs.is_csv:
            parts: dict[str, list[Windows]] = {}
            for part in drained.windows:
                name = self.settings.windows_path(part.family).name
                parts.setdefault(name, []).append(part)
            zone = self.settings.time.tz
            for name, of_file in parts.items():
                data = b"".join(printed_lines(part, self._instant, zone) for part in of_file)
                lines[name] = Lines(data, sum(map(len, of_file)))
        if drained.refusals:
            text = "".join(
                message_reject_line(
                    one.partition.topic_name,
                    one.partition.number,
                    one.offset,
                    one.reject,
                    one.payload,
                )
                for one in drained.refusals
            )
            lines[self.outputs.rejects_file] = Lines(text.encode(), len(drained.refusals))
        return lines

    def _tell_skew(self, drained: Drained) -> None:
        now_s, now_ms = time.monotonic(), time.time() * 1000
        for one in drained.refusals:
            if one.reject.reject_class is not RejectClass.FUTURE or one.server_id is None:
                continue
            if now_s >= self._skew_told_s.get(one.server_id, now_s):
                self._skew_told_s[one.server_id] = now_s + _SKEW_EVERY_S
                self.told.clock_ahead(one.server_id, ((one.ts_ms or 0) - now_ms) / 1000)

"""What came of the messages is released: committed as one, then told, then published.

The commit also holds what is told and published after it. A start after a kill tells the last
commit's alerts again, which say so, and publishes what waits: the windows topic knows what it has.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from fleetpulse.codec.rejects import message_reject_line
from fleetpulse.codec.windows import TimeFormat, instant_text
from fleetpulse.config import Settings
from fleetpulse.domain.aggregate import WindowRow
from fleetpulse.domain.position import Position
from fleetpulse.domain.reject import RejectClass
from fleetpulse.edges.sink import Batch, Lines, Sink
from fleetpulse.engine import Windows, pack_windows, printed_lines, published, unpack_windows
from fleetpulse.roles.live import Drained
from fleetpulse.roles.publish import Publisher

if TYPE_CHECKING:
    from concurrent.futures import Future

# What may not have been told; the batch that may be published or not, and what comes after it.
_TOLD_NOTE: Final = "told"
_NUMBER_NOTE: Final = "batch.number"
_BATCH_NOTE: Final = "batch"
_WAITING_NOTE: Final = "waiting"
_MOST_WAITING: Final = 100_000
_SKEW_EVERY_S: Final = 60.0
_LATE_EVERY_S: Final = 60.0
_SERVERS_SHOWN: Final = 5


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
    say: Callable[[str], None]
    windows: Counter[str] = field(default_factory=Counter)
    alerts: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    _number: int = 0
    _batch: Sequence[Windows] = ()
    _waiting: Sequence[Windows] = ()
    _under_way: "Future[bool] | None" = None
    _instant: Callable[..., str] = field(init=False)
    _skew_told_s: dict[str, float] = field(default_factory=dict)
    _late: Counter[str] = field(default_factory=Counter)
    _late_said_s: float = -math.inf

    def __post_init__(self) -> None:
        """Choose how instants are printed: a file that goes on growing cannot rely on one day."""
        chosen = self.settings.time.output
        if chosen is TimeFormat.AUTO:
            chosen = TimeFormat.ISO
        self._instant = instant_text(chosen, 0)

    def resume(self, notes: Mapping[str, bytes], where: str) -> None:
        """Tell and publish what an earlier run left, unless it ended in order.

        Raises DamagedState, naming `where` the notes are from.
        """
        if _TOLD_NOTE not in notes:
            return
        self._tell(unpack_windows(notes[_TOLD_NOTE], where), is_again=True)
        self._number = int(notes[_NUMBER_NOTE])
        self._batch = unpack_windows(notes[_BATCH_NOTE], where)
        self._waiting = unpack_windows(notes[_WAITING_NOTE], where)
        if self._batch:
            self._under_way = self.publisher.start(self._number, self._batch)
        # What waited may have become a batch after that commit: nothing may join it any more.
        self.publish(is_to_wait=bool(self._waiting))

    def commit(
        self, positions: Sequence[Position], drained: Drained, notes: Mapping[str, bytes]
    ) -> None:
        """Commit what came up to these positions, then tell it.

        Windows that wait for their topic are committed with it until they are published.
        """
        alerting = [part.alerting() for part in drained.windows if part.labels.any()]
        if self.outputs.is_published:
            self._waiting = [*self._waiting, *drained.windows]
        classes = drained.classes()
        notes = {
            **notes,
            _TOLD_NOTE: pack_windows(alerting),
            _NUMBER_NOTE: str(self._number).encode(),
            _BATCH_NOTE: pack_windows(self._batch),
            _WAITING_NOTE: pack_windows(self._waiting),
        }
        self.sink.commit(Batch(self._lines(drained), positions, classes, notes))
        self._tell(alerting, is_again=False)
        self._tell_skew(drained)
        self._say_late(drained)
        for part in drained.windows:
            self.windows[part.family.name] += len(part)
        for part in alerting:
            self.alerts.update(part.texts[label] for label in part.labels.tolist())
        self.refused += classes

    def publish(self, *, is_to_wait: bool = False) -> bool:
        """Begin to publish what waits once the batch before is in the topic.

        Waits for that one if told to, or if too much waits. Returns False where the stop was set
        meanwhile: the next start goes on with the batch. Raises AlreadyRunning where another
        process publishes for the same stream.
        """
        if self._under_way is not None:
            is_full = sum(map(len, self._waiting)) >= _MOST_WAITING
            if not (is_to_wait or is_full or self._under_way.done()):
                return True
            if not self._under_way.result():
                return False
            # From its first attempt on a batch has its number for ever.
            self._number, self._batch, self._under_way = self._number + 1, [], None
        if self._waiting:
            self._batch, self._waiting = self._waiting, []
            self._under_way = self.publisher.start(self._number, self._batch)
        return True

    def publish_all(self) -> bool:
        """Publish all that waits and wait for it; False where the stop ended it before."""
        while self._waiting or self._under_way is not None:
            if not self.publish(is_to_wait=True):
                return False
        return True

    def _tell(self, alerting: Sequence[Windows], *, is_again: bool) -> None:
        if alerting:
            rows = (row for part in alerting for row in part.rows())
            values = [value for part in alerting for value in published(part)]
            self.told.alerts(rows, values, is_again=is_again)

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

    def _say_late(self, drained: Drained) -> None:
        """Say whose records came late, once a minute."""
        self._late.update(
            one.server_id
            for one in drained.refusals
            if one.reject.reject_class is RejectClass.LATE and one.server_id is not None
        )
        now_s = time.monotonic()
        if not self._late or now_s < self._late_said_s + _LATE_EVERY_S:
            return
        worst = sorted(self._late.items(), key=lambda one: (-one[1], one[0]))[:_SERVERS_SHOWN]
        shown = ", ".join(f"{server_id} {n:,}" for server_id, n in worst)
        rest = len(self._late) - len(worst)
        more = f" and {rest:,} more servers" if rest else ""
        self.say(
            f"{self._late.total():,} late records, which count in no window: {shown}{more}; see "
            f"{self.settings.output_dir / self.outputs.rejects_file}"
        )
        self._late, self._late_said_s = Counter(), now_s

"""The consumers' loop: from topics to files, a commit a second, through outages and stops."""

import time
from dataclasses import dataclass, field, replace
from typing import Final

from fleetpulse.codec.intake import Intake
from fleetpulse.codec.table import record_file_name
from fleetpulse.domain.position import Partition, Position
from fleetpulse.domain.share import Share
from fleetpulse.edges.kafka.fetched import Fetched
from fleetpulse.edges.sink import Batch, Lines
from fleetpulse.roles.locate import Locator

COMMIT_EVERY_S: Final = 1.0
COMMIT_EVERY_ROWS: Final = 50_000
# A reject line may be as long as sixty rows.
COMMIT_EVERY_REJECTS: Final = 1_000
_POLL_S: Final = 0.2
_END_CHECK_EVERY_S: Final = 1.0


@dataclass(slots=True)
class Transfer:
    """Moves messages from consumer to sink; `tripped` says that the reject limit was reached.

    After an error nothing is left half done: what was not committed is read again next time.
    """

    locator: Locator
    intake: Intake
    rejects_file: str
    share: Share | None = None
    tripped: str | None = None
    _positions: dict[Partition, Position] = field(default_factory=dict)

    def begin(self, timeout_s: float | None) -> bool:
        """Find where to read and begin there; False where the stop was set before.

        Raises what `Locator.locate` raises.
        """
        positions = self.locator.locate(timeout_s)
        if positions is None:
            return False
        self._positions = positions
        return True

    def run(self, until_idle_s: float | None) -> bool:
        """Read until `stop`, the reject limit, or all was read and nothing came for a while.

        Everything read is committed at the end. Returns True where the end was reached.
        """
        new_s = commit_s = time.monotonic()
        end_check_s = 0.0
        is_caught_up = False
        while not (self.locator.stop.is_set() or self.tripped or is_caught_up):
            self.locator.tell()
            if self.locator.consumer.must_survey:
                self._commit()
                if not self.begin(None):
                    break
            fetched = self.locator.consumer.poll(_POLL_S)
            now_s = time.monotonic()
            for one in fetched:
                new_s = now_s
                self._take(one)
            if self._is_full() or now_s - commit_s >= COMMIT_EVERY_S:
                self._commit()
                commit_s = now_s
            if until_idle_s is not None and now_s - new_s >= until_idle_s and now_s >= end_check_s:
                is_caught_up = self.locator.consumer.is_at_end()
                end_check_s = time.monotonic() + _END_CHECK_EVERY_S
        self._commit()
        return is_caught_up

    def _take(self, fetched: Fetched) -> None:
        # What follows the message that tripped the limit is left for the next start.
        if self.tripped:
            return
        before = self._positions[fetched.partition]
        taken = self.intake.read(fetched.partition, fetched.offsets, fetched.payloads, before.clock)
        after = fetched.position_after(taken.count, before)
        self._positions[fetched.partition] = replace(after, clock=taken.clock)
        self.tripped = taken.tripped

    def _is_full(self) -> bool:
        return (
            self.intake.row_count >= COMMIT_EVERY_ROWS
            or self.intake.reject_count >= COMMIT_EVERY_REJECTS
        )

    def _commit(self) -> None:
        committed = self.locator.sink.positions
        moved = [
            position
            for partition, position in self._positions.items()
            if position != committed[partition]
        ]
        if not moved:
            return
        drained = self.intake.drain()
        lines = {
            record_file_name(topic, self.share): Lines(b"".join(rows), len(rows))
            for topic, rows in drained.rows.items()
            if rows
        }
        if drained.reject_lines:
            rejects = drained.reject_lines
            lines[self.rejects_file] = Lines("".join(rejects).encode(), len(rejects))
        self.locator.sink.commit(Batch(lines, moved, drained.rejects))
        self.locator.consumer.show_lag(moved)

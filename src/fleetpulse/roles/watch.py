"""The loop of monitor: messages in, and a release as soon as windows close."""

import time
from dataclasses import dataclass, field
from typing import Final

from fleetpulse.domain.position import Partition, Position
from fleetpulse.edges.kafka.fetched import Fetched
from fleetpulse.roles.live import Drained, LiveWindows
from fleetpulse.roles.locate import Locator
from fleetpulse.roles.release import Release

_POLL_S: Final = 0.2
# A batch costs half a millisecond however small it is: the first message waits for company.
_GATHER_S: Final = 0.004
_ADVANCE_EVERY_S: Final = 0.5
# Who did not listen for this long, by the wall clock, cannot say who was silent.
_DEAF_MS: Final = 2_000
_END_CHECK_EVERY_S: Final = 0.2
# While a backlog is read, windows close all the time: their commits are spread.
_COMMIT_BACKLOG_EVERY_S: Final = 0.5
_COMMIT_REFUSALS_EVERY_S: Final = 1.0
_COMMIT_EVERY_S: Final = 5.0
_PUBLISH_AFTER_S: Final = 0.2
_PUBLISH_EVERY_S: Final = 1.0
_MOST_WINDOWS: Final = 20_000
_MOST_REFUSALS: Final = 1_000


@dataclass(slots=True)
class Watch:
    """Runs until the stop or the end. `started_s` is when the role began, by the steady clock."""

    locator: Locator
    live: LiveWindows
    release: Release
    started_s: float
    messages: int = 0
    _positions: dict[Partition, Position] = field(default_factory=dict)
    _commit_s: float = 0.0
    _publish_s: float = 0.0
    _is_untidy: bool = False

    def begin(self, timeout_s: float | None) -> bool:
        """Find where to read and begin there; False where the stop was set before.

        Raises what `Locator.locate` raises.
        """
        positions = self.locator.locate(timeout_s)
        if positions is None:
            return False
        self._positions = positions
        self.live.assign(positions, _now_ms())
        return True

    def run(self, until_idle_s: float | None) -> bool:
        """Read until the stop, the reject limit, or all was read and nothing came for a while.

        Everything read is released at the end. Returns True where the end was reached.
        """
        consumer = self.locator.consumer
        new_s = self._commit_s = time.monotonic()
        advance_s = end_check_s = 0.0
        listened_ms = _now_ms()
        is_caught_up = False
        while not (self._is_over() or is_caught_up):
            self.locator.tell()
            if consumer.must_survey:
                self._commit()
                if self._is_over() or not self.begin(None):
                    break
            fetched = consumer.poll(_POLL_S, _GATHER_S)
            now_s, now_ms = time.monotonic(), _now_ms()
            for one in fetched:
                new_s = now_s
                self._take(one, now_ms)
            is_deaf, listened_ms = now_ms - listened_ms >= _DEAF_MS, now_ms
            if now_s >= advance_s or is_deaf:
                advance_s = now_s + _ADVANCE_EVERY_S
                self.live.advance(now_ms, set(self._positions) if is_deaf else consumer.behind)
                consumer.pause(self.live.ahead())
            if self._is_due(now_s):
                self._commit()
            if self._is_publishing_due(now_s):
                self.release.publish()
                self._publish_s = now_s
                self._tidy()
            if until_idle_s is not None and now_s - new_s >= until_idle_s and now_s >= end_check_s:
                is_caught_up = consumer.is_at_end()
                end_check_s = time.monotonic() + _END_CHECK_EVERY_S
        if is_caught_up:
            self.live.finish()
        self._commit()
        is_published = self.release.publish_all()
        # Once more: an end in order leaves nothing to tell again.
        self._release(Drained())
        return is_caught_up and is_published

    def _is_over(self) -> bool:
        return self.locator.stop.is_set() or self.live.tripped is not None

    def _take(self, fetched: Fetched, now_ms: int) -> None:
        before = self._positions[fetched.partition]
        count = len(fetched.messages)
        self._positions[fetched.partition] = fetched.position_after(count, before)
        if not count:
            return
        if not self.messages:
            self.release.told.reading(time.monotonic() - self.started_s)
        self.messages += count
        self.live.take(fetched, now_ms)

    def _is_due(self, now_s: float) -> bool:
        waiting, age_s = self.live.waiting, now_s - self._commit_s
        if waiting.windows:
            return (
                not self.locator.consumer.has_more
                or age_s >= _COMMIT_BACKLOG_EVERY_S
                or waiting.window_count >= _MOST_WINDOWS
            )
        if waiting.refusals:
            return age_s >= _COMMIT_REFUSALS_EVERY_S or len(waiting.refusals) >= _MOST_REFUSALS
        return age_s >= _COMMIT_EVERY_S

    def _is_publishing_due(self, now_s: float) -> bool:
        # What closes next is not to be held up, so it waits for a quiet moment, but not for long.
        return (
            now_s - self._commit_s >= _PUBLISH_AFTER_S
            or now_s - self._publish_s >= _PUBLISH_EVERY_S
            or self.locator.consumer.has_more
        )

    def _tidy(self) -> None:
        if self._is_untidy:
            self.locator.sink.tidy()
            self._is_untidy = False

    def _commit(self) -> None:
        self._commit_s = time.monotonic()
        if self.live.waiting.windows or self._moved():
            self._release(self.live.drain())

    def _release(self, drained: Drained) -> None:
        moved = self._moved()
        self.release.commit(moved, drained, self.live.notes())
        self._is_untidy = True
        if moved:
            self.locator.consumer.show_lag(moved)

    def _moved(self) -> list[Position]:
        committed = self.locator.sink.positions
        return [one for where, one in self._positions.items() if one != committed[where]]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

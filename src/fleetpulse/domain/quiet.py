"""What to tell topics that are silent, where one watermark per topic holds back all windows.

Time on the wall is in seconds of any steady clock; event times are UTC milliseconds. The watermark
is the lowest of what the topics were told, by their records or by us, minus the lateness. A window
closes once the watermark reaches its end.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from fleetpulse.domain.closing import ClosedBy
from fleetpulse.domain.window import WindowSpec

NEVER: Final = -(2**62)


@dataclass(frozen=True, slots=True)
class Closing:
    """Windows that end within (after_ms, up_to_ms] close for the reason given."""

    after_ms: int
    up_to_ms: int
    closed_by: ClosedBy


@dataclass(frozen=True, slots=True)
class Notice:
    """Instants to tell topics as if a record of that time had come.

    `closing` says which windows that closes; None where silent topics only follow the others.
    """

    instants_ms: Mapping[str, int]
    closing: Closing | None = None


@dataclass(slots=True)
class QuietWatch:
    """Knows when each topic was last heard and what it was told.

    `latest_ms` holds the latest accepted instant of each topic, over all runs; `watermark_ms` the
    highest that the watermark was. A topic counts as heard at `began_s`.
    """

    topics: tuple[str, ...]
    spec: WindowSpec
    lateness_ms: int
    began_s: float
    latest_ms: dict[str, int] = field(default_factory=dict)
    watermark_ms: int = 0
    _told_ms: dict[str, int] = field(default_factory=dict)
    _heard_s: dict[str, float] = field(default_factory=dict)

    def hear(self, topic: str, latest_ms: int, now_s: float) -> None:
        """Note that records of a topic came, the latest of them of that instant."""
        self.latest_ms[topic] = max(latest_ms, self.latest_ms.get(topic, NEVER))
        self._heard_s[topic] = now_s
        self._tell(topic, latest_ms)

    def silent(self, now_s: float, after_s: float) -> list[str]:
        """Return the topics that were not heard for `after_s`."""
        return [
            topic
            for topic in self.topics
            if now_s - self._heard_s.get(topic, self.began_s) >= after_s
        ]

    def wait_over(self, now_s: float, idle_close_s: float) -> Notice | None:
        """Return what silent topics are to be told now, None where nothing would close.

        While all are silent every window closes; a silent topic alone follows the others.
        """
        silent = self.silent(now_s, idle_close_s)
        if len(silent) == len(self.topics):
            return self.close_all(ClosedBy.IDLE)
        active = [self._told_ms.get(topic, NEVER) for topic in self.topics if topic not in silent]
        level_ms = min(active)
        behind = [topic for topic in silent if self._told_ms.get(topic, NEVER) < level_ms]
        # Only the end of a window is worth a notice.
        if not behind or self.spec.pane_start(level_ms - self.lateness_ms) <= self.watermark_ms:
            return None
        for topic in behind:
            self._tell(topic, level_ms)
        return Notice(dict.fromkeys(behind, level_ms))

    def close_all(self, closed_by: ClosedBy) -> Notice | None:
        """Return what closes every window that holds a sample, None where none is open."""
        up_to_ms = self.last_end_ms()
        if up_to_ms <= self.watermark_ms:
            return None
        closing = Closing(self.watermark_ms, up_to_ms, closed_by)
        instant_ms = up_to_ms + self.lateness_ms
        for topic in self.topics:
            self._tell(topic, instant_ms)
        return Notice(dict.fromkeys(self.topics, instant_ms), closing)

    def last_end_ms(self) -> int:
        """Return the end of the last window that holds a sample; 0 before the first sample."""
        if not self.latest_ms:
            return 0
        return self.spec.pane_start(max(self.latest_ms.values())) + self.spec.size_ms

    def _tell(self, topic: str, instant_ms: int) -> None:
        self._told_ms[topic] = max(instant_ms, self._told_ms.get(topic, NEVER))
        lowest_ms = min(self._told_ms.get(one, NEVER) for one in self.topics)
        self.watermark_ms = max(self.watermark_ms, lowest_ms - self.lateness_ms)

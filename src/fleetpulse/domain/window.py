"""Windows and panes on the time axis. Instants are UTC milliseconds; every interval is half-open.

size 30 s, slide 10 s, origin 0:

    pane      [0,10) [10,20) [20,30) [30,40)
    windows   [0 ............ 30)
                     [10 ............ 40)
    an event at 25 is in the windows from 20, 10 and 0; one at 30 in those from 30, 20 and 10.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """Where windows lie: starts at `origin_ms + k * slide_ms`, negative k included; `size_ms` long.

    `size_ms` is a whole multiple of `slide_ms`; `0 <= origin_ms < slide_ms`. With
    `is_leading_dropped`, windows that start before the pane of a server's first sample are no rows:
    they could only hold part of their span. Raises ValueError where the numbers do not fit.
    """

    size_ms: int = 30_000
    slide_ms: int = 10_000
    origin_ms: int = 0
    is_leading_dropped: bool = True

    def __post_init__(self) -> None:
        """Check that windows are made of whole panes."""
        if self.slide_ms <= 0 or self.size_ms < self.slide_ms or self.size_ms % self.slide_ms:
            raise ValueError("a window is a whole number of slides long")
        if not 0 <= self.origin_ms < self.slide_ms:
            raise ValueError("an origin lies within the first slide")

    def pane_start(self, event_ms: int) -> int:
        """Return the start of the pane [start, start + slide) that contains the event.

        >>> WindowSpec().pane_start(25_000)
        20000
        """
        return event_ms - (event_ms - self.origin_ms) % self.slide_ms

    def starts_covering(self, event_ms: int) -> range:
        """Return the starts of the windows [start, start + size) that hold the event, newest first.

        Source: the same grid as Spark's `window(startTime=origin)`.

        >>> list(WindowSpec(origin_ms=0).starts_covering(25_000))
        [20000, 10000, 0]
        """
        newest = self.pane_start(event_ms)
        return range(newest, newest - self.size_ms, -self.slide_ms)

    def span_ms(self, first_ms: int, last_ms: int) -> int:
        """Return the time from the first row's start to the last row's end.

        `first_ms` and `last_ms` are the earliest and latest sample of all servers: whichever server
        has the earliest, its first row starts there.

        >>> WindowSpec().span_ms(25_000, 25_000), WindowSpec(is_leading_dropped=False).span_ms(0, 0)
        (30000, 50000)
        """
        first_start = self.pane_start(first_ms)
        if not self.is_leading_dropped:
            first_start -= self.size_ms - self.slide_ms
        return self.pane_start(last_ms) + self.size_ms - first_start

    def origin_of_first_event(self, first_ms: int) -> int:
        """Return the origin that puts a window's start on the whole second of the first event."""
        return first_ms // 1000 * 1000 % self.slide_ms

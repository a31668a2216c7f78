"""Size 30 s, slide 10 s, lateness 5 s; instants are seconds from an arbitrary grid point."""

from fleetpulse.domain.closing import ClosedBy
from fleetpulse.domain.quiet import Closing, Notice, QuietWatch
from fleetpulse.domain.window import WindowSpec

LATENESS_MS = 5_000
IDLE_S = 15.0
# Far from 1970, where nothing is below the first watermark.
T = 1_759_697_580_000


def watch(*topics: str, latest_ms: dict[str, int] | None = None) -> QuietWatch:
    return QuietWatch(topics, WindowSpec(30_000, 10_000), LATENESS_MS, 100.0, latest_ms or {})


def at(seconds: int) -> int:
    return T + seconds * 1000


def test_nothing_is_told_before_a_topic_is_silent_long_enough() -> None:
    quiet = watch("cpu", "mem")
    quiet.hear("cpu", at(0), 100.0)
    quiet.hear("mem", at(0), 100.0)
    assert quiet.wait_over(114.9, IDLE_S) is None


def test_a_topic_counts_as_heard_when_the_watch_begins() -> None:
    quiet = watch("cpu", "mem")
    assert quiet.silent(114.9, IDLE_S) == []
    assert quiet.silent(115.0, IDLE_S) == ["cpu", "mem"]


def test_when_all_are_silent_every_window_with_a_sample_closes() -> None:
    # The last sample lies in the pane [20, 30): the last window is [20, 50).
    quiet = watch("cpu", "mem")
    quiet.hear("cpu", at(0), 100.0)
    quiet.hear("mem", at(25), 100.0)
    found = quiet.wait_over(115.0, IDLE_S)
    told_ms = at(50) + LATENESS_MS
    closing = Closing(at(0) - LATENESS_MS, at(50), ClosedBy.IDLE)
    assert found == Notice({"cpu": told_ms, "mem": told_ms}, closing)
    assert quiet.watermark_ms == at(50)


def test_all_windows_close_once() -> None:
    quiet = watch("cpu")
    quiet.hear("cpu", at(0), 100.0)
    assert quiet.close_all(ClosedBy.END) is not None
    assert quiet.close_all(ClosedBy.END) is None


def test_nothing_closes_before_the_first_sample() -> None:
    quiet = watch("cpu", "mem")
    assert quiet.last_end_ms() == 0
    assert quiet.wait_over(1000.0, IDLE_S) is None


def test_a_silent_topic_follows_the_lowest_of_the_others() -> None:
    quiet = watch("cpu", "mem", "net")
    quiet.hear("cpu", at(100), 120.0)
    quiet.hear("mem", at(60), 120.0)
    assert quiet.wait_over(120.0, IDLE_S) == Notice({"net": at(60)})
    assert quiet.watermark_ms == at(60) - LATENESS_MS


def test_a_notice_waits_until_it_closes_a_window() -> None:
    # Watermark 55 closed [20, 50); at 59 s it would be 54, 55 .. 59: no end of a window in between.
    quiet = watch("cpu", "net")
    quiet.hear("cpu", at(60), 120.0)
    assert quiet.wait_over(120.0, IDLE_S) == Notice({"net": at(60)})
    quiet.hear("cpu", at(64), 121.0)
    assert quiet.wait_over(121.0, IDLE_S) is None
    quiet.hear("cpu", at(65), 122.0)
    assert quiet.wait_over(122.0, IDLE_S) == Notice({"net": at(65)})


def test_a_silent_topic_that_is_ahead_is_told_nothing() -> None:
    quiet = watch("cpu", "net")
    quiet.hear("net", at(100), 100.0)
    quiet.hear("cpu", at(60), 120.0)
    assert quiet.wait_over(120.0, IDLE_S) is None


def test_a_topic_that_speaks_again_is_not_silent() -> None:
    quiet = watch("cpu", "net")
    quiet.hear("cpu", at(60), 120.0)
    quiet.hear("net", at(0), 120.0)
    assert quiet.wait_over(120.0, IDLE_S) is None


def test_a_start_closes_what_the_last_run_left_open() -> None:
    quiet = watch("cpu", "mem", latest_ms={"cpu": at(5), "mem": at(0)})
    found = quiet.close_all(ClosedBy.END)
    assert found is not None
    assert found.closing == Closing(0, at(30), ClosedBy.END)

"""Windows on the time axis, in seconds; `x` is an event.

size 30, slide 10, origin 0
-20  -10   0    10   20   30   40   50   60
 [---------W0--------)
      [---------W1--------)
           [---------W2--------)
                [---------W3--------)
"""

import pytest

from fleetpulse.domain.window import WindowSpec

SPEC = WindowSpec()


def starts_s(spec: WindowSpec, event_ms: int) -> list[float]:
    return [start / 1000 for start in spec.starts_covering(event_ms)]


def test_defaults_are_thirty_seconds_every_ten_from_the_epoch() -> None:
    assert WindowSpec(30_000, 10_000, 0, is_leading_dropped=True) == SPEC


def test_an_event_lies_in_one_window_a_slide() -> None:
    #  0    10   20   30   40   50
    #  [------------x-)
    #       [-------x------)
    #            [--x-----------)
    assert starts_s(SPEC, 25_000) == [20, 10, 0]


def test_event_on_a_start_belongs_to_the_window_that_starts() -> None:
    #  0    10   20   30   40   50
    #            x
    #  [--------------)
    #       [--------------)
    #            [--------------)
    assert starts_s(SPEC, 20_000) == [20, 10, 0]


def test_event_on_the_end_belongs_to_the_next_window() -> None:
    #  0    10   20   30   40   50   60
    #                 x
    #  [--------------)                  not this one
    #       [--------------)
    #            [--------------)
    #                 [--------------)
    assert starts_s(SPEC, 30_000) == [30, 20, 10]


def test_last_millisecond_before_the_end_still_belongs() -> None:
    assert starts_s(SPEC, 29_999) == [20, 10, 0]


def test_first_events_lie_in_windows_before_the_epoch() -> None:
    # -20  -10   0    10   20   30
    #            x
    #  [--------------)
    #       [--------------)
    #            [--------------)
    assert starts_s(SPEC, 0) == [0, -10, -20]


def test_event_before_the_epoch_has_windows_too() -> None:
    # -30  -20  -10   0    10   20
    #               x
    #  [--------------)
    #       [--------------)
    #            [--------------)
    assert starts_s(SPEC, -1) == [-10, -20, -30]


def test_origin_moves_the_whole_grid() -> None:
    #  5    15   25   35   45   55
    #  [--------------)
    #       [--------------)
    #            [--------------)
    #            x
    spec = WindowSpec(origin_ms=5000)
    assert starts_s(spec, 25_000) == [25, 15, 5]
    assert starts_s(spec, 24_999) == [15, 5, -5]


def test_origin_reaches_up_to_the_slide() -> None:
    assert starts_s(WindowSpec(origin_ms=9999), 9998) == [-0.001, -10.001, -20.001]


def test_tumbling_windows_hold_each_event_once() -> None:
    #  0    10   20
    #  [----)
    #       [----)
    spec = WindowSpec(size_ms=10_000, slide_ms=10_000)
    assert starts_s(spec, 9999) == [0]
    assert starts_s(spec, 10_000) == [10]


@pytest.mark.parametrize(
    ("event_ms", "pane_ms"), [(0, 5000 - 10_000), (4999, -5000), (5000, 5000), (14_999, 5000)]
)
def test_a_pane_is_one_slide_from_the_origin(event_ms: int, pane_ms: int) -> None:
    #  -5   0    5    10   15
    #  [---------)[---------)
    assert WindowSpec(origin_ms=5000).pane_start(event_ms) == pane_ms


@pytest.mark.parametrize(
    ("size_ms", "slide_ms"),
    [(30_000, 0), (30_000, -10_000), (0, 10_000), (10_000, 30_000), (30_000, 20_000), (-30, -10)],
)
def test_a_window_of_broken_panes_is_refused(size_ms: int, slide_ms: int) -> None:
    with pytest.raises(ValueError, match="whole number of slides"):
        WindowSpec(size_ms=size_ms, slide_ms=slide_ms)


@pytest.mark.parametrize("origin_ms", [-1, 10_000, 10_001])
def test_an_origin_outside_the_first_slide_is_refused(origin_ms: int) -> None:
    with pytest.raises(ValueError, match="within the first slide"):
        WindowSpec(origin_ms=origin_ms)


@pytest.mark.parametrize(
    ("first_ms", "origin_ms"), [(0, 0), (7999, 7000), (12_345, 2000), (20_000, 0), (29_999, 9000)]
)
def test_origin_of_the_first_event_is_its_whole_second(first_ms: int, origin_ms: int) -> None:
    origin = SPEC.origin_of_first_event(first_ms)
    assert origin == origin_ms
    assert WindowSpec(origin_ms=origin).pane_start(first_ms) == first_ms // 1000 * 1000


def test_rows_span_from_the_first_pane_to_the_end_of_the_last_window() -> None:
    # first sample 25 s: rows from 20 s on; last sample 40 s: its newest window ends at 70 s
    assert WindowSpec().span_ms(25_000, 40_000) == 50_000


def test_kept_leading_windows_belong_to_the_span() -> None:
    # the first sample's windows start at 20, 10 and 0 s
    assert WindowSpec(is_leading_dropped=False).span_ms(25_000, 40_000) == 70_000

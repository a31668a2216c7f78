from hypothesis import example, given
from hypothesis import strategies as st

from fleetpulse.domain.window import WindowSpec

instants = st.integers(-(10**13), 253_402_300_799_999)


@st.composite
def specs(draw: st.DrawFn) -> WindowSpec:
    slide_ms = draw(st.integers(1, 100_000))
    panes = draw(st.integers(1, 12))
    origin_ms = draw(st.integers(0, slide_ms - 1))
    return WindowSpec(slide_ms * panes, slide_ms, origin_ms)


@given(specs(), instants)
@example(WindowSpec(), 30_000)
@example(WindowSpec(), 29_999)
@example(WindowSpec(), -1)
def test_an_event_lies_in_size_over_slide_windows_half_open(
    spec: WindowSpec, event_ms: int
) -> None:
    starts = spec.starts_covering(event_ms)
    assert len(starts) == spec.size_ms // spec.slide_ms
    assert all(start <= event_ms < start + spec.size_ms for start in starts)
    assert all((start - spec.origin_ms) % spec.slide_ms == 0 for start in starts)
    assert list(starts) == sorted(set(starts), reverse=True)


@given(specs(), st.integers(-5000, 5000))
def test_windows_are_those_of_a_search_through_all(spec: WindowSpec, event_ms: int) -> None:
    reach = 5000 // spec.slide_ms + spec.size_ms // spec.slide_ms + 2
    grid = (spec.origin_ms + k * spec.slide_ms for k in range(-reach, reach + 1))
    found = [start for start in grid if start <= event_ms < start + spec.size_ms]
    assert list(reversed(spec.starts_covering(event_ms))) == found


@given(specs(), instants)
def test_a_pane_holds_its_event_and_starts_the_newest_window(
    spec: WindowSpec, event_ms: int
) -> None:
    pane_ms = spec.pane_start(event_ms)
    assert pane_ms <= event_ms < pane_ms + spec.slide_ms
    assert pane_ms == spec.starts_covering(event_ms)[0]
    assert spec.pane_start(pane_ms) == pane_ms


@given(specs(), instants, st.integers(-1000, 1000))
def test_the_grid_repeats_every_slide(spec: WindowSpec, event_ms: int, slides: int) -> None:
    moved_ms = slides * spec.slide_ms
    moved = [start + moved_ms for start in spec.starts_covering(event_ms)]
    assert list(spec.starts_covering(event_ms + moved_ms)) == moved


@given(specs(), st.integers(0, 253_402_300_799_999))
def test_the_first_event_puts_a_start_on_its_whole_second(spec: WindowSpec, first_ms: int) -> None:
    origin_ms = spec.origin_of_first_event(first_ms)
    moved = WindowSpec(spec.size_ms, spec.slide_ms, origin_ms)
    assert first_ms // 1000 * 1000 in moved.starts_covering(first_ms // 1000 * 1000)

"""Durations as people type them, and foreign texts as people see them."""

import pytest

from fleetpulse.domain.text import duration_s, one_line


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("1.5m", 90), ("2h", 7200), ("1d", 86_400), (" 7 ", 7)],
)
def test_duration_has_a_number_and_a_unit_seconds_by_default(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1w", "1 s", "nan", "1e3", "\u0661s"])
def test_other_text_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="wanted one such as"):
        duration_s(text)


@pytest.mark.parametrize(
    ("text", "shown"), [("a b é", "a b é"), ("a\nb\x1b[2J", r"a\nb\x1b[2J"), ("\u202e", r"\u202e")]
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert one_line(text) == shown

import pytest

from fleetpulse.domain.text import duration_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("5m", 300),
        ("1.5h", 5400),
        ("1d", 86_400),
        ("45", 45),
        (" 0.125 ", 0.125),
        ("0", 0),
    ],
)
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "+1s", "1 s", "1w", "1S", "1e3", "nan", "1.s", "1.2345", "\u0665s"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration, wanted one such as"):
        duration_s(text)

"""Short texts that people type for quantities, and foreign texts that they are shown."""

import re
from typing import Final

_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d)?", re.ASCII)
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, None: 1.0}


def duration_s(text: str) -> float:
    """Return the seconds in `500ms`, `30s`, `5m`, `2h`, `1d` or a plain number of seconds.

    Raises ValueError for anything else.

    >>> duration_s("1.5m")
    90.0
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:20]!r} is no duration, wanted one such as 500ms, 30s, 5m or 2h")
    return float(match[1]) * _SECONDS[match[2]]


def one_line(text: str) -> str:
    r"""Return a text with everything escaped that a terminal would obey, line ends included.

    >>> one_line("a\nb")
    'a\\nb'
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )

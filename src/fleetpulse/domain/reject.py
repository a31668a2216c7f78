"""Bad input has a class and a reason; it goes to the rejects and never vanishes."""

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class RejectClass(StrEnum):
    """Why an input is not a valid sample; LATE and FUTURE are about the time at which it came."""

    OVERSIZED = "oversized"
    MALFORMED = "malformed"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    NOT_FINITE = "not_finite"
    OUT_OF_RANGE = "out_of_range"
    BAD_SERVER_ID = "bad_server_id"
    BAD_TIME = "bad_time"
    LATE = "late"
    FUTURE = "future"


@dataclass(frozen=True, slots=True)
class Reject:
    """The verdict on one bad input: its class and a reason that names what was found and wanted."""

    reject_class: RejectClass
    reason: str


# Over how many of the last inputs the ratio is taken.
RATIO_WINDOW: Final = 1000


@dataclass(slots=True)
class RejectLimit:
    """Tells when so much input is bad that something upstream is broken and the role should pause.

    `max_ratio` is a share of the last 1000 inputs, `max_in_a_row` a count; reaching the count or
    exceeding the ratio trips the limit. The ratio is judged once 1000 inputs have been seen.
    """

    max_ratio: float
    max_in_a_row: int
    _recent: deque[bool] = field(default_factory=lambda: deque(maxlen=RATIO_WINDOW))
    _rejected: int = 0
    _in_a_row: int = 0

    def note(self, *, is_reject: bool) -> None:
        """Count one input."""
        if len(self._recent) == RATIO_WINDOW:
            self._rejected -= self._recent[0]
        self._recent.append(is_reject)
        self._rejected += is_reject
        self._in_a_row = self._in_a_row + 1 if is_reject else 0

    def note_valid(self, count: int) -> None:
        """Count so many inputs in a row that are valid."""
        if count >= RATIO_WINDOW:
            # Nothing looks further back than this.
            self._recent = deque([False] * RATIO_WINDOW, RATIO_WINDOW)
            self._rejected = self._in_a_row = 0
            return
        for _ in range(count):
            self.note(is_reject=False)

    def tripped(self) -> str | None:
        """Return what is wrong in a few words, or None while the input is good enough."""
        if self._in_a_row >= self.max_in_a_row:
            return f"{self._in_a_row} rejects in a row"
        if len(self._recent) == RATIO_WINDOW and self._rejected > self.max_ratio * RATIO_WINDOW:
            return f"{self._rejected} rejects among the last {RATIO_WINDOW} messages"
        return None

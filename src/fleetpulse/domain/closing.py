"""What a live engine knows of a window at the moment when it closes."""

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from fleetpulse.domain.aggregate import WindowRow


class ClosedBy(StrEnum):
    """Why a window is closed.

    Event time passed its end (WATERMARK), no record came for so long that the wall clock closed it
    (IDLE), or the input ended (END).
    """

    WATERMARK = "watermark"
    IDLE = "idle"
    END = "end"


@dataclass(frozen=True, slots=True)
class ClosedWindow:
    """A window's row, and what it was made of; all pairs follow the metrics of the family.

    `exact` is the mean or maximum before it was rounded, in the metric's unit, None without a
    sample. `samples` counts the samples, `samples_over` those that alone meet the threshold that
    held for the server when they came.
    """

    row: WindowRow
    exact: tuple[Fraction | None, Fraction | None]
    samples: tuple[int, int]
    samples_over: tuple[int, int]
    closed_by: ClosedBy

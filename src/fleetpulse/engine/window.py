"""Closed windows as columns, and as rows for those who want them one by one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from fleetpulse.domain.aggregate import Arithmetic, WindowRow
from fleetpulse.domain.closing import ClosedBy, ClosedWindow
from fleetpulse.domain.metric import Family
from fleetpulse.engine.text import Flags, Ints
from fleetpulse.engine.units import exact_number

NOT_REPORTED: Final = -1


@dataclass(frozen=True, slots=True)
class Windows:
    """Closed windows of a family, ordered by end and then by the bytes of the server id.

    `hundredths` are NOT_REPORTED where a metric has no sample; `labels` are places in `texts`,
    whose first is "". `totals` are the exact sums or maxima, limb by limb (units.py). Pairs follow
    the metrics of the family.
    """

    family: Family
    arithmetic: Arithmetic
    size_ms: int
    closed_by: ClosedBy
    texts: Sequence[str]
    server_ids: NDArray[np.bytes_]
    starts_ms: Ints
    samples: tuple[Ints, Ints]
    samples_over: tuple[Ints, Ints]
    totals: tuple[tuple[Ints, ...], tuple[Ints, ...]]
    hundredths: tuple[Ints, Ints]
    labels: Ints

    def __len__(self) -> int:
        """Return how many windows there are."""
        return len(self.starts_ms)

    def alerting(self) -> Self:
        """Return those that have an alert."""
        return self.taken(self.labels > 0)

    def taken(self, kept: Flags | Ints | slice) -> Self:
        """Return a part of the windows."""
        totals = [tuple(limb[kept] for limb in limbs) for limbs in self.totals]
        return replace(
            self,
            server_ids=self.server_ids[kept],
            starts_ms=self.starts_ms[kept],
            samples=(self.samples[0][kept], self.samples[1][kept]),
            samples_over=(self.samples_over[0][kept], self.samples_over[1][kept]),
            totals=(totals[0], totals[1]),
            hundredths=(self.hundredths[0][kept], self.hundredths[1][kept]),
            labels=self.labels[kept],
        )

    def rows(self) -> Iterator[WindowRow]:
        """Yield the rows, in order."""
        columns = (self.server_ids, self.starts_ms, *self.hundredths, self.labels)
        for server, start_ms, first, second, label in zip(
            *(column.tolist() for column in columns), strict=True
        ):
            yield WindowRow(
                self.family,
                server.decode("ascii"),
                start_ms,
                start_ms + self.size_ms,
                (None if first < 0 else first, None if second < 0 else second),
                self.texts[label],
            )

    def closed(self) -> Iterator[ClosedWindow]:
        """Yield the windows with what they were made of, in order."""
        exact = zip(self.exact(0), self.exact(1), strict=True)
        samples = zip(*(column.tolist() for column in self.samples), strict=True)
        over = zip(*(column.tolist() for column in self.samples_over), strict=True)
        for parts in zip(self.rows(), exact, samples, over, strict=True):
            yield ClosedWindow(*parts, self.closed_by)

    def exact(self, side: int) -> list[Fraction | None]:
        """Return the mean or maximum of each window before rounding, None without a sample."""
        of = self.family.metrics[side].statistic
        totals = zip(*(limb.tolist() for limb in self.totals[side]), strict=True)
        return [
            exact_number(limbs, count, of, self.arithmetic) if count else None
            for limbs, count in zip(totals, self.samples[side].tolist(), strict=True)
        ]

"""Panes: what came of one server and metric in one slide of time.

A pane is a row of each array, a server a column. Rows are given to panes that hold data and taken
back when the last window over them has closed; so the arrays grow with the open panes and the
servers, not with the past.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleetpulse.domain.aggregate import Arithmetic
from fleetpulse.domain.metric import Metric, Statistic
from fleetpulse.engine.text import Flags, Ints
from fleetpulse.engine.units import Encoded, limb_count

Counts = NDArray[np.int32]
_FIRST_SERVERS: Final = 64
_FIRST_PANES: Final = 8
# Panes of a batch that lie this close together are told apart by a table, others by sorting.
_NEAR_PANES: Final = 4096


@dataclass(slots=True)
class Side:
    """Everything open of one metric; each array is (panes, servers)."""

    metric: Metric
    counts: Counts
    over: Counts
    limbs: list[Ints]

    def add(self, cells: Ints, encoded: Encoded, is_over: Flags) -> None:
        """Add values to the cells, which are row * columns + column."""
        ones = np.ones(len(cells), np.int32)
        np.add.at(self.counts.reshape(-1), cells, ones)
        over = cells[is_over]
        if len(over):
            np.add.at(self.over.reshape(-1), over, ones[: len(over)])
        gather = np.add if self.metric.statistic is Statistic.MEAN else np.maximum
        for total, values in zip(self.limbs, encoded.limbs, strict=True):
            gather.at(total.reshape(-1), cells, values)

    def arrays(self) -> Iterator[Counts | Ints]:
        """Yield every array."""
        yield self.counts
        yield self.over
        yield from self.limbs


@dataclass(slots=True)
class Panes:
    """The open panes of a family; row 0 belongs to no pane and stays empty."""

    metrics: tuple[Metric, Metric]
    arithmetic: Arithmetic
    sides: tuple[Side, Side] = field(init=False)
    servers: int = _FIRST_SERVERS
    _row_of: dict[int, int] = field(default_factory=dict)
    _free: list[int] = field(default_factory=lambda: list(range(1, _FIRST_PANES)))

    def __post_init__(self) -> None:
        """Make empty arrays."""
        first, second = (self._side(metric) for metric in self.metrics)
        self.sides = (first, second)

    @property
    def open(self) -> Iterable[int]:
        """The numbers of the panes that may hold data."""
        return self._row_of

    @property
    def size_bytes(self) -> int:
        """The memory that the arrays take."""
        return sum(array.nbytes for side in self.sides for array in side.arrays())

    def bytes_of(self, servers: int) -> int:
        """Return the memory that the open panes of so many servers need."""
        row_bytes = sum(array.itemsize for side in self.sides for array in side.arrays())
        return len(self._row_of) * servers * row_bytes

    def cells(self, panes: Ints, servers: Ints) -> Ints:
        """Return the cell of each pane and server, opening panes that are not."""
        lowest, highest = int(panes.min()), int(panes.max())
        if lowest == highest:
            return self._open_row(lowest) * self.servers + servers
        if highest - lowest < _NEAR_PANES:
            seen = np.zeros(highest - lowest + 1, np.int64)
            which = panes - lowest
            seen[which] = 1
            distinct = np.flatnonzero(seen)
            seen[distinct] = [self._open_row(number) for number in (distinct + lowest).tolist()]
            rows = seen[which]
        else:
            distinct, which = np.unique(panes, return_inverse=True)
            rows = np.array([self._open_row(number) for number in distinct.tolist()])[which]
        return rows * self.servers + servers

    def rows_of(self, panes: Ints) -> Ints:
        """Return the row of each pane, 0 for one that is not open."""
        rows = [self._row_of.get(number, 0) for number in panes.ravel().tolist()]
        return np.array(rows, np.int64).reshape(panes.shape)

    def close(self, panes: Sequence[int]) -> None:
        """Empty these panes and take their rows back."""
        rows = [self._row_of.pop(number) for number in panes]
        for side in self.sides:
            for array in side.arrays():
                array[rows] = 0
        self._free.extend(rows)

    def grow_servers(self, servers: int) -> None:
        """Make room for that many servers."""
        if servers > self.servers:
            more = max(servers, 2 * self.servers) - self.servers
            self.servers += more
            self._pad((0, 0), (0, more))

    def keep_servers(self, kept: Ints) -> None:
        """Keep only the columns of these servers, in their order."""
        for side in self.sides:
            for array in side.arrays():
                array[:, : len(kept)] = array[:, kept]
                array[:, len(kept) :] = 0

    def are_active(self, servers: int) -> Flags:
        """Tell which of the first `servers` have data in an open pane."""
        found = np.zeros(servers, np.bool_)
        for side in self.sides:
            found |= (side.counts[:, :servers] > 0).any(axis=0)
        return found

    def _open_row(self, number: int) -> int:
        row = self._row_of.get(number)
        if row is None:
            if not self._free:
                rows = len(self.sides[0].counts)
                self._pad((0, rows), (0, 0))
                self._free.extend(range(rows, 2 * rows))
            row = self._row_of[number] = self._free.pop()
        return row

    def _pad(self, rows: tuple[int, int], columns: tuple[int, int]) -> None:
        for side in self.sides:
            side.counts = np.pad(side.counts, (rows, columns))
            side.over = np.pad(side.over, (rows, columns))
            side.limbs = [np.pad(limb, (rows, columns)) for limb in side.limbs]

    def _side(self, metric: Metric) -> Side:
        shape = (_FIRST_PANES, self.servers)
        limbs = limb_count(metric.statistic, self.arithmetic)
        return Side(
            metric,
            np.zeros(shape, np.int32),
            np.zeros(shape, np.int32),
            [np.zeros(shape, np.int64) for _ in range(limbs)],
        )

"""The open windows of a family: values go into panes, closed windows come out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fleetpulse.domain.closing import ClosedBy
from fleetpulse.domain.metric import Statistic
from fleetpulse.domain.window import WindowSpec
from fleetpulse.engine.columns import Columns
from fleetpulse.engine.pane import Panes, Side
from fleetpulse.engine.server import Servers
from fleetpulse.engine.snapshot import SideState, State
from fleetpulse.engine.text import Ints
from fleetpulse.engine.units import encode
from fleetpulse.engine.verdict import Verdicts
from fleetpulse.engine.window import NOT_REPORTED, Windows

# How many cells are merged at once when many windows close: bounds the memory of a drain.
_CELLS_AT_ONCE: Final = 1 << 21
_FIRST_LOOK: Final = 64
_NEVER_MS: Final = np.iinfo(np.int64).max
# Before every instant in milliseconds and every window's number, and far from the end of 64 bits.
NEVER: Final = -(2**60)


@dataclass(slots=True)
class OpenWindows:
    """Panes and servers of a family.

    `first_ms` is each server's first sample. `gone` holds that of servers without a number: those
    that sent nothing for longer than any open window, when room was needed.
    """

    verdicts: Verdicts
    spec: WindowSpec
    panes: Panes = field(init=False)
    servers: Servers = field(default_factory=Servers)
    first_ms: Ints = field(default_factory=lambda: np.full(64, _NEVER_MS, np.int64))
    groups: Ints = field(default_factory=lambda: np.zeros(64, np.int64))
    gone: dict[bytes, int] = field(default_factory=dict)
    # Windows up to this one, by number, are closed: window n starts with pane n.
    last_closed: int = NEVER
    _ranks: Ints | None = None
    _look_again_at: int = _FIRST_LOOK

    def __post_init__(self) -> None:
        """Start without panes."""
        self.panes = Panes(self.verdicts.rules.family.metrics, self.verdicts.arithmetic)

    @property
    def panes_per_window(self) -> int:
        """How many panes make a window."""
        return self.spec.size_ms // self.spec.slide_ms

    def meet(self, new_ids: Sequence[bytes]) -> None:
        """Prepare for servers that just got the highest numbers."""
        if not new_ids:
            return
        self._ranks = None
        count = self.servers.count
        self.panes.grow_servers(count)
        if count > len(self.first_ms):
            more = max(count, 2 * len(self.first_ms)) - len(self.first_ms)
            self.first_ms = np.pad(self.first_ms, (0, more), constant_values=_NEVER_MS)
            self.groups = np.pad(self.groups, (0, more))
        for number, server_id in enumerate(new_ids, start=count - len(new_ids)):
            self.first_ms[number] = self.gone.pop(server_id, _NEVER_MS)
            self.groups[number] = self.verdicts.group(server_id.decode("ascii"))

    def add(self, side: int, columns: Columns) -> None:
        """Add values whose newest window is open."""
        if not len(columns.rows):
            return
        into: Side = self.panes.sides[side]
        encoded = encode(columns.values, into.metric.statistic, self.verdicts.arithmetic)
        groups = self.groups[columns.servers]
        is_over = self.verdicts.are_over(side, encoded.judged, groups)
        np.minimum.at(self.first_ms, columns.servers, columns.ts_ms)
        panes = (columns.ts_ms - self.spec.origin_ms) // self.spec.slide_ms
        into.add(self.panes.cells(panes, columns.servers), encoded, is_over)

    def close_all(self, cause: ClosedBy) -> list[Windows]:
        """Close every window that holds a sample."""
        return self.close_to(max(self.panes.open), cause) if self.panes.open else []

    def close_to(self, last: int, cause: ClosedBy) -> list[Windows]:
        """Close the windows up to number `last` and return those that hold a sample."""
        before = self.last_closed
        if last <= before:
            return []
        self.last_closed = last
        panes = np.array(sorted(self.panes.open), np.int64)
        per_window = self.panes_per_window
        if not len(panes) or panes[0] - per_window + 1 > last:
            return []
        numbers = np.unique(panes[:, None] - np.arange(per_window))
        numbers = numbers[(numbers > before) & (numbers <= last)]
        at_once = max(1, _CELLS_AT_ONCE // max(self.servers.count, 1))
        parts = [
            self._merged(numbers[at : at + at_once], cause)
            for at in range(0, len(numbers), at_once)
        ]
        self.panes.close([number for number in panes.tolist() if number <= last])
        return [part for part in parts if len(part)]

    def _merged(self, numbers: Ints, cause: ClosedBy) -> Windows:
        """Return the windows of these numbers that hold a sample and are no leading ones."""
        spec, count = self.spec, self.servers.count
        rows = self.panes.rows_of(numbers[:, None] + np.arange(self.panes_per_window))
        present = np.zeros((len(numbers), count), np.bool_)
        for side in self.panes.sides:
            has_samples = side.counts[:, :count] > 0
            for row in rows.T:
                present |= has_samples[row]
        if spec.is_leading_dropped:
            first_panes = (self.first_ms[:count] - spec.origin_ms) // spec.slide_ms
            present &= numbers[:, None] >= first_panes
        which, servers = np.nonzero(present)
        if self._ranks is None:
            self._ranks = self.servers.ranks()
        order = np.argsort(which * count + self._ranks[servers])
        which, servers = which[order], servers[order]
        cells = (rows[which], servers)
        first, second = (_total(side, *cells) for side in self.panes.sides)
        empty = np.full(len(which), NOT_REPORTED, np.int64)
        windows = Windows(
            family=self.verdicts.rules.family,
            arithmetic=self.verdicts.arithmetic,
            size_ms=spec.size_ms,
            closed_by=cause,
            texts=self.verdicts.texts,
            server_ids=self.servers.ids(servers),
            starts_ms=numbers[which] * spec.slide_ms + spec.origin_ms,
            samples=(first[0], second[0]),
            samples_over=(first[1], second[1]),
            totals=(first[2], second[2]),
            hundredths=(empty, empty),
            labels=empty,
        )
        return self.verdicts.judged(windows, self.groups[servers])

    def state(self, facts: dict[str, Any]) -> State:
        """Return everything that is open, and `facts` beside it."""
        count = self.servers.count
        numbers = sorted(self.panes.open)
        rows = self.panes.rows_of(np.array(numbers, np.int64))
        first, second = (
            SideState(
                side.counts[rows, :count],
                side.over[rows, :count],
                [limb[rows, :count] for limb in side.limbs],
            )
            for side in self.panes.sides
        )
        return State(
            facts={**facts, "last_closed": self.last_closed, "panes": numbers},
            ids=self.servers.ids(np.arange(count)).tolist(),
            first_ms=self.first_ms[:count],
            gone_ids=list(self.gone),
            gone_first_ms=np.fromiter(self.gone.values(), np.int64, len(self.gone)),
            sides=(first, second),
        )

    def restore(self, state: State) -> None:
        """Become what `state` says; nothing was added before."""
        self.last_closed = state.facts["last_closed"]
        self.gone = dict(zip(state.gone_ids, state.gone_first_ms.tolist(), strict=True))
        self.servers.add(state.ids)
        self.meet(state.ids)
        count = len(state.ids)
        self.first_ms[:count] = state.first_ms
        panes = np.array(state.facts["panes"], np.int64)
        if not len(panes):
            return
        self.panes.cells(panes, np.zeros_like(panes))
        rows = self.panes.rows_of(panes)
        for side, found in zip(self.panes.sides, state.sides, strict=True):
            side.counts[rows, :count] = found.samples
            side.over[rows, :count] = found.samples_over
            for limb, total in zip(side.limbs, found.totals, strict=True):
                limb[rows, :count] = total

    def make_room(self) -> None:
        """Take their numbers from inactive servers once half of all are inactive.

        Looked at whenever as many servers came as were active the last time, who share the cost;
        so the arrays are at most four times as wide as the most servers active at once.
        """
        count = self.servers.count
        if count < self._look_again_at:
            return
        is_active = self.panes.are_active(count)
        active = int(is_active.sum())
        self._look_again_at = max(_FIRST_LOOK, 2 * active)
        if 2 * active > count:
            return
        inactive = np.flatnonzero(~is_active)
        ids = self.servers.ids(inactive).tolist()
        self.gone.update(zip(ids, self.first_ms[inactive].tolist(), strict=True))
        kept = np.flatnonzero(is_active)
        self.servers.keep(kept)
        self.panes.keep_servers(kept)
        self.first_ms[: len(kept)] = self.first_ms[kept]
        self.first_ms[len(kept) :] = _NEVER_MS
        self.groups[: len(kept)] = self.groups[kept]
        self._ranks = None


def _total(side: Side, rows: Ints, servers: Ints) -> tuple[Ints, Ints, tuple[Ints, ...]]:
    """Return samples, samples over and the totals of windows made of these rows."""
    gather = np.add if side.metric.statistic is Statistic.MEAN else np.maximum

    def merged(array: NDArray[np.int32] | Ints, by: np.ufunc) -> Ints:
        found: Ints = by.reduce(array[rows, servers[:, None]].astype(np.int64), axis=1)
        return found

    totals = tuple(merged(limb, gather) for limb in side.limbs)
    return merged(side.counts, np.add), merged(side.over, np.add), totals

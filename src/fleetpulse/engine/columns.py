"""Values of one metric as columns: the form in which every input reaches the windows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from fleetpulse.domain.metric import Metric
from fleetpulse.domain.reject import Reject
from fleetpulse.engine.layout import Cut
from fleetpulse.engine.server import Servers
from fleetpulse.engine.text import Flags, Floats, Ints, Texts


@dataclass(frozen=True, slots=True)
class Columns:
    """Values: the rising `rows` of the input that hold them, the servers' numbers, the instants."""

    rows: Ints
    servers: Ints
    ts_ms: Ints
    values: Floats

    @classmethod
    def of_cut(cls, cut: Cut, numbers: Ints, metric: Metric) -> Self:
        """Return the columns of the texts whose server has a number; the others have -1."""
        columns = cls(cut.rows, numbers, cut.ts_ms, cut.values[metric])
        is_id = numbers >= 0
        return columns if is_id.all() else columns.taken(is_id)

    @classmethod
    def merged(cls, parts: Sequence[Self]) -> Self:
        """Return the columns of at least one part in the order of their rows."""
        if len(parts) == 1:
            return parts[0]
        rows = np.concatenate([part.rows for part in parts])
        order = np.argsort(rows)
        return cls(
            rows[order],
            np.concatenate([part.servers for part in parts])[order],
            np.concatenate([part.ts_ms for part in parts])[order],
            np.concatenate([part.values for part in parts])[order],
        )

    def taken(self, kept: Flags | slice) -> Self:
        """Return a part of the columns."""
        return type(self)(self.rows[kept], self.servers[kept], self.ts_ms[kept], self.values[kept])


@dataclass(slots=True)
class SingleValues:
    """Values that came one by one, on their way to columns."""

    rows: list[int] = field(default_factory=list)
    ids: list[bytes] = field(default_factory=list)
    ts_ms: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, row: int, server_id: str, ts_ms: int, value: float) -> None:
        """Add a value of a valid server id."""
        self.rows.append(row)
        self.ids.append(server_id.encode())
        self.ts_ms.append(ts_ms)
        self.values.append(value)

    def columns(self, servers: Servers) -> tuple[Columns, list[bytes]]:
        """Return the columns, and the ids that are new among their servers."""
        texts = Texts.of(self.ids)
        numbers, new = servers.find(texts, texts.starts, texts.ends)
        rows, ts_ms = np.array(self.rows, np.int64), np.array(self.ts_ms, np.int64)
        return Columns(rows, numbers, ts_ms, np.array(self.values, np.float64)), new


@dataclass(frozen=True, slots=True)
class Read:
    """What an input held: columns, the ids that are new among their servers, and rejects by row."""

    columns: Columns
    new_ids: Sequence[bytes]
    rejects: Sequence[tuple[int, Reject]]


def without(rows: Ints, taken: Ints, count: int) -> Ints:
    """Return the rows (of an input of `count`) that are not taken."""
    if len(rows) == len(taken):
        return rows[:0]
    is_left = np.zeros(count, np.bool_)
    is_left[rows] = True
    is_left[taken] = False
    return np.flatnonzero(is_left)

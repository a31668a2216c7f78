"""A CSV file of one metric -> columns, chunk by chunk.

What a line means is what codec/table.py says: it reads the header and every line that does not have
the plain form of the others (layout.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np

from fleetpulse.codec.field import MAX_INPUT_BYTES
from fleetpulse.codec.table import TableReader, read_header
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.metric import Metric
from fleetpulse.domain.reject import Reject
from fleetpulse.engine.columns import Columns, Read, SingleValues, without
from fleetpulse.engine.layout import Delimiters, Field, Kind, Layout
from fleetpulse.engine.server import Servers
from fleetpulse.engine.text import Ints, Texts


@dataclass(frozen=True, slots=True)
class Lines(Sequence[bytes]):
    """The lines of a chunk, made one by one when somebody asks; long ones are cut."""

    texts: Texts

    def __len__(self) -> int:
        """Return how many lines there are."""
        return len(self.texts.starts)

    @overload
    def __getitem__(self, row: int) -> bytes: ...
    @overload
    def __getitem__(self, row: slice) -> list[bytes]: ...
    def __getitem__(self, row: int | slice) -> bytes | list[bytes]:
        """Return a line without its end, or several."""
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        start = int(self.texts.starts[row])
        # A byte beyond the limit, so that a reader sees that the line is oversized.
        end = min(int(self.texts.ends[row]), start + MAX_INPUT_BYTES + 1)
        return self.texts.data[start:end]


@dataclass(slots=True)
class Table:
    """Reads one file. `times` are those of the file, `where` is how errors name it.

    `samples` counts what was valid so far, `first_ms` and `last_ms` are its earliest and latest
    instant.
    """

    metric: Metric
    times: TimeReader
    where: str
    samples: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    _lines: int = 0
    _rest: bytes = b""
    _reader: TableReader | None = None
    _layout: Layout = field(default_factory=lambda: Layout.of_columns([Kind.TEXT]))

    def read(self, chunk: bytes, servers: Servers) -> tuple[Read, Lines, range]:
        """Return what the lines that end in a chunk hold, these lines, and their numbers.

        The rejects and columns name a line by its place among these lines. Raises UsageError for a
        header without the needed columns.
        """
        rest, size = self._rest, chunk.rfind(b"\n") + 1
        # As in codec/lines.py: enough of a line without end to see that it is oversized.
        if not size:
            self._rest = (rest + chunk)[: MAX_INPUT_BYTES + 2]
            return self._read(Texts.lines(), servers)
        self._rest = chunk[size:][: MAX_INPUT_BYTES + 2]
        return self._read(Texts.lines(rest, memoryview(chunk)[:size]), servers)

    def finish(self, servers: Servers) -> tuple[Read, Lines, range]:
        """Return the same of the last line, which may lack its end."""
        last, self._rest = self._rest, b""
        found = self._read(Texts.lines(last, b"\n" if last else b""), servers)
        if self._reader is None:
            read_header(None, [self.metric], self.times, self.where)
        return found

    def _read(self, texts: Texts, servers: Servers) -> tuple[Read, Lines, range]:
        lines = Lines(texts)
        numbers = range(self._lines + 1, self._lines + len(lines) + 1)
        self._lines += len(lines)
        left = np.arange(self._skip_header(lines), len(lines))
        if self._reader is None:
            return Read(SingleValues().columns(servers)[0], [], []), lines, numbers
        found = Delimiters.of(texts, ord(","), self._layout.delimiters)
        cut = self._layout.cut(texts, found, left, self.times)
        servers_found, new_ids = servers.find(texts, cut.id_starts, cut.id_ends)
        columns = Columns.of_cut(cut, servers_found, self.metric)
        left = without(left, columns.rows, len(lines))
        rejects: list[tuple[int, Reject]] = []
        if len(left):
            slow, rejects = self._read_one_by_one(self._reader, lines, left)
            more, new = slow.columns(servers)
            columns, new_ids = Columns.merged([columns, more]), [*new_ids, *new]
        self._note(columns)
        return Read(columns, new_ids, rejects), lines, numbers

    def _skip_header(self, lines: Lines) -> int:
        """Read the header if it is there yet; return the place of the first line below it."""
        if self._reader is not None:
            return 0
        for place, line in enumerate(lines):
            if _is_blank(line):
                continue
            reader = read_header(line, [self.metric], self.times, self.where)
            columns: list[Field] = [Kind.TEXT] * reader.width
            columns[reader.time_column] = Kind.TIME
            columns[reader.server_column] = Kind.SERVER
            columns[reader.metric_columns[self.metric]] = self.metric
            self._reader, self._layout = reader, Layout.of_columns(columns)
            return place + 1
        return len(lines)

    def _read_one_by_one(
        self, reader: TableReader, lines: Lines, left: Ints
    ) -> tuple[SingleValues, list[tuple[int, Reject]]]:
        values, rejects = SingleValues(), []
        for row in left.tolist():
            line = lines[row]
            if _is_blank(line):
                continue
            found = reader.read(line)
            rejects += [(row, reject) for reject in found.rejects]
            if (one := found.sample) is not None:
                values.add(row, one.server_id, one.ts_ms, one.values[self.metric.name])
        return values, rejects

    def _note(self, columns: Columns) -> None:
        if len(columns.rows):
            first_ms, last_ms = int(columns.ts_ms.min()), int(columns.ts_ms.max())
            self.samples += len(columns.rows)
            self.first_ms = first_ms if self.first_ms is None else min(self.first_ms, first_ms)
            self.last_ms = last_ms if self.last_ms is None else max(self.last_ms, last_ms)


def first_instant(table: Table, chunks: Iterable[bytes]) -> int | None:
    """Return the earliest instant in a file, None without a sample; the table is used up.

    For windows whose grid hangs on the first event, which must be known before the first value is
    counted. Raises UsageError as `Table.read` does.
    """
    servers = Servers()
    for chunk in chunks:
        table.read(chunk, servers)
    table.finish(servers)
    return table.first_ms


def _is_blank(line: bytes) -> bool:
    return not line.strip() and len(line) <= MAX_INPUT_BYTES

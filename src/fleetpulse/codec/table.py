"""Samples and records as CSV: datasets and the consumers' files.

Columns are found by name, in any order. UTF-8, one row a line, RFC 4180 quotes; a byte order mark
before the header is ignored.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from fleetpulse.codec.field import (
    MAX_INPUT_BYTES,
    check_number_text,
    check_server_id,
    number_text,
)
from fleetpulse.codec.lines import Line, split_lines
from fleetpulse.domain.clock import TimeReader, iso_text
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.metric import METRICS, Metric, Topic
from fleetpulse.domain.reject import Reject, RejectClass
from fleetpulse.domain.sample import Record, Sample
from fleetpulse.domain.share import Share

_TIME_NAMES: Final = ("ts", "timestamp")
_SERVER_NAME: Final = "server_id"
_instant_text = lru_cache(maxsize=4096)(iso_text)


@dataclass(frozen=True, slots=True)
class TableRow:
    """What a line held: a sample of its valid cells (None where it has none), and rejects.

    A bad time, server id or shape rejects the row; a bad number rejects its cell alone.
    """

    sample: Sample | None
    rejects: tuple[Reject, ...] = ()


@dataclass(frozen=True, slots=True)
class TableReader:
    """Reads the rows below one header; made by `read_header`."""

    width: int
    time_column: int
    server_column: int
    metric_columns: Mapping[Metric, int]
    times: TimeReader

    def read(self, line: bytes) -> TableRow:
        """Return the sample and rejects of one line (without its end), in the order of the file."""
        cells = _cells(line)
        if isinstance(cells, Reject):
            return TableRow(None, (cells,))
        if len(cells) != self.width:
            reason = f"{len(cells)} cells, wanted {self.width} as in the header"
            return TableRow(None, (Reject(RejectClass.MALFORMED, reason),))
        values: dict[str, int | float] = {}
        rejects = []
        for metric, column in self.metric_columns.items():
            number = check_number_text(metric, cells[column])
            if isinstance(number, Reject):
                rejects.append(number)
            else:
                values[metric.name] = number
        server_id = cells[self.server_column].strip()
        if (bad := check_server_id(server_id)) is not None:
            return TableRow(None, (bad,))
        ts_ms = self.times.read(cells[self.time_column].strip())
        if isinstance(ts_ms, Reject):
            return TableRow(None, (ts_ms,))
        return TableRow(Sample(ts_ms, server_id, values) if values else None, tuple(rejects))


def read_header(
    line: bytes | None, metrics: Sequence[Metric], times: TimeReader, where: str
) -> TableReader:
    """Return a reader for the table under this header line; None is a file without a line.

    Raises UsageError, naming `where`, unless there is a time (`ts` or `timestamp`), a `server_id`
    and each of the metrics, once.
    """
    wanted = f"wanted the columns {_TIME_NAMES[0]}, {_SERVER_NAME}, " + ", ".join(
        metric.name for metric in metrics
    )
    if line is None:
        raise UsageError(f"{where}: the file is empty; {wanted}")
    cells = _cells(line.removeprefix(b"\xef\xbb\xbf"))
    if isinstance(cells, Reject):
        raise UsageError(f"{where}: the header is {cells.reject_class} ({cells.reason}); {wanted}")
    names = [cell.strip().lower() for cell in cells]
    found = repr(", ".join(names)[:200])
    needed = [_TIME_NAMES[0], _SERVER_NAME, *(metric.name for metric in metrics)]
    columns: dict[str, int] = {}
    for column, name in enumerate(names):
        key = _TIME_NAMES[0] if name in _TIME_NAMES else name
        if key in columns and key in needed:
            raise UsageError(f"{where}: the header names {key} twice ({found}); {wanted}")
        columns[key] = column
    if missing := [name for name in needed if name not in columns]:
        raise UsageError(f"{where}: the header lacks {', '.join(missing)}; found {found}; {wanted}")
    return TableReader(
        width=len(names),
        time_column=columns[_TIME_NAMES[0]],
        server_column=columns[_SERVER_NAME],
        metric_columns={metric: columns[metric.name] for metric in metrics},
        times=times,
    )


def read_table(
    chunks: Iterable[bytes], metrics: Sequence[Metric], times: TimeReader, where: str
) -> Iterator[tuple[Line, TableRow]]:
    """Yield each line below the header with what it held, in the order of the file.

    Raises UsageError as `read_header` does, before the first row.
    """
    lines = split_lines(chunks)
    header = next(lines, None)
    reader = read_header(header.content if header else None, metrics, times, where)
    for line in lines:
        yield line, reader.read(line.content)


def table_header(metrics: Sequence[Metric]) -> str:
    """Return the header line, with its end, of a table of these metrics."""
    return ",".join([_TIME_NAMES[0], _SERVER_NAME, *(metric.name for metric in metrics)]) + "\n"


def record_line(record: Record) -> str:
    """Return a record as a line, with its end, of its topic's table; server ids need no quotes."""
    values = ",".join(map(number_text, record.values))
    return f"{_instant_text(record.ts_ms)},{record.server_id},{values}\n"


def sample_line(sample: Sample) -> str:
    """Return a sample as a line, with its end, of a dataset; an absent metric is an empty cell."""
    values = ",".join(
        number_text(sample.values[metric.name]) if metric.name in sample.values else ""
        for metric in METRICS
    )
    return f"{_instant_text(sample.ts_ms)},{sample.server_id},{values}\n"


def record_file_name(topic: Topic, share: Share | None = None) -> str:
    """Return the name of the file that a consumer keeps for a topic, or for a share of it."""
    return f"{topic.key}_data{share.suffix if share else ''}.csv"


def record_file_glob(topic: Topic) -> str:
    """Return what the names of all shares' files match, and that of the whole topic's does not."""
    return f"{topic.key}_data.p*.csv"


def _cells(line: bytes) -> list[str] | Reject:
    if len(line) > MAX_INPUT_BYTES:
        return Reject(RejectClass.OVERSIZED, f"line of more than {MAX_INPUT_BYTES} bytes")
    try:
        text = line.decode()
    except UnicodeDecodeError as err:
        return Reject(RejectClass.MALFORMED, f"not UTF-8 at byte {err.start} of the line")
    if '"' not in text:
        return text.split(",")
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as err:
        return Reject(RejectClass.MALFORMED, f"not CSV: {err}")

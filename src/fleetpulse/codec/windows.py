"""Window rows as CSV: CPU_MEM.csv and NET_DISK.csv."""

from collections.abc import Callable, Iterable, Iterator
from datetime import tzinfo
from enum import StrEnum
from functools import lru_cache
from typing import Final

from fleetpulse.domain.aggregate import WindowRow
from fleetpulse.domain.clock import clock_text, iso_text
from fleetpulse.domain.metric import CPU_MEM, NET_DISK, Family

_DAY_MS: Final = 86_400_000
_COLUMNS: Final = {
    CPU_MEM: ("avg_cpu", "avg_mem"),
    NET_DISK: ("max_net_in", "max_disk_io"),
}
_FILE_NAMES: Final = {CPU_MEM: "CPU_MEM.csv", NET_DISK: "NET_DISK.csv"}


class TimeFormat(StrEnum):
    """How a file prints its instants; AUTO is CLOCK while all windows lie within 24 hours."""

    AUTO = "auto"
    CLOCK = "clock"
    ISO = "iso"


def windows_file_name(family: Family, team_number: int | None = None) -> str:
    """Return the name of a family's output file.

    >>> windows_file_name(CPU_MEM, 4)
    'team_4_CPU_MEM.csv'
    """
    return (f"team_{team_number}_" if team_number is not None else "") + _FILE_NAMES[family]


def format_windows(
    family: Family, rows: Iterable[WindowRow], span_ms: int, time_format: TimeFormat, zone: tzinfo
) -> Iterator[str]:
    """Yield the header and the rows as lines with their ends, in the order given.

    `span_ms` reaches from the first window's start to the last one's end; it decides for AUTO.
    """
    instant = lru_cache(maxsize=4096)(instant_text(time_format, span_ms))
    yield windows_header(family)
    quoted = lru_cache(maxsize=64)(label_cell)
    for row in rows:
        first, second = map(_decimal, row.hundredths)
        start, end = instant(row.start_ms, zone), instant(row.end_ms, zone)
        yield f"{row.server_id},{start},{end},{first},{second},{quoted(row.alert)}\n"


def windows_header(family: Family) -> str:
    """Return the header of a family's file as a line with its end."""
    return ",".join(("server_id", "window_start", "window_end", *_COLUMNS[family], "alert")) + "\n"


def instant_text(time_format: TimeFormat, span_ms: int) -> Callable[[int, tzinfo], str]:
    """Return the function that prints the instants of a file whose windows span that long."""
    is_clock = time_format is TimeFormat.CLOCK or (
        time_format is TimeFormat.AUTO and span_ms <= _DAY_MS
    )
    return clock_text if is_clock else iso_text


def label_cell(label: str) -> str:
    """Return a label as a cell, in quotes where RFC 4180 wants them."""
    # Not csv.writer: that of Python 3.11 quotes no line end but its own.
    if not any(char in label for char in ',"\r\n'):
        return label
    return '"' + label.replace('"', '""') + '"'


def window_cells(row: WindowRow, zone: tzinfo) -> dict[str, object]:
    """Return a row for scripts: `values` by column name as printed, ISO instants, and the alert."""
    values = zip(_COLUMNS[row.family], map(_decimal, row.hundredths), strict=True)
    return {
        "server_id": row.server_id,
        "start": iso_text(row.start_ms, zone),
        "end": iso_text(row.end_ms, zone),
        "values": dict(values),
        "alert": row.alert,
    }


def _decimal(hundredths: int | None) -> str:
    return "" if hundredths is None else f"{hundredths // 100}.{hundredths % 100:02d}"

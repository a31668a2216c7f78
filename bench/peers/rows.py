"""The rows that a contestant wrote, held against the reference's."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

from fleetpulse.domain.metric import CPU_MEM, FAMILIES, NET_DISK, Family
from fleetpulse.domain.window import WindowSpec
from peers.fleet import Expected

# A file of its own, Spark's folder of parts, or the product's file.
PLACES: Final = {
    CPU_MEM: ("cpu_mem.csv", "cpu_mem/part-*.csv", "CPU_MEM.csv"),
    NET_DISK: ("net_disk.csv", "net_disk/part-*.csv", "NET_DISK.csv"),
}
_EXAMPLES: Final = 3
# Server, start (UTC milliseconds), both numbers as printed, alert.
Row = tuple[str, int, str, str, str]
_SIZE_MS: Final = WindowSpec().size_ms


@dataclass(slots=True)
class Check:
    """How many rows of both families are what.

    Two kinds may be given or left out: `leading` (given) begin before a server's first sample, and
    `open_at_end` (left out) end within the lateness of the input's end. `held_back` are left out
    although they could have closed, and are later than every row that was given: some systems give
    rows only once a second, and then only when another message comes. `wrong`, `missing`,
    `repeated` and `unknown` rows are faults; `examples` shows a few of them.
    """

    rows: int = 0
    equal: int = 0
    leading: int = 0
    open_at_end: int = 0
    held_back: int = 0
    wrong: int = 0
    missing: int = 0
    repeated: int = 0
    unknown: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        """Return whether no row is at fault."""
        return not (self.wrong or self.missing or self.repeated or self.unknown)


def row_paths(out: Path, family: Family) -> Iterator[Path]:
    """Yield the files below `out` that hold rows of a family."""
    for pattern in PLACES[family]:
        yield from sorted(out.glob(pattern))


def parse_row(line: str) -> Row | None:
    """Return the row of a line; None for a header."""
    server, start, _, first, second, alert = line.split(",", 5)
    if start == "window_start":
        return None
    # Spark quotes an empty text.
    return server, _instant_ms(start), first, second, "" if alert == '""' else alert


def check(out: Path, wanted: dict[Family, Expected], *, may_hold_back: bool) -> Check:
    """Return how the rows below `out` compare with the reference's.

    Unless a contestant `may_hold_back`, such rows count as missing.
    """
    found = Check()
    for family in FAMILIES:
        _check_family(found, out, family, wanted[family], may_hold_back=may_hold_back)
    return found


def _check_family(
    found: Check, out: Path, family: Family, wanted: Expected, *, may_hold_back: bool
) -> None:
    seen: set[tuple[str, int]] = set()
    for line, row in _family_rows(out, family):
        server, start_ms, first, second, alert = row
        key = (server, start_ms)
        found.rows += 1
        if key in seen:
            found.repeated += 1
            continue
        seen.add(key)
        want = wanted.rows.get(key)
        if want is None:
            found.unknown += 1
            _note(found, f"unknown: {line}")
        elif (_hundredths(first), _hundredths(second), alert) != want:
            found.wrong += 1
            _note(found, f"wrong: {line}, wanted {want}")
        else:
            found.equal += 1
            found.leading += start_ms < wanted.first_start_ms
    newest_ms = max((start_ms for _, start_ms in seen), default=wanted.first_start_ms - 1)
    for key in wanted.rows.keys() - seen:
        if key[1] < wanted.first_start_ms:
            continue
        if key[1] + _SIZE_MS > wanted.closed_until_ms:
            found.open_at_end += 1
        elif key[1] > newest_ms and may_hold_back:
            found.held_back += 1
        else:
            found.missing += 1
            _note(found, f"missing: {key}")


def _family_rows(out: Path, family: Family) -> Iterator[tuple[str, Row]]:
    for path in row_paths(out, family):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = parse_row(line)
            if row is not None:
                yield line, row


def _note(found: Check, text: str) -> None:
    if len(found.examples) < _EXAMPLES:
        found.examples.append(text)


def _hundredths(text: str) -> int | None:
    if not text:
        return None
    whole, _, part = text.partition(".")
    return int(whole) * 100 + int(part.ljust(2, "0"))


@lru_cache(maxsize=8192)
def _instant_ms(text: str) -> int:
    return (
        int(text) if text.isdigit() else round(dt.datetime.fromisoformat(text).timestamp() * 1000)
    )

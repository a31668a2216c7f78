"""Closed windows -> the lines of CPU_MEM.csv and NET_DISK.csv, without an object for each.

What a line says is what codec/windows.py says (tests/property/test_engine_printed.py).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from fleetpulse.codec.windows import TimeFormat, instant_text, label_cell, windows_header
from fleetpulse.domain.metric import Family
from fleetpulse.engine.block import Block, block_of, decimal_block, id_block, joined, text_of
from fleetpulse.engine.text import WORD_BYTES, Ints
from fleetpulse.engine.window import Windows

InstantText = Callable[[int, tzinfo], str]

# Bounds the memory of blocks; about a hundred bytes a row.
_ROWS_AT_ONCE: Final = 1 << 15


def printed_lines(windows: Windows, instant: InstantText, zone: tzinfo) -> bytes:
    """Return windows as lines, in their order.

    `instant` prints an instant (`codec.windows.instant_text` gives the one for a file).
    """
    return _Fields.of([windows], instant, zone).lines(slice(None))


def printed_file(
    family: Family, parts: Sequence[Windows], span_ms: int, time_format: TimeFormat, zone: tzinfo
) -> Iterator[bytes]:
    """Yield the family's file: the header, and all windows sorted by server id and start.

    The parts are those of one engine. Ids are sorted by their bytes. `span_ms` reaches from the
    first window's start to the last one's end; it decides for AUTO. Each chunk ends with a line.
    """
    yield windows_header(family).encode()
    if not sum(map(len, parts)):
        return
    fields = _Fields.of(parts, instant_text(time_format, span_ms), zone)
    order = fields.by_server_and_start()
    for at in range(0, len(order), _ROWS_AT_ONCE):
        yield fields.lines(order[at : at + _ROWS_AT_ONCE])


@dataclass(frozen=True, slots=True)
class _Instants:
    """The distinct starts and their ends; `which` is the place of each window's among them."""

    which: Ints
    starts: Block
    ends: Block

    @classmethod
    def of(cls, parts: Sequence[Windows], instant: InstantText, zone: tzinfo) -> Self:
        size_ms = parts[0].size_ms
        starts_ms = np.concatenate([part.starts_ms for part in parts])
        distinct_ms, which = np.unique(starts_ms, return_inverse=True)
        starts = distinct_ms.tolist()
        # A window's end is mostly another's start.
        texts = {
            one: instant(one, zone).encode()
            for one in {*starts, *(start + size_ms for start in starts)}
        }
        return cls(
            which,
            block_of([texts[start] for start in starts]),
            block_of([texts[start + size_ms] for start in starts]),
        )


@dataclass(frozen=True, slots=True)
class _Fields:
    """The columns of windows that a line shows."""

    ids: NDArray[np.bytes_]
    instants: _Instants
    hundredths: tuple[Ints, Ints]
    labels: Ints
    label_cells: Block

    @classmethod
    def of(cls, parts: Sequence[Windows], instant: InstantText, zone: tzinfo) -> Self:
        first, second = (
            np.concatenate([part.hundredths[side] for part in parts]) for side in (0, 1)
        )
        return cls(
            np.concatenate([part.server_ids for part in parts]),
            _Instants.of(parts, instant, zone),
            (first, second),
            np.concatenate([part.labels for part in parts]),
            block_of([label_cell(text).encode() for text in parts[0].texts]),
        )

    def by_server_and_start(self) -> Ints:
        """Return the rows in the order of the file."""
        width = -(-self.ids.dtype.itemsize // WORD_BYTES)
        # Words whose first byte is the highest sort like the bytes; a shorter id ends in zeros.
        words = self.ids.astype(f"S{WORD_BYTES * width}").view(">u8").reshape(-1, width)
        keys = [words[:, column].astype(np.uint64) for column in range(width)]
        return np.lexsort((self.instants.which, *reversed(keys)))

    def lines(self, rows: Ints | slice) -> bytes:
        """Return these rows as lines."""
        which = self.instants.which[rows]
        first, second = (decimal_block(numbers[rows]) for numbers in self.hundredths)
        cells = (
            id_block(self.ids[rows]),
            self.instants.starts[which],
            self.instants.ends[which],
            first,
            second,
            self.label_cells[self.labels[rows]],
        )
        parts: list[bytes | Block] = [b","] * (2 * len(cells))
        parts[::2], parts[-1] = cells, b"\n"
        return text_of(joined(parts))

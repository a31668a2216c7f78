"""Closed windows -> the lines of CPU_MEM.csv and NET_DISK.csv, without an object for each.

What a line says is what codec/windows.py says (tests/property/test_engine_printed.py). A field is a
block of bytes: a row for each window, as wide as the longest text of the field, and filled up with
a byte that no UTF-8 text has. One pass over the blocks side by side takes the filling out.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from fleetpulse.codec.windows import TimeFormat, instant_text, label_cell, windows_header
from fleetpulse.domain.metric import Family
from fleetpulse.engine.text import WORD_BYTES, Ints
from fleetpulse.engine.window import Windows

Block = NDArray[np.uint8]
InstantText = Callable[[int, tzinfo], str]

_FILLING: Final = 0xFF
_ZERO: Final = ord("0")
_DECIMALS: Final = 2
_LEAST_DIGITS: Final = 1 + _DECIMALS
# Bounds the memory of blocks; about a hundred bytes a row.
_ROWS_AT_ONCE: Final = 1 << 15


def printed_lines(windows: Windows, text_of: InstantText, zone: tzinfo) -> bytes:
    """Return windows as lines, in their order.

    `text_of` prints an instant (`codec.windows.instant_text` gives the one for a file).
    """
    return _Fields.of([windows], text_of, zone).lines(slice(None))


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
    def of(cls, parts: Sequence[Windows], text_of: InstantText, zone: tzinfo) -> Self:
        size_ms = parts[0].size_ms
        starts_ms = np.concatenate([part.starts_ms for part in parts])
        distinct_ms, which = np.unique(starts_ms, return_inverse=True)
        starts = distinct_ms.tolist()
        # A window's end is mostly another's start.
        texts = {
            one: text_of(one, zone).encode()
            for one in {*starts, *(start + size_ms for start in starts)}
        }
        return cls(
            which,
            _block([texts[start] for start in starts]),
            _block([texts[start + size_ms] for start in starts]),
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
    def of(cls, parts: Sequence[Windows], text_of: InstantText, zone: tzinfo) -> Self:
        first, second = (
            np.concatenate([part.hundredths[side] for part in parts]) for side in (0, 1)
        )
        return cls(
            np.concatenate([part.server_ids for part in parts]),
            _Instants.of(parts, text_of, zone),
            (first, second),
            np.concatenate([part.labels for part in parts]),
            _block([label_cell(text).encode() for text in parts[0].texts]),
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
        first, second = (_decimals(numbers[rows]) for numbers in self.hundredths)
        ids = self.ids[rows]
        letters = ids.view(np.uint8).reshape(len(ids), ids.dtype.itemsize)
        fields = (
            np.where(letters == 0, np.uint8(_FILLING), letters),
            self.instants.starts[which],
            self.instants.ends[which],
            first,
            second,
            self.label_cells[self.labels[rows]],
        )
        width = sum(field.shape[1] + 1 for field in fields)
        block = np.full((len(ids), width), ord(","), np.uint8)
        at = 0
        for field in fields:
            block[:, at : at + field.shape[1]] = field
            at += field.shape[1] + 1
        block[:, -1] = ord("\n")
        return block.tobytes().translate(None, bytes([_FILLING]))


def _block(texts: Sequence[bytes]) -> Block:
    width = max(map(len, texts), default=0) or 1
    filled = b"".join(text.ljust(width, bytes([_FILLING])) for text in texts)
    return np.frombuffer(filled, np.uint8).reshape(len(texts), width)


def _decimals(hundredths: Ints) -> Block:
    """Return numbers with two decimals, and nothing where there is none (NOT_REPORTED)."""
    digits = max(len(str(hundredths.max(initial=0))), _LEAST_DIGITS)
    block = np.empty((len(hundredths), digits + 1), np.uint8)
    rest = hundredths
    for place in range(digits):
        column = digits - place - (place >= _DECIMALS)
        higher = rest // 10
        block[:, column] = rest - 10 * higher + _ZERO
        if place >= _LEAST_DIGITS:
            block[rest == 0, column] = _FILLING
        rest = higher
    block[:, digits - _DECIMALS] = ord(".")
    block[hundredths < 0] = _FILLING
    return block

"""Columns -> text, row by row, without an object for each cell.

A block holds the texts of one field: a row for each, as wide as the longest, filled up with a byte
that no UTF-8 text has. Blocks side by side become the rows' text in one pass that takes the filling
out.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleetpulse.engine.text import Flags, Ints

Block = NDArray[np.uint8]

_FILLING: Final = 0xFF
_ZERO: Final = ord("0")
_DECIMALS: Final = 2


def block_of(texts: Sequence[bytes]) -> Block:
    """Return the block of some texts."""
    width = max(map(len, texts), default=0) or 1
    filled = b"".join(text.ljust(width, bytes([_FILLING])) for text in texts)
    return np.frombuffer(filled, np.uint8).reshape(len(texts), width)


def id_block(ids: NDArray[np.bytes_]) -> Block:
    """Return the block of an array of ids."""
    letters = ids.view(np.uint8).reshape(len(ids), ids.dtype.itemsize)
    return np.where(letters == 0, np.uint8(_FILLING), letters)


def integer_block(numbers: Ints) -> Block:
    """Return the block of integers, none of them negative."""
    return _digits(numbers, 1)


def decimal_block(hundredths: Ints) -> Block:
    """Return the block of numbers with two decimals; a negative one is an empty text."""
    whole = _digits(hundredths, 1 + _DECIMALS)
    point = np.full((len(whole), 1), ord("."), np.uint8)
    block = np.hstack((whole[:, :-_DECIMALS], point, whole[:, -_DECIMALS:]))
    block[hundredths < 0] = _FILLING
    return block


def joined(parts: Sequence[bytes | Block]) -> Block:
    """Return the block of the parts' texts one behind the other; bytes stand in every row."""
    count = next(len(part) for part in parts if not isinstance(part, bytes))
    widths = [len(part) if isinstance(part, bytes) else part.shape[1] for part in parts]
    block = np.empty((count, sum(widths)), np.uint8)
    at = 0
    for part, width in zip(parts, widths, strict=True):
        if width:
            fixed = isinstance(part, bytes)
            block[:, at : at + width] = np.frombuffer(part, np.uint8) if fixed else part
        at += width
    return block


def replaced(block: Block, rows: Flags, text: bytes) -> Block:
    """Return the block with another text in these rows; the block is at least as wide."""
    block[rows] = np.frombuffer(text.ljust(block.shape[1], bytes([_FILLING])), np.uint8)
    return block


def text_of(block: Block) -> bytes:
    """Return the texts of all rows, one behind the other."""
    return block.tobytes().translate(None, bytes([_FILLING]))


def _digits(numbers: Ints, least: int) -> Block:
    """Return decimal digits, at least so many."""
    count = max(len(str(numbers.max(initial=0))), least)
    block = np.empty((len(numbers), count), np.uint8)
    rest = numbers
    for place in range(count):
        higher = rest // 10
        block[:, -1 - place] = rest - 10 * higher + _ZERO
        if place >= least:
            block[rest == 0, -1 - place] = _FILLING
        rest = higher
    return block

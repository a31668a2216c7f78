"""Many short texts side by side in one buffer, so that one array operation reads all of them.

Words are eight bytes, the first of them lowest, read from any place: gathers of words from
unaligned places cost about 4 ns a text, whatever their alignment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

WORD_BYTES: Final = 8
# Reading around a text that turns out not to have the form that was hoped for stays in the buffer.
PAD_BYTES: Final = 2048
_PAD: Final = bytes(PAD_BYTES)


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts from `starts` to before `ends`, places in `data`, which is padded on both sides."""

    data: bytes
    starts: Ints
    ends: Ints

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> Self:
        """Return the texts one after the other. Raises TypeError where one is None."""
        joined = b"".join((_PAD, *texts, _PAD))
        ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts))) + PAD_BYTES
        starts = np.empty_like(ends)
        starts[:1] = PAD_BYTES
        starts[1:] = ends[:-1]
        return cls(joined, starts, ends)

    @classmethod
    def lines(cls, *parts: bytes | memoryview) -> Self:
        """Return the lines of a text that ends with LF, without their LF or CRLF."""
        data = b"".join((_PAD, *parts, _PAD))
        found = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(found == ord("\n"))
        starts = np.empty_like(ends)
        starts[:1] = PAD_BYTES
        starts[1:] = ends[:-1] + 1
        return cls(data, starts, ends - (found[ends - 1] == ord("\r")))

    def places_of(self, byte: int) -> Ints:
        """Return where a byte occurs, in rising order."""
        return np.flatnonzero(np.frombuffer(self.data, np.uint8) == byte)

    def bytes_at(self, places: Ints) -> NDArray[np.uint8]:
        """Return the byte at each place."""
        return np.frombuffer(self.data, np.uint8)[places]

    def words_at(self, places: Ints) -> Words:
        """Return the eight bytes from each place on as a word."""
        return self._view(np.dtype("<u8"))[places]

    def blocks_at(self, places: Ints, words: int) -> Words:
        """Return that many words from each place on, shape (places, words)."""
        blocks = self._view(np.dtype(f"V{WORD_BYTES * words}"))[places]
        return blocks.view("<u8").reshape(-1, words)

    def _view(self, dtype: np.dtype[np.generic]) -> NDArray[np.uint64]:
        shape = (len(self.data) - dtype.itemsize + 1,)
        return np.ndarray(shape, dtype, self.data, strides=(1,))

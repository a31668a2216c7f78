"""Server ids -> small numbers, by a hash table that is looked up for whole batches.

An id is kept as words, padded with zero bytes, and compared whole with its size: a hash that
two ids share costs a step and no mistake.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleetpulse.codec.field import check_server_id
from fleetpulse.engine.text import WORD_BYTES, Ints, Texts, Words

LONGEST_ID: Final = 64
_ID_WORDS: Final = LONGEST_ID // WORD_BYTES
# By the size of an id: which bits of its words are its own.
_OWN_BITS: Final = np.array(
    [
        [
            2 ** (8 * min(max(size - at, 0), WORD_BYTES)) - 1
            for at in range(0, LONGEST_ID, WORD_BYTES)
        ]
        for size in range(LONGEST_ID + 1)
    ],
    np.uint64,
)
# Odd factors that differ from one process to the next, so that nobody can send ids that collide;
# no output depends on them.
_FACTORS: Final = np.array(
    [hash(b"fleetpulse %d" % number) & (2**64 - 1) | 1 for number in range(_ID_WORDS)], np.uint64
)
_FREE: Final = -1
_FIRST_TABLE_SIZE: Final = 64


@dataclass(slots=True)
class Servers:
    """The servers that have a number: 0, 1, 2 ... in the order in which they came."""

    count: int = 0
    _words: Words = field(default_factory=lambda: np.zeros((_FIRST_TABLE_SIZE // 2, 2), np.uint64))
    _sizes: Ints = field(default_factory=lambda: np.zeros(_FIRST_TABLE_SIZE // 2, np.int64))
    _table: NDArray[np.int32] = field(
        default_factory=lambda: np.full(_FIRST_TABLE_SIZE, _FREE, np.int32)
    )
    _own_bits: Words = field(default_factory=lambda: np.ascontiguousarray(_OWN_BITS[:, :2]))

    def find(self, texts: Texts, starts: Ints, ends: Ints) -> tuple[Ints, list[bytes]]:
        """Return the number of the id in each text, and the ids that are new, in their order.

        New ids have numbers from the former `count` on; -1 is for a text that is no server id.
        """
        length = ends - starts
        longest = int(length.max(initial=0))
        if longest > LONGEST_ID:
            length = np.where(length > LONGEST_ID, 0, length)
            longest = LONGEST_ID
        self._widen(-(-longest // WORD_BYTES))
        width = self._words.shape[1]
        words = texts.blocks_at(starts, width)
        words &= self._own_bits.take(length, axis=0)
        found, missing = self._look_up(words, length)
        new: list[bytes] = []
        if len(missing):
            numbers: dict[bytes, int] = {}
            for row in missing.tolist():
                name = words[row].tobytes()[: length[row]]
                if name not in numbers:
                    is_id = check_server_id(name.decode("ascii", "replace")) is None
                    numbers[name] = self.count + len(new) if is_id else -1
                    if is_id:
                        new.append(name)
                found[row] = numbers[name]
            self.add(new)
        return found, new

    def add(self, ids: Sequence[bytes]) -> None:
        """Give numbers to ids that have none yet."""
        size = max(map(len, ids), default=0)
        self._widen(-(-size // WORD_BYTES))
        width = self._words.shape[1]
        text = b"".join(name.ljust(width * WORD_BYTES, b"\0") for name in ids)
        words = np.frombuffer(text, np.uint64).reshape(-1, width)
        before, self.count = self.count, self.count + len(ids)
        if self.count > len(self._words):
            grown = np.zeros((max(self.count, 2 * len(self._words)), width), np.uint64)
            grown[:before] = self._words[:before]
            self._words = grown
            self._sizes = np.resize(self._sizes, len(grown))
        self._words[before : self.count] = words
        self._sizes[before : self.count] = np.fromiter(map(len, ids), np.int64, len(ids))
        if 2 * self.count > len(self._table):
            size = 1 << (4 * self.count - 1).bit_length()
            self._table = np.full(size, _FREE, np.int32)
            before = 0
        self._enter(np.arange(before, self.count))

    def keep(self, kept: Ints) -> None:
        """Keep only these, which get the numbers 0, 1, 2 ... in their order."""
        self._words[: len(kept)] = self._words[kept]
        self._sizes[: len(kept)] = self._sizes[kept]
        self.count = len(kept)
        self._table = np.full(
            max(_FIRST_TABLE_SIZE, 1 << (4 * self.count).bit_length()), _FREE, np.int32
        )
        self._enter(np.arange(self.count))

    def ids(self, numbers: Ints) -> NDArray[np.bytes_]:
        """Return the ids of servers, as texts of bytes."""
        width = self._words.shape[1]
        found: NDArray[np.bytes_] = self._words[numbers].view(f"S{WORD_BYTES * width}")[:, 0]
        return found

    def ranks(self) -> Ints:
        """Return each server's place in the byte order of all ids."""
        order = np.argsort(self.ids(np.arange(self.count)))
        ranks = np.empty_like(order)
        ranks[order] = np.arange(self.count)
        return ranks

    def _widen(self, width: int) -> None:
        missing = width - self._words.shape[1]
        if missing > 0:
            self._words = np.pad(self._words, ((0, 0), (0, missing)))
            self._own_bits = np.ascontiguousarray(_OWN_BITS[:, :width])

    def _look_up(self, words: Words, length: Ints) -> tuple[Ints, Ints]:
        """Return the number of each id, and the rows of those that have none."""
        place = self._places(words)
        mask = len(self._table) - 1
        found = self._table[place].astype(np.int64)
        is_same = self._sizes[found] == length
        known = self._words.take(found, axis=0)
        for column in range(words.shape[1]):
            is_same &= known[:, column] == words[:, column]
        rows = np.flatnonzero(~is_same & (found != _FREE))
        place = place[rows]
        while len(rows):
            place = (place + 1) & mask
            met = self._table[place].astype(np.int64)
            found[rows] = met
            is_same = (self._words[met] == words[rows]).all(axis=1)
            is_same &= self._sizes[met] == length[rows]
            going_on = ~is_same & (met != _FREE)
            rows, place = rows[going_on], place[going_on]
        return found, np.flatnonzero(found == _FREE)

    def _enter(self, numbers: Ints) -> None:
        """Put servers into the table; where several want one place, all but one try the next."""
        place = self._places(self._words[numbers])
        mask = len(self._table) - 1
        while len(numbers):
            is_free = self._table[place] == _FREE
            self._table[place[is_free]] = numbers[is_free]
            homeless = self._table[place] != numbers
            numbers, place = numbers[homeless], (place[homeless] + 1) & mask

    def _places(self, words: Words) -> Ints:
        mixed = words[:, 0] * _FACTORS[0]
        for column in range(1, words.shape[1]):
            mixed += words[:, column] * _FACTORS[column]
        mixed ^= mixed >> np.uint64(32)
        mixed *= _FACTORS[0]
        # The highest bits of a product depend on all bits of its factors.
        bits = (len(self._table) - 1).bit_length()
        places: Ints = (mixed >> np.uint64(64 - bits)).astype(np.int64)
        return places

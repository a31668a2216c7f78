"""What should be in a file against what is there, as hashes in order: what lacks, what is over.

A file is an interleaving of its partitions' lines, each in the order of offsets. Lines carry no
offset, so equal lines stand for each other: counts are exact, and of equal lines one is named.
"""

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final

import numpy as np
import numpy.typing as npt

from fleetpulse.domain.position import Partition

Numbers = npt.NDArray[np.int64]
# So many differences of a kind are named; all are counted.
NAMED: Final = 20
# So many lines around the expected place are searched for the beginning of what can be checked.
_NEAR_LINES: Final = 1000
# A fault may be among the lines of a long one, lines before may be equal to a short one.
_ANCHORS_LINES: Final = (100, 20, 5, 1)
# Ways to deal equal lines out to partitions that are followed at once.
_MOST_WAYS: Final = 1000


@dataclass(frozen=True, slots=True)
class Column:
    """Hashes of lines, each with its number: an offset, or its place in a file."""

    numbers: Numbers
    hashes: Numbers

    def __len__(self) -> int:
        """Return how many lines there are."""
        return len(self.hashes)

    def after(self, count: int) -> "Column":
        """Return what follows the first `count` lines."""
        return Column(self.numbers[count:], self.hashes[count:])


@dataclass(slots=True)
class Differences:
    """How lines differ from what they should be; all empty where they do not.

    `missing` are offsets without a line, `repeated` lines with the offset that another line
    already stands for, `foreign` lines that no record gives, with the offset whose place each
    takes (None where that is not known). `moved` names the first lines that are before their turn,
    `moved_count` counts all. `gone_count` counts the lines that were left out because Kafka no
    longer has their records.
    """

    missing: list[tuple[Partition, int]] = field(default_factory=list)
    repeated: list[tuple[int, Partition, int]] = field(default_factory=list)
    foreign: list[tuple[int, Partition | None, int | None]] = field(default_factory=list)
    moved: list[tuple[int, Partition, int]] = field(default_factory=list)
    moved_count: int = 0
    gone_count: int = 0

    def add(self, other: "Differences") -> None:
        """Take the differences of other lines of the same file."""
        self.missing += other.missing
        self.repeated += other.repeated
        self.foreign += other.foreign
        self.moved = sorted([*self.moved, *other.moved], key=itemgetter(0))[:NAMED]
        self.moved_count += other.moved_count
        self.gone_count += other.gone_count


def reconcile(expected: Mapping[Partition, Column], found: Column, gone_most: int) -> Differences:
    """Return how the lines of a file differ from those of its partitions.

    Up to `gone_most` lines may be of records that nobody can look at any more: those before
    the others in a file of one partition, and lines that fit no record in one of several.
    """
    if len(expected) == 1:
        ((partition, column),) = expected.items()
        return _reconcile_one(partition, column, found, gone_most)
    return _reconcile_several(expected, found, gone_most)


def _reconcile_one(
    partition: Partition, expected: Column, found: Column, gone_most: int
) -> Differences:
    skipped = _start(expected.hashes, found.hashes, gone_most) if gone_most else 0
    walk = _Walk(partition, expected, found.after(skipped))
    walk.run()
    differences = walk.differences
    differences.gone_count = skipped
    return differences


def _start(expected: Numbers, found: Numbers, gone_most: int) -> int:
    """Return how many lines lie before those that can be checked."""
    likely = min(max(len(found) - len(expected), 0), gone_most)
    near = range(max(likely - _NEAR_LINES, 0), min(likely + _NEAR_LINES, gone_most) + 1)
    for size in _ANCHORS_LINES:
        anchor = expected[:size]
        for start in sorted(near, key=lambda at: abs(at - likely)):
            if len(anchor) and np.array_equal(found[start : start + len(anchor)], anchor):
                return start
    return likely


class _Walk:
    """Goes along the lines of one partition and of its file, and names each difference."""

    def __init__(self, partition: Partition, expected: Column, found: Column) -> None:
        self.differences = Differences()
        self._partition = partition
        self._expected = expected
        same = _common(expected.hashes, found.hashes)
        self._wanted = expected.after(same)
        self._there = found.after(same)
        lacking, over = _balance(self._wanted.hashes, self._there.hashes)
        self._lacking, self._over = lacking, over
        self._places = _places(over, expected.hashes)
        self._same = same
        self._early: Counter[int] = Counter()

    def run(self) -> None:
        wanted, there = _ints(self._wanted.hashes), _ints(self._there.hashes)
        at = line = 0
        while at < len(wanted) and line < len(there):
            want, have = wanted[at], there[line]
            if want == have:
                at, line = at + 1, line + 1
            elif self._early[want] > 0:
                self._early[want] -= 1
                at += 1
            else:
                steps = self._differ(at, want, line, have)
                at, line = at + steps[0], line + steps[1]
        for rest in range(at, len(wanted)):
            if self._early[wanted[rest]] > 0:
                self._early[wanted[rest]] -= 1
            else:
                self._miss(rest)
        for rest in range(line, len(there)):
            self._surplus(len(wanted), rest, there[rest])

    def _differ(self, at: int, want: int, line: int, have: int) -> tuple[int, int]:
        """Name what is wrong here, and return how far to go on in both."""
        is_lacking, is_over = self._lacking.get(want, 0) > 0, self._over.get(have, 0) > 0
        if is_lacking:
            self._lacking[want] -= 1
        if is_over:
            self._over[have] -= 1
        if is_lacking and is_over and have not in self._places:
            place = self._partition, self._offset(at)
            self.differences.foreign.append((self._line(line), *place))
            return 1, 1
        if is_lacking:
            self._miss(at)
        if is_over:
            self._surplus(at, line, have)
        if not (is_lacking or is_over):
            self._early[have] += 1
            self._move(line, have)
            return 0, 1
        return int(is_lacking), int(is_over)

    def _miss(self, at: int) -> None:
        self.differences.missing.append((self._partition, self._offset(at)))

    def _surplus(self, at: int, line: int, have: int) -> None:
        places = self._places.get(have)
        if places is None:
            self.differences.foreign.append((self._line(line), None, None))
            return
        # Of equal lines the nearest one before is the likely origin.
        nearest = places[max(bisect_left(places, self._same + at) - 1, 0)]
        offset = int(self._expected.numbers[nearest])
        self.differences.repeated.append((self._line(line), self._partition, offset))

    def _move(self, line: int, have: int) -> None:
        differences = self.differences
        differences.moved_count += 1
        if differences.moved_count <= NAMED:
            origin = _origin({self._partition: self._wanted}, have)
            differences.moved.append((self._line(line), *origin))

    def _offset(self, at: int) -> int:
        return int(self._wanted.numbers[at])

    def _line(self, line: int) -> int:
        return int(self._there.numbers[line])


def _reconcile_several(
    expected: Mapping[Partition, Column], found: Column, gone_most: int
) -> Differences:
    differences = Differences()
    hashes = [column.hashes for column in expected.values()]
    everything = np.concatenate([np.empty(0, np.int64), *hashes])
    lacking, over = _balance(everything, found.hashes)
    if not (lacking or over):
        line = first_misplaced(found.hashes, hashes)
        if line is not None:
            have = int(found.hashes[line])
            differences.moved.append((int(found.numbers[line]), *_origin(expected, have)))
            differences.moved_count = 1
        return differences
    for partition, column in reversed(list(expected.items())):
        named = _last_of(column, lacking)
        differences.missing += [(partition, int(column.numbers[at])) for at in named]
    origins = {
        value: (partition, int(column.numbers[places[0]]))
        for partition, column in reversed(list(expected.items()))
        for value, places in _places(over, column.hashes).items()
    }
    for line in _last_of(found, over):
        number, have = int(found.numbers[line]), int(found.hashes[line])
        if have in origins:
            differences.repeated.append((number, *origins[have]))
        else:
            differences.foreign.append((number, None, None))
    for lines in (differences.foreign, differences.repeated):
        left = gone_most - differences.gone_count
        differences.gone_count += min(left, len(lines))
        del lines[max(len(lines) - left, 0) :]
    return differences


def first_misplaced(found: Numbers, parts: Sequence[Numbers]) -> int | None:
    """Return the place of the first line that no interleaving of the parts explains.

    None where one explains all, and where equal lines leave too many to follow.
    """
    lists = [_ints(part) for part in parts]
    ways: set[tuple[int, ...]] = {(0,) * len(lists)}
    for line, have in enumerate(_ints(found)):
        further = set()
        for way in ways:
            for number, at in enumerate(way):
                if at < len(lists[number]) and lists[number][at] == have:
                    further.add((*way[:number], at + 1, *way[number + 1 :]))
        if not further:
            return line
        if len(further) > _MOST_WAYS:
            return None
        ways = further
    return None


def _common(first: Numbers, second: Numbers) -> int:
    """Return how many values both begin with."""
    shorter = min(len(first), len(second))
    unlike = np.flatnonzero(first[:shorter] != second[:shorter])
    return int(unlike[0]) if len(unlike) else shorter


def _balance(wanted: Numbers, there: Numbers) -> tuple[dict[int, int], dict[int, int]]:
    """Return how often each value lacks, and how often each is there too often."""
    values, places = np.unique(np.concatenate([wanted, there]), return_inverse=True)
    count = len(values)
    counts = np.bincount(places[: len(wanted)], minlength=count) - np.bincount(
        places[len(wanted) :], minlength=count
    )
    return _positive(values, counts), _positive(values, -counts)


def _positive(values: Numbers, counts: Numbers) -> dict[int, int]:
    places = np.flatnonzero(counts > 0)
    return dict(zip(values[places].tolist(), counts[places].tolist(), strict=True))


def _places(values: Mapping[int, int], hashes: Numbers) -> dict[int, list[int]]:
    """Return the places of each of the values that is among the hashes."""
    asked = np.fromiter(values, np.int64, len(values))
    found: dict[int, list[int]] = {}
    for at in np.flatnonzero(np.isin(hashes, asked)).tolist():
        found.setdefault(int(hashes[at]), []).append(at)
    return found


def _last_of(column: Column, counts: dict[int, int]) -> list[int]:
    """Return the places of the last so many lines of each hash, and count them down."""
    asked = np.fromiter(counts, np.int64, len(counts))
    places = []
    for at in np.flatnonzero(np.isin(column.hashes, asked))[::-1].tolist():
        value = int(column.hashes[at])
        if counts[value] > 0:
            counts[value] -= 1
            places.append(at)
    return places[::-1]


def _origin(expected: Mapping[Partition, Column], value: int) -> tuple[Partition, int]:
    for partition, column in expected.items():
        if len(places := np.flatnonzero(column.hashes == value)):
            return partition, int(column.numbers[places[0]])
    raise KeyError(value)


def _ints(values: Numbers) -> "array[int]":
    """Return the same in a form that is quick to go through one by one."""
    return array("q", values.tobytes())

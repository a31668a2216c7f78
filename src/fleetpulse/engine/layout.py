"""The form that a source gives all its texts: fixed text around the fields that change.

A program writes all its messages alike: same keys, same order, same spaces. So one message that
the codec has read tells where the fields of the next ones lie, and a batch of them is cut by a few
array operations. A text matches only if every byte of the fixed text is there, its field delimiters
are as many, and each field has the plain form of its kind (cell.py); whatever else it is, the codec
decides. The fixed text comes from a text that the codec accepted, so a text that matches is one,
too, and means what the codec would find in it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Self

import numpy as np

from fleetpulse.codec.field import MAX_INPUT_BYTES
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.metric import Metric, Topic
from fleetpulse.engine.cell import LAST_BYTES, instants, numbers
from fleetpulse.engine.text import PAD_BYTES, WORD_BYTES, Flags, Floats, Ints, Texts

_SPACE: Final = rb"[ \t\n\r]*"
_PLAIN: Final = rb'[^"\\\x00-\x1f\x7f-\xff]*'
_NUMBER: Final = rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_FIELD: Final = re.compile(
    rb'%b"(%b)"%b:%b(?:"(?P<text>%b)"|(?P<number>%b)|(?:true|false|null))%b(?P<end>,|\})'
    % (_SPACE, _PLAIN, _SPACE, _SPACE, _PLAIN, _NUMBER, _SPACE)
)
_OPEN: Final = re.compile(_SPACE + rb"\{")


class Kind(Enum):
    """What a field holds beside the metrics: TEXT and NUMBER are fields that nobody asked for."""

    TIME = "time"
    SERVER = "server"
    TEXT = "text"
    NUMBER = "number"


Field = Kind | Metric


@dataclass(frozen=True, slots=True)
class Cut:
    """The fields of the texts `rows`, which are numbers of texts in rising order.

    `values` are by metric; server ids lie in the texts from `id_starts` to before `id_ends` and are
    not checked.
    """

    rows: Ints
    ts_ms: Ints
    id_starts: Ints
    id_ends: Ints
    values: Mapping[Metric, Floats]


@dataclass(frozen=True, slots=True)
class Delimiters:
    """Where a delimiter lies in texts: `places` of all, `first` of each text among them, `count`.

    Made once for all layouts that share a delimiter.
    """

    places: Ints
    first: Ints
    count: Ints
    # How many each text has, where all have as many; else 0.
    each: int = 0

    @classmethod
    def of(cls, texts: Texts, delimiter: int, expected: int) -> Self:
        """Return the delimiters of the texts; cheapest where each text has `expected` of them."""
        places = texts.places_of(delimiter)
        rows = len(texts.starts)
        if expected and len(places) == rows * expected:
            is_inside = places[::expected] >= texts.starts
            is_inside &= places[expected - 1 :: expected] < texts.ends
            if is_inside.all():
                first = np.arange(0, len(places), expected)
                return cls(places, first, np.full(rows, expected), expected)
        first = np.searchsorted(places, texts.starts)
        return cls(places, first, np.searchsorted(places, texts.ends) - first)

    def at(self, rows: Ints, number: int) -> Ints:
        """Return where the texts `rows` have this delimiter, counted from 0; each has it."""
        if self.each and len(rows) == len(self.first):
            return self.places[number :: self.each]
        return self.places[self.first[rows] + number]


@dataclass(frozen=True, slots=True)
class Layout:
    """Fixed texts and the fields between them: fixed[0], fields[0], fixed[1], ... fixed[-1]."""

    delimiter: int
    fixed: tuple[bytes, ...]
    fields: tuple[Field, ...]
    # For each field but those that end with the text: which delimiter follows it, how far behind.
    _followers: tuple[tuple[int, int] | None, ...] = field(init=False, repr=False)
    _count: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Find what ends each field."""
        sign = bytes([self.delimiter])
        followers: list[tuple[int, int] | None] = []
        passed = self.fixed[0].count(sign)
        for text in self.fixed[1:]:
            distance = text.find(sign)
            followers.append((passed, distance) if distance >= 0 else None)
            passed += text.count(sign)
        object.__setattr__(self, "_followers", tuple(followers))
        object.__setattr__(self, "_count", passed)

    @classmethod
    def of_message(cls, topic: Topic, payload: bytes) -> Self | None:
        """Return the layout of a JSON message that the codec accepted; None where it has none.

        A message has none if it is long, nests, escapes or repeats a key.
        """
        found = _json_fields(payload)
        if found is None:
            return None
        metrics = {metric.name.encode(): metric for metric in topic.metrics}
        fixed, fields, end = [], [], 0
        for name, is_text, start, stop in found:
            kind: Field = Kind.TEXT if is_text else Kind.NUMBER
            if name in metrics:
                kind = metrics[name]
            elif name in (b"ts", b"server_id") and is_text:
                kind = Kind.TIME if name == b"ts" else Kind.SERVER
            fixed.append(payload[end:start])
            fields.append(kind)
            end = stop
        fixed.append(payload[end:])
        if {Kind.TIME, Kind.SERVER} - set(fields):
            return None
        return cls(ord('"'), tuple(fixed), tuple(fields))

    @classmethod
    def of_columns(cls, columns: Sequence[Field]) -> Self:
        """Return the layout of the lines of a table without quotes."""
        return cls(ord(","), (b"", *[b","] * (len(columns) - 1), b""), tuple(columns))

    @property
    def delimiters(self) -> int:
        """How many delimiters a text of this layout has."""
        return self._count

    def cut(self, texts: Texts, found: Delimiters, rows: Ints, times: TimeReader) -> Cut:
        """Return the fields of those among the texts `rows` that have this layout."""
        has_form = (found.count == self._count) & (texts.ends - texts.starts <= MAX_INPUT_BYTES)
        if not has_form.all():
            rows = rows[has_form[rows]]
        spans, fits = self._spans(texts, found, rows)
        if not fits.all():
            rows = rows[fits]
            spans = [(start[fits], end[fits]) for start, end in spans]
        fits = np.ones(len(rows), np.bool_)
        values = {}
        ts_ms = id_starts = id_ends = rows
        for kind, (start, end) in zip(self.fields, spans, strict=True):
            if kind is Kind.TIME:
                ts_ms, is_plain = instants(texts, start, end, times)
                fits &= is_plain
            elif kind is Kind.SERVER:
                id_starts, id_ends = start, end
            elif kind is Kind.TEXT:
                fits &= _are_plain(texts, start, end)
            else:
                value, is_plain = numbers(texts, start, end)
                fits &= is_plain
                if isinstance(kind, Metric):
                    fits &= value <= kind.highest
                    values[kind] = value
        if fits.all():
            return Cut(rows, ts_ms, id_starts, id_ends, values)
        kept = {metric: value[fits] for metric, value in values.items()}
        return Cut(rows[fits], ts_ms[fits], id_starts[fits], id_ends[fits], kept)

    def _spans(
        self, texts: Texts, found: Delimiters, rows: Ints
    ) -> tuple[list[tuple[Ints, Ints]], Flags]:
        """Return where each field starts and ends, and which rows hold the fixed texts.

        No field ends before it starts in a row that holds them: its delimiters rise.
        """
        starts, ends = texts.starts, texts.ends
        if len(rows) < len(starts):
            starts, ends = starts[rows], ends[rows]
        fits = _holds(texts, starts, self.fixed[0])
        start = starts + len(self.fixed[0])
        spans = []
        for text, follower in zip(self.fixed[1:], self._followers, strict=True):
            if follower is None:
                end = ends - len(text)
            else:
                number, distance = follower
                end = found.at(rows, number) - distance
            # A lone delimiter is there, since its place was found.
            if follower is None or len(text) > 1:
                fits &= _holds(texts, end, text)
            spans.append((start, end))
            start = end + len(text)
        fits &= start == ends
        return spans, fits


def _json_fields(payload: bytes) -> list[tuple[bytes, bool, int, int]] | None:
    """Return name, whether it is a text, start and end of the values that may change."""
    opened = _OPEN.match(payload)
    if opened is None or len(payload) > PAD_BYTES // 2:
        return None
    names, found = set(), []
    place = opened.end()
    while match := _FIELD.match(payload, place):
        if match[1] in names:
            return None
        names.add(match[1])
        is_text = match["text"] is not None
        if is_text or match["number"] is not None:
            found.append((match[1], is_text, *match.span("text" if is_text else "number")))
        place = match.end()
        if match["end"] == b"}":
            return found if not payload[place:].strip(b" \t\n\r") else None
    return None


def _holds(texts: Texts, places: Ints, wanted: bytes) -> Flags:
    """Tell where the bytes are those wanted, eight at a time; the last eight may overlap."""
    is_same = np.ones(len(places), np.bool_)
    size = len(wanted)
    if size == 0:
        return is_same
    if size < WORD_BYTES:
        word = int.from_bytes(wanted.rjust(WORD_BYTES, b"\0"), "little")
        found = texts.words_at(places + (size - WORD_BYTES)) & LAST_BYTES[size]
        is_same &= found == np.uint64(word)
        return is_same
    for at in [*range(0, size - WORD_BYTES, WORD_BYTES), size - WORD_BYTES]:
        word = int.from_bytes(wanted[at : at + WORD_BYTES], "little")
        is_same &= texts.words_at(places + at) == np.uint64(word)
    return is_same


def _are_plain(texts: Texts, starts: Ints, ends: Ints) -> Flags:
    """Tell which texts are printable ASCII without quotes and backslashes."""
    content = np.frombuffer(texts.data, np.uint8)
    # One comparison for both ends of the range: what lies below a space wraps round.
    is_strange = (content - np.uint8(ord(" "))) > ord("~") - ord(" ")
    is_strange |= (content == ord("\\")) | (content == ord('"'))
    strange = np.flatnonzero(is_strange)
    return np.equal(np.searchsorted(strange, starts), np.searchsorted(strange, ends))

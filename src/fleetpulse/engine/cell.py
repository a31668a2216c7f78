"""Texts of numbers and instants -> arrays, for the forms that nearly all of them have.

Each function also tells which texts have its form; the others must go the long way, through the
codec. What a text of the form means is what the codec says (tests/property/test_engine_cell.py).
"""

from typing import Final

import numpy as np

from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.reject import Reject
from fleetpulse.engine.text import WORD_BYTES, Flags, Floats, Ints, Texts, Words


def repeated(byte: int) -> np.uint64:
    """Return a word of eight times the same byte."""
    return np.uint64(byte * 0x0101010101010101)


# The last n bytes of a word, which are its highest.
LAST_BYTES: Final = np.array(
    [2**64 - 2 ** (8 * (WORD_BYTES - n)) for n in range(WORD_BYTES + 1)], np.uint64
)
_ZEROS: Final = repeated(ord("0"))
_DOTS: Final = repeated(ord("."))
_ONE: Final = np.uint64(1)
_ZERO: Final = np.uint64(ord("0"))
# By the number of characters up to the dot, of eight; without a dot that is none.
_PLACES: Final = np.array([0, 7, 6, 5, 4, 3, 2, 1, 0])
_SCALES: Final = 10.0**_PLACES
_DOT_BEFORE_LAST: Final = np.uint64(0x80 << 48)
_POWERS: Final = 10 ** np.arange(WORD_BYTES, dtype=np.int64)
_CLOCK_DIGITS: Final = np.uint64(0xFFFF_00FF_FF00_FFFF)
_CLOCK_MARKS: Final = np.uint64(0x0000_3A00_003A_0000)  # the colons of HH:MM:SS
_MS_DIGITS: Final = np.uint64(0x0000_0000_FFFF_FF00)
_MS_MARKS: Final = np.uint64(0x0000_005A_0000_002E)  # the dot and the Z of .fffZ
_MS_TEXT: Final = np.uint64(0x0000_00FF_FFFF_FFFF)
_SECOND_CHARS: Final = len("2025-10-05T20:53:00Z")
_MS_CHARS: Final = len("2025-10-05T20:53:00.000Z")
_HOURS, _MINUTES, _SECONDS = 24, 60, 60
_DATE_CHARS: Final = len("2025-10-05")


def numbers(texts: Texts, starts: Ints, ends: Ints) -> tuple[Floats, Flags]:
    """Return the numbers in texts such as `34.74`, and which texts have that form.

    The form is JSON's without sign and exponent, up to 8 digits before and 7 after the point: 15
    digits in all, for which the quotient of two exact doubles is the nearest double.
    """
    length = ends - starts
    inside = LAST_BYTES[np.clip(length, 0, WORD_BYTES)]
    # The text, or the last eight characters of a longer one, behind zeros.
    shown = (texts.words_at(ends - WORD_BYTES) & inside) | (_ZEROS & ~inside)
    dots = _zero_bytes(shown ^ _DOTS)
    # The first dot's highest bit; a second dot is no digit.
    dot = dots & (~dots + _ONE)
    has_dot = np.minimum(dot, _ONE)
    to_dot = (dot << _ONE) - has_dot
    chars_to_dot = (np.bitwise_count(to_dot) >> np.uint8(3)).astype(np.intp)
    # What stands before the dot moves up and closes the gap.
    digits = (shown & ~to_dot) | (((shown << np.uint64(WORD_BYTES)) | _ZERO) & to_dot)
    whole_length = length - has_dot.view(np.int64) - _PLACES[chars_to_dot]
    is_number = _are_digits(digits) & (dot <= _DOT_BEFORE_LAST) & (length <= WORD_BYTES)
    is_number &= whole_length >= 1
    is_number &= (whole_length == 1) | (texts.bytes_at(starts) != ord("0"))
    values = _digits(digits) / _SCALES[chars_to_dot]
    is_long = length > WORD_BYTES
    if is_long.any():
        values[is_long], is_number[is_long] = _long_numbers(texts, starts[is_long], ends[is_long])
    return values, is_number


def _long_numbers(texts: Texts, starts: Ints, ends: Ints) -> tuple[Floats, Flags]:
    """Return what `numbers` does, in two words: one before the dot and one behind it."""
    length = ends - starts
    tail = texts.words_at(ends - WORD_BYTES)
    inside = LAST_BYTES[np.clip(length, 0, WORD_BYTES)]
    dots = _zero_bytes((tail ^ _DOTS) | ~inside)
    has_dot = dots != 0
    # The first dot's place in the word; a second one is no digit of the fraction.
    below = (dots & (~dots + np.uint64(1))) - np.uint64(1)
    places = np.where(has_dot, 7 - (np.bitwise_count(below) >> 3).astype(np.int64), 0)
    whole_ends = ends - places - has_dot
    whole_length = whole_ends - starts
    whole = _padded(texts.words_at(whole_ends - WORD_BYTES), np.clip(whole_length, 0, WORD_BYTES))
    fraction = _padded(tail, places)
    is_number = _are_digits(whole) & _are_digits(fraction)
    is_number &= (whole_length >= 1) & (whole_length <= WORD_BYTES) & (has_dot == (places > 0))
    is_number &= (whole_length == 1) | (texts.bytes_at(starts) != ord("0"))
    scale = _POWERS[places]
    return (_digits(whole) * scale + _digits(fraction)) / scale, is_number


def instants(texts: Texts, starts: Ints, ends: Ints, times: TimeReader) -> tuple[Ints, Flags]:
    """Return the instants in texts such as `2025-10-05T20:53:00Z`, and which have that form.

    The form is ISO 8601 in UTC, to the second or to three more digits. `times` reads the dates.
    """
    # Servers are sampled together, so that equal instants follow each other and are read once.
    is_new = np.ones(len(starts), np.bool_)
    length = ends - starts
    np.not_equal(length[1:], length[:-1], out=is_new[1:])
    # The first sixteen characters and the last eight are all of a text of that form.
    first, last = texts.blocks_at(starts, 2), texts.words_at(ends - WORD_BYTES)
    is_new[1:] |= (first[1:] != first[:-1]).view(np.uint16)[:, 0] != 0
    is_new[1:] |= last[1:] != last[:-1]
    rows = np.flatnonzero(is_new)
    if 2 * len(rows) > len(starts):
        return _instants(texts, starts, ends, times)
    found, are_instants = _instants(texts, starts[rows], ends[rows], times)
    repeats = np.diff(rows, append=len(starts))
    return np.repeat(found, repeats), np.repeat(are_instants, repeats)


def _instants(texts: Texts, starts: Ints, ends: Ints, times: TimeReader) -> tuple[Ints, Flags]:
    """Return what `instants` does, each text for itself."""
    length = ends - starts
    is_instant = (length == _SECOND_CHARS) | (length == _MS_CHARS)
    clock = texts.words_at(starts + _DATE_CHARS + 1)
    is_instant &= (clock & ~_CLOCK_DIGITS) == _CLOCK_MARKS
    shown = (clock & _CLOCK_DIGITS) | (_ZEROS & ~_CLOCK_DIGITS)
    is_instant &= _are_digits(shown)
    pairs = shown & repeated(0x0F)
    pairs = pairs * np.uint64(10) + (pairs >> np.uint64(8))
    hour, minute, second = (
        ((pairs >> np.uint64(shift)) & np.uint64(0xFF)).astype(np.int64) for shift in (0, 24, 48)
    )
    is_instant &= (hour < _HOURS) & (minute < _MINUTES) & (second < _SECONDS)
    is_instant &= texts.bytes_at(starts + _DATE_CHARS) == ord("T")
    ts_ms = ((hour * _MINUTES + minute) * _SECONDS + second) * 1000
    has_ms = length == _MS_CHARS
    if has_ms.any():
        tail = texts.words_at(starts + _SECOND_CHARS - 1) & _MS_TEXT
        shown = ((tail & _MS_DIGITS) << np.uint64(32)) | _padded_zeros(tail)
        fits = ((tail & ~_MS_DIGITS) == _MS_MARKS) & _are_digits(shown)
        ts_ms += np.where(has_ms & fits, _digits(shown), 0)
        is_instant &= fits | ~has_ms
    is_instant &= has_ms | (texts.bytes_at(starts + _SECOND_CHARS - 1) == ord("Z"))
    return ts_ms + _dates_ms(texts, starts, is_instant, times), is_instant


def _padded_zeros(tail: Words) -> Words:
    # Five leading zeros before the three digits of the milliseconds.
    return np.full_like(tail, _ZEROS & np.uint64(0x0000_00FF_FFFF_FFFF))


def _dates_ms(texts: Texts, starts: Ints, is_instant: Flags, times: TimeReader) -> Ints:
    """Return the dates' midnights; flags off those that are no date."""
    dates = texts.blocks_at(starts, 2)
    dates[:, 1] &= np.uint64(0xFFFF)
    if (dates == dates[:1]).all():
        distinct, which = dates[:1], np.zeros(len(dates), np.int64)
    else:
        distinct, which = np.unique(dates, axis=0, return_inverse=True)
    midnights_ms = np.full(len(distinct), -1, np.int64)
    for number, date in enumerate(distinct):
        text = date.tobytes()[:_DATE_CHARS] + b"T00:00:00Z"
        found = times.read(text.decode("ascii", "replace"))
        if not isinstance(found, Reject):
            midnights_ms[number] = found
    found_ms = midnights_ms[which]
    is_instant &= found_ms >= 0
    return found_ms


def _zero_bytes(words: Words) -> Words:
    """Return words with 0x80 where a byte is zero and 0 elsewhere, without carries."""
    low = repeated(0x7F)
    return ~(((words & low) + low) | words | low)


def _padded(words: Words, count: Ints) -> Words:
    """Return the last `count` characters behind zeros."""
    last = LAST_BYTES[count]
    return (words & last) | (_ZEROS & ~last)


def _are_digits(words: Words) -> Flags:
    high = repeated(0xF0)
    # 0x3 above in a digit, and still when six is added to it, which takes : to ? over the edge.
    above = (words & high) | (((words + repeated(6)) & high) >> np.uint64(4))
    return np.equal(above, repeated(0x33))


def _digits(words: Words) -> Ints:
    """Return the numbers in eight digits each: pairs, then fours, then all, in parallel."""
    found = (words & repeated(0x0F)) * np.uint64(2561) >> np.uint64(8)
    found = (found & np.uint64(0x00FF00FF00FF00FF)) * np.uint64(6553601) >> np.uint64(16)
    found = (found & np.uint64(0x0000FFFF0000FFFF)) * np.uint64(42949672960001) >> np.uint64(32)
    return found.astype(np.int64)

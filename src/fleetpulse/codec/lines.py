"""Bytes -> numbered lines, in bounded memory whatever the input holds."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fleetpulse.codec.field import MAX_INPUT_BYTES


class Line(NamedTuple):
    """One line without its end, numbered from 1; an oversized one is cut a byte past the limit."""

    number: int
    content: bytes


def split_lines(chunks: Iterable[bytes]) -> Iterator[Line]:
    r"""Yield the lines of a file that is read in chunks; blank lines are counted and left out.

    Lines end with LF or CRLF; the last one may lack its end. A line beyond MAX_INPUT_BYTES is cut
    to one byte more than that, so that readers see that it is oversized and memory stays bounded.

    >>> [line.content for line in split_lines([b"a\r\n", b"\nb"])]
    [b'a', b'b']
    """
    number = 0
    rest = b""
    for chunk in chunks:
        parts = (rest + chunk).split(b"\n")
        # One byte more than a line keeps, because that byte may be the CR of its end.
        rest = parts.pop()[: MAX_INPUT_BYTES + 2]
        for part in parts:
            number += 1
            content = part.removesuffix(b"\r")[: MAX_INPUT_BYTES + 1]
            if not _is_blank(content):
                yield Line(number, content)
    content = rest.removesuffix(b"\r")[: MAX_INPUT_BYTES + 1]
    if not _is_blank(content):
        yield Line(number + 1, content)


def _is_blank(content: bytes) -> bool:
    # What followed the blanks of an oversized line is cut off: such a line is never left out.
    return not content.strip() and len(content) <= MAX_INPUT_BYTES

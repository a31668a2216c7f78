import tracemalloc
from collections.abc import Iterator

import pytest

from fleetpulse.codec.field import MAX_INPUT_BYTES
from fleetpulse.codec.lines import Line, split_lines

FULL = b"x" * MAX_INPUT_BYTES


def byte_by_byte(text: bytes) -> Iterator[bytes]:
    return (text[at : at + 1] for at in range(len(text)))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"", []),
        (b"\n", []),
        (b"a", [(1, b"a")]),
        (b"a\n", [(1, b"a")]),
        (b"a\nb", [(1, b"a"), (2, b"b")]),
        (b"a\r\nb\r\n", [(1, b"a"), (2, b"b")]),
        (b"a\r", [(1, b"a")]),
        (b"a\rb\n", [(1, b"a\rb")]),
        (b"a\r\r\n", [(1, b"a\r")]),
        (b" a ", [(1, b" a ")]),
        (b"\n\r\n \t\na\n\nb", [(4, b"a"), (6, b"b")]),
        (b"a\n \r\n ", [(1, b"a")]),
        (b"\x00\n\xff\xfe", [(1, b"\x00"), (2, b"\xff\xfe")]),
    ],
)
def test_lines_are_numbered_and_blank_ones_left_out(
    text: bytes, lines: list[tuple[int, bytes]]
) -> None:
    expected = [Line(*line) for line in lines]
    assert list(split_lines([text])) == expected
    assert list(split_lines(byte_by_byte(text))) == expected
    assert list(split_lines([b"", text, b""])) == expected


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\r"])
def test_a_line_of_the_greatest_length_is_whole(end: bytes) -> None:
    assert [line.content for line in split_lines([FULL + end])] == [FULL]
    assert [line.content for line in split_lines([FULL, end])] == [FULL]


@pytest.mark.parametrize(
    "tail", [b"x", b"\rx", b"\r\r", b"\r\rx", b"xx\r", b"x\rx", b"\r" * 5, b"x" * 5000]
)
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_longer_line_is_seen_to_be_oversized_however_it_is_cut(tail: bytes, end: bytes) -> None:
    text = FULL + tail
    expected = [Line(1, text[: MAX_INPUT_BYTES + 1]), Line(2, b"next")]
    if not end:
        expected = expected[:1]
    for after in (b"", FULL, FULL + tail[:1], FULL + tail):
        whole = text + end + (b"next" if end else b"")
        chunks = [after, whole[len(after) :]]
        assert list(split_lines(chunks)) == expected, len(after)


def test_an_oversized_line_that_begins_with_blanks_is_not_left_out() -> None:
    text = b" " * (MAX_INPUT_BYTES + 1) + b"x\n"
    assert [len(line.content) for line in split_lines([text])] == [MAX_INPUT_BYTES + 1]
    assert [len(line.content) for line in split_lines([text[:-1]])] == [MAX_INPUT_BYTES + 1]


def test_blanks_up_to_the_greatest_length_are_a_blank_line() -> None:
    blanks = b" " * MAX_INPUT_BYTES
    assert list(split_lines([blanks + b"\r\n" + blanks + b"\r"])) == []


def test_memory_is_bounded_for_a_giant_line() -> None:
    chunk = b"x" * (1 << 20)
    tracemalloc.start()
    (line,) = split_lines(chunk for _ in range(200))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(line.content) == MAX_INPUT_BYTES + 1
    assert peak_bytes < 8 << 20


def test_lines_come_before_the_next_chunk_is_asked_for() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"a\nb"
        raise AssertionError("the second chunk was read too early")

    assert next(split_lines(chunks())) == Line(1, b"a")

import json

import pytest

from fleetpulse.codec.rejects import (
    REJECT_EXCERPT_BYTES,
    file_reject_line,
    message_reject_line,
    rejects_file_name,
)
from fleetpulse.domain.reject import Reject, RejectClass

REJECT = Reject(RejectClass.WRONG_TYPE, "cpu_pct is 'x', wanted a number")


def test_a_message_reject_says_where_what_and_why() -> None:
    assert message_reject_line("topic-cpu", 2, 7, REJECT, b"{}") == (
        '{"topic": "topic-cpu", "partition": 2, "offset": 7, "class": "wrong_type", '
        '"reason": "cpu_pct is \'x\', wanted a number", "excerpt": "{}"}\n'
    )


def test_a_file_reject_says_the_line() -> None:
    assert json.loads(file_reject_line("cpu_data.csv", 12, REJECT, b"a,b")) == {
        "file": "cpu_data.csv",
        "line": 12,
        "class": "wrong_type",
        "reason": REJECT.reason,
        "excerpt": "a,b",
    }


def test_a_message_without_a_value_has_an_empty_excerpt() -> None:
    assert json.loads(message_reject_line("t", 0, 0, REJECT, None))["excerpt"] == ""


def test_the_excerpt_is_the_first_kib() -> None:
    raw = b"x" * REJECT_EXCERPT_BYTES + b"y"
    assert REJECT_EXCERPT_BYTES == 1024
    assert json.loads(message_reject_line("t", 0, 0, REJECT, raw))["excerpt"] == "x" * 1024


@pytest.mark.parametrize(
    "raw",
    [
        bytes(range(256)),
        b"\x1b[31m\r\n\x7f",
        "é\u2028\u202e".encode(),
        b"x" * 1023 + "é".encode(),
        b"\xed\xa0\x80",
    ],
)
def test_a_line_is_printable_ascii_whatever_was_found(raw: bytes) -> None:
    line = file_reject_line("name\udcff\x1b.csv", 1, Reject(RejectClass.MALFORMED, "\ud800"), raw)
    assert line.endswith("}\n")
    assert line[:-1].isascii()
    assert line[:-1].isprintable()
    assert json.loads(line)["class"] == "malformed"


def test_what_is_not_utf8_is_shown_in_hexadecimal() -> None:
    found = json.loads(message_reject_line("t", 0, 0, REJECT, b"a\xffb"))
    assert found["excerpt"] == "a\\xffb"


def test_each_role_has_its_file() -> None:
    assert rejects_file_name("consumer1") == "rejects.consumer1.jsonl"

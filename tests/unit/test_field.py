import math

import pytest

from fleetpulse.codec.field import check_number, check_number_text, check_server_id, number_text
from fleetpulse.domain.metric import CPU_PCT, HIGHEST_RATE, NET_IN
from fleetpulse.domain.reject import Reject, RejectClass


def rejected(found: object) -> RejectClass:
    assert isinstance(found, Reject), found
    assert found.reason.isprintable()
    assert len(found.reason) < 250
    return found.reject_class


@pytest.mark.parametrize(
    "server_id", ["a", "0", "server_1", "db-1.example:9100", "A" * 64, "a_", "a:", "9._:-"]
)
def test_a_safe_server_id_is_accepted(server_id: str) -> None:
    assert check_server_id(server_id) is None


@pytest.mark.parametrize(
    "found",
    [
        "",
        "A" * 65,
        "_a",
        ".a",
        "-a",
        ":a",
        " a",
        "a ",
        "a\n",
        "a,b",
        'a"b',
        "a/b",
        "=1+1",
        "é",
        "٣",
        "a\x00",
        "\ud800",
        None,
        True,
        7,
        1.5,
        ["a"],
        {"a": 1},
        b"a",
    ],
)
def test_an_unsafe_server_id_is_rejected(found: object) -> None:
    assert rejected(check_server_id(found)) is RejectClass.BAD_SERVER_ID


@pytest.mark.parametrize("number", [0, 100, 0.0, 100.0, -0.0, 34.74, 5e-324, 99.99999999999999])
def test_a_number_in_range_stays_what_it_is(number: float) -> None:
    found = check_number(CPU_PCT, number)
    assert found is number


@pytest.mark.parametrize("number", [-1, 101, -0.01, 100.00000000000001, 1e308, 10**4000, -5e-324])
def test_a_number_out_of_range_is_rejected(number: float) -> None:
    assert rejected(check_number(CPU_PCT, number)) is RejectClass.OUT_OF_RANGE


def test_a_rate_reaches_up_to_a_hundred_million() -> None:
    assert check_number(NET_IN, HIGHEST_RATE) == 100_000_000
    assert rejected(check_number(NET_IN, HIGHEST_RATE + 1)) is RejectClass.OUT_OF_RANGE


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_rejected(number: float) -> None:
    assert rejected(check_number(CPU_PCT, number)) is RejectClass.NOT_FINITE


@pytest.mark.parametrize("found", [None, True, False, "5", "", [], {}, [5], "\x1b[31m" * 100])
def test_what_is_no_number_is_of_the_wrong_type(found: object) -> None:
    assert rejected(check_number(CPU_PCT, found)) is RejectClass.WRONG_TYPE


@pytest.mark.parametrize("kind", [list, dict])
def test_a_nested_value_is_named_by_its_type(kind: type) -> None:
    deep: object = 1
    for _ in range(100_000):
        deep = [deep] if kind is list else {"a": deep}
    found = check_number(CPU_PCT, deep)
    assert isinstance(found, Reject)
    assert found.reason == f"cpu_pct is {kind.__name__}, wanted a number"


def test_a_reason_says_what_was_found_and_wanted() -> None:
    found = check_number(CPU_PCT, 150.5)
    assert isinstance(found, Reject)
    assert found.reason == "cpu_pct is 150.5, wanted 0 to 100 %"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5", 5),
        (" 5\t", 5),
        ("+5", 5),
        ("005", 5),
        ("-0", 0),
        ("5.", 5.0),
        (".5", 0.5),
        ("34.74", 34.74),
        ("1e2", 100.0),
        ("1E-3", 0.001),
        ("+.5e+1", 5.0),
        ("0" * 30 + "7", 7.0),
        ("5e-999", 0.0),
        ("0." + "3" * 60_000, 1 / 3),
    ],
)
def test_a_number_in_a_cell_is_read(text: str, number: float) -> None:
    found = check_number_text(CPU_PCT, text)
    assert found == number
    assert type(found) is type(number)


@pytest.mark.parametrize(
    ("text", "reject_class"),
    [
        ("", RejectClass.MISSING_FIELD),
        (" \t", RejectClass.MISSING_FIELD),
        ("nan", RejectClass.NOT_FINITE),
        ("NaN", RejectClass.NOT_FINITE),
        ("-inf", RejectClass.NOT_FINITE),
        ("Infinity", RejectClass.NOT_FINITE),
        ("1e999", RejectClass.NOT_FINITE),
        ("9" * 60_000, RejectClass.NOT_FINITE),
        ("-1", RejectClass.OUT_OF_RANGE),
        ("101", RejectClass.OUT_OF_RANGE),
        ("9" * 18, RejectClass.OUT_OF_RANGE),
        ("9" * 19, RejectClass.OUT_OF_RANGE),
        ("abc", RejectClass.WRONG_TYPE),
        ("5%", RejectClass.WRONG_TYPE),
        ("1_0", RejectClass.WRONG_TYPE),
        ("1,5", RejectClass.WRONG_TYPE),
        ("0x10", RejectClass.WRONG_TYPE),
        ("\u0665", RejectClass.WRONG_TYPE),
        ("--5", RejectClass.WRONG_TYPE),
        ("5 5", RejectClass.WRONG_TYPE),
        (".", RejectClass.WRONG_TYPE),
        ("e5", RejectClass.WRONG_TYPE),
        ("true", RejectClass.WRONG_TYPE),
        ("null", RejectClass.WRONG_TYPE),
        ("infinite", RejectClass.WRONG_TYPE),
        ("\x00", RejectClass.WRONG_TYPE),
        ("9" * 60_000 + "x", RejectClass.WRONG_TYPE),
    ],
)
def test_a_cell_without_a_valid_number_is_rejected(text: str, reject_class: RejectClass) -> None:
    assert rejected(check_number_text(CPU_PCT, text)) is reject_class


@pytest.mark.parametrize(
    ("number", "text"),
    [(5, "5"), (5.0, "5.0"), (34.74, "34.74"), (0.1 + 0.2, "0.30000000000000004"), (1e-7, "1e-07")],
)
def test_a_number_is_printed_in_its_shortest_form(number: float, text: str) -> None:
    assert number_text(number) == text

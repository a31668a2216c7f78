import json
from datetime import UTC, date

import pytest

from fleetpulse.codec.field import MAX_INPUT_BYTES
from fleetpulse.codec.message import decode_message, encode_message
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.metric import CPU, DISK, NET, Topic
from fleetpulse.domain.reject import Reject, RejectClass
from fleetpulse.domain.sample import Record

TS_MS = 1_759_697_580_000
GOOD = {"ts": "2025-10-05T20:53:00Z", "server_id": "server_1", "cpu_pct": 34.74}


def decoded(payload: bytes | str | None, topic: Topic = CPU) -> Record | Reject:
    raw = payload.encode() if isinstance(payload, str) else payload
    return decode_message(topic, raw, TimeReader(UTC, date(2025, 10, 5)))


def reject_class(payload: bytes | str | None, topic: Topic = CPU) -> RejectClass:
    found = decoded(payload, topic)
    assert isinstance(found, Reject), found
    assert found.reason.isprintable()
    return found.reject_class


def with_raw(**fields: str) -> str:
    """Return a good message in which some fields hold this raw JSON."""
    texts = {name: json.dumps(value) for name, value in GOOD.items()} | fields
    return "{" + ",".join(f'"{name}":{text}' for name, text in texts.items()) + "}"


def test_a_record_is_a_json_object_without_blanks() -> None:
    assert encode_message(Record(CPU, TS_MS, "server_1", (34.74,))) == (
        b'{"ts":"2025-10-05T20:53:00Z","server_id":"server_1","cpu_pct":34.74}'
    )


def test_metrics_are_in_the_order_of_the_topic() -> None:
    assert encode_message(Record(NET, TS_MS + 50, "a:b.c-d", (1, 2.0))) == (
        b'{"ts":"2025-10-05T20:53:00.050Z","server_id":"a:b.c-d","net_in":1,"net_out":2.0}'
    )


def test_a_record_with_too_few_values_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        encode_message(Record(NET, TS_MS, "a", (1,)))


def test_a_message_is_read() -> None:
    assert decoded(json.dumps(GOOD)) == Record(CPU, TS_MS, "server_1", (34.74,))


def test_fields_are_found_by_name_and_others_ignored() -> None:
    text = (
        '{"net_out":2,"extra":[{"deep":null}],"server_id":"a","ts":1759697580,"cpu_pct":"x",'
        ' "net_in" : 1.5}'
    )
    assert decoded(text, NET) == Record(NET, TS_MS, "a", (1.5, 2))


def test_blanks_around_the_object_do_not_matter() -> None:
    assert decoded(b" \r\n\t" + json.dumps(GOOD, indent=2).encode() + b"\n") == Record(
        CPU, TS_MS, "server_1", (34.74,)
    )


def test_escapes_in_the_server_id_are_read() -> None:
    found = decoded(with_raw(server_id='"\\u0061\\u003a1"'))
    assert isinstance(found, Record)
    assert found.server_id == "a:1"


def test_the_last_of_two_equal_fields_counts() -> None:
    assert decoded('{"cpu_pct":"x",' + with_raw()[1:]) == Record(CPU, TS_MS, "server_1", (34.74,))


@pytest.mark.parametrize(
    ("raw", "value"),
    [("0", 0), ("-0", 0), ("-0.0", -0.0), ("1e2", 100.0), ("100", 100), ("1E-400", 0.0)],
)
def test_every_json_number_in_range_is_read(raw: str, value: float) -> None:
    found = decoded(with_raw(cpu_pct=raw))
    assert isinstance(found, Record)
    assert repr(found.values) == repr((value,))


def test_a_message_without_a_value_is_malformed() -> None:
    assert reject_class(None) is RejectClass.MALFORMED


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b" ",
        b"{",
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf{}",
        json.dumps(GOOD).encode("utf-16"),
        b'{"ts":"\xc3\x28"}',
        b'{"ts":"\xed\xa0\x80"}',
        b'{"ts":"a\nb"}',
        b"{'ts':1}",
        b'{"ts":1,}',
        b'{"ts":01}',
        b'{"ts":.5}',
        b'{"a":1}{"a":1}',
        b"[" * 30_000 + b"]" * 30_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"[" * 60_000,
        b"null",
        b"true",
        b"5",
        b'"text"',
        b"[]",
        b'[{"ts":1}]',
        b"NaN",
    ],
)
def test_what_is_no_json_object_is_malformed(payload: bytes) -> None:
    assert reject_class(payload) is RejectClass.MALFORMED


def test_a_message_of_64_kib_is_read_and_a_longer_one_is_oversized() -> None:
    text = json.dumps(GOOD)
    assert isinstance(decoded(text.ljust(MAX_INPUT_BYTES)), Record)
    assert reject_class(text.ljust(MAX_INPUT_BYTES + 1)) is RejectClass.OVERSIZED


@pytest.mark.parametrize("missing", ["ts", "server_id", "cpu_pct"])
def test_a_missing_field_is_named(missing: str) -> None:
    found = decoded(json.dumps({name: v for name, v in GOOD.items() if name != missing}))
    assert found == Reject(RejectClass.MISSING_FIELD, f"field {missing} is missing")


def test_each_metric_of_the_topic_is_needed() -> None:
    assert reject_class('{"ts":1,"server_id":"a","net_in":1}', NET) is RejectClass.MISSING_FIELD
    assert reject_class('{"ts":1,"server_id":"a","net_out":1}', NET) is RejectClass.MISSING_FIELD


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ('"5"', RejectClass.WRONG_TYPE),
        ("true", RejectClass.WRONG_TYPE),
        ("null", RejectClass.WRONG_TYPE),
        ("[]", RejectClass.WRONG_TYPE),
        ("{}", RejectClass.WRONG_TYPE),
        ("NaN", RejectClass.NOT_FINITE),
        ("Infinity", RejectClass.NOT_FINITE),
        ("-Infinity", RejectClass.NOT_FINITE),
        ("1e400", RejectClass.NOT_FINITE),
        ("-0.001", RejectClass.OUT_OF_RANGE),
        ("100.01", RejectClass.OUT_OF_RANGE),
        ("9" * 4000, RejectClass.OUT_OF_RANGE),
        ("9" * 60_000, RejectClass.MALFORMED),
        ("9" * 60_000 + ".0", RejectClass.NOT_FINITE),
    ],
)
def test_a_bad_number_has_its_class(raw: str, expected: RejectClass) -> None:
    assert reject_class(with_raw(cpu_pct=raw)) is expected


@pytest.mark.parametrize("raw", ['""', '"a b"', "null", "7", '"\\ud800"', '"\\u0000"', "[]"])
def test_a_bad_server_id_has_its_class(raw: str) -> None:
    assert reject_class(with_raw(server_id=raw)) is RejectClass.BAD_SERVER_ID


@pytest.mark.parametrize("raw", ['"25:00:00"', "null", "true", "-1", "1e400", '"\\ud800"', "[]"])
def test_a_bad_time_has_its_class(raw: str) -> None:
    assert reject_class(with_raw(ts=raw)) is RejectClass.BAD_TIME


@pytest.mark.parametrize("field", ["ts", "server_id", "cpu_pct"])
def test_nesting_up_to_the_recursion_limit_is_a_reject(field: str) -> None:
    for depth in range(800, 1050):
        raw = "[" * depth + "]" * depth
        assert isinstance(decoded(with_raw(**{field: raw})), Reject)


def test_numbers_are_checked_before_the_server_id_and_that_before_the_time() -> None:
    assert reject_class(with_raw(cpu_pct='"x"', server_id="7", ts="null")) is RejectClass.WRONG_TYPE
    assert reject_class(with_raw(server_id="7", ts="null")) is RejectClass.BAD_SERVER_ID


def test_a_rejected_message_moves_no_clock() -> None:
    times = TimeReader(UTC, date(2025, 10, 5))
    payload = with_raw(ts='"20:53:00"', cpu_pct="101").encode()
    assert isinstance(decode_message(CPU, payload, times), Reject)
    assert times.last_clock_ms is None


def test_clock_times_go_on_along_the_partition() -> None:
    times = TimeReader(UTC, date(2025, 10, 5))
    found = [
        decode_message(DISK, f'{{"ts":"{ts}","server_id":"a","disk_io":1}}'.encode(), times)
        for ts in ("20:53:00", "00:00:01")
    ]
    assert found == [
        Record(DISK, TS_MS, "a", (1,)),
        Record(DISK, TS_MS + (3 * 3600 + 7 * 60 + 1) * 1000, "a", (1,)),
    ]

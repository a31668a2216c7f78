"""Kafka messages read in Spark columns against the codec: the same samples, the same rejects."""

import datetime as dt
import json
import random
import zoneinfo
from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from fleetpulse.codec.message import decode_message
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.metric import CPU, NET, Topic
from fleetpulse.domain.sample import Record
from fleetpulse.edges.spark.messages import SERVER, TS, MessageForm, with_samples

# PySpark leaves the end of its sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)

DAY = dt.date(2025, 10, 5)
TS_TEXT = '"2025-10-05T20:53:00Z"'
TIMES = [
    *(TS_TEXT, '"2025-10-05 20:53:00Z"', '"2025-10-05T20:53:00.123456789z"', '"2025-10-05"'),
    *('"2025-10-05T22:53:00+02:00"', '"2025-10-05T22:53:00+0200"', '"2025-10-05T22:53:00-02"'),
    *('"2025-10-05T20:53:00"', '"2025-10-05T20:53:00,5Z"', '"2025-10-05T24:00:00Z"'),
    *('"2025-10-05T20:53:60Z"', '"2025-02-29T20:53:00Z"', '"2024-02-29T20:53:00Z"'),
    *('"20:53:00"', '"9:05:00.25"', '"24:00:00"', '"12:60:00"', '"20:53"', '" 20:53:00"'),
    *("1759697580", "1759697580000", "1759697580.001", '"1759697580"', '"1759697580000"'),
    *("0", "-1", "-0", "1e3", "1.7596975800005e9", "99999999999", "100000000000", "1e300"),
    *("253402300799999", "253402300800000", '"0001-01-01T00:00:00Z"', '"9999-12-31T23:59:59Z"'),
    *("true", "null", "[]", "{}", '""', '"now"', '"2025-10-05T20:53:00Z "', '"\uff12025-10-05"'),
]
IDS = [
    *('"a"', '"A:1._-"', f'"{"x" * 64}"', f'"{"x" * 65}"', '""', '"_a"', '"a b"', '"ä"', "1"),
    *("null", '"\\u0061"', '"a\\n"', '"a\\u0000"', '"a"', "[]"),
]
NUMBERS = [
    *("0", "-0", "-0.0", "1", "1.5", "100", "100.0", "100.0000001", "99.99999999999999999", "-1"),
    *("1e2", "1E+1", "1e-9", "-1e-400", "1e400", "0.1234567", "34.740000000000002", "1" * 40),
    *("01", "+1", ".5", "1.", "1e", "0x1", "NaN", "Infinity", "-Infinity", "INF", "nan"),
    *("true", "null", '"1"', "[1]", "{}", "", "1 2", "3.0000000000000004", "12345678901234567"),
    *("100000000", "100000000.01"),
]
WHOLE = [
    *(b"", b" ", b"null", b"[]", b"{}", b"1", b"\xff", b"\xef\xbb\xbf{}", b"\x00", b"{", b'"a"'),
    b'{"ts":1759697580,"server_id":"a","cpu_pct":1,"net_in":1,"net_out":1} x',
    b'{"ts":1759697580,"server_id":"a","cpu_pct":1,"net_in":1,"net_out":1},{}',
    b'{"ts":1759697580,"server_id":"a","cpu_pct":1,"net_in":1,"net_out":1}]',
    b'\t{"ts":1759697580,\r\n"server_id" :"a","cpu_pct":1,"net_in":1,"net_out":1 } ',
    b'{"ts":1759697580,"server_id":"a","cpu_pct":1,"net_in":1,"net_out":1,}',
    b"{'ts':1759697580,'server_id':'a','cpu_pct':1,'net_in':1,'net_out':1}",
    b'{"TS":1759697580,"Server_Id":"a","CPU_PCT":1,"net_in":1,"NET_OUT":1}',
    b'{"ts":1759697580,"server_id":"a","cpu_pct":1,"net_in":1,"net_out":1,"x":{"y":[NaN,1e999]}}',
    b'{"ts":1759697580,"server_id":"a","cpu_pct":1,"net_in":1,"net_out":1,"x":"+I INF"}',
    b'{"ts":1759697580,"server_id":"a","cpu_pct":1,"net_in":1,"net_out":1,"x":"\xc3\x28"}',
    b'{"ts":1759697580,"server_id":"a","cpu_pct":1,"net_in":1,"net_out":1,"x":"\\ud800"}',
    b'{"ts":1759697580,"server_id":"a","cpu_pct":1,"net_in":1,"net_out":1} // x',
    # Of a key that is there twice, the second one counts.
    b'{"ts":1,"ts":1759697580,"cpu_pct":"x","server_id":"a","cpu_pct":1,"net_in":1,"net_out":1}',
    b'{"ts":1759697580,"ts":"x","server_id":"a","cpu_pct":1,"net_in":1,"net_out":1}',
    None,
]


def message(topic: Topic, ts: str, server_id: str, numbers: list[str]) -> bytes:
    metrics = zip((metric.name for metric in topic.metrics), numbers, strict=True)
    fields = [f'"ts":{ts}', f'"server_id":{server_id}', *(f'"{k}":{v}' for k, v in metrics)]
    return ("{" + ",".join(fields) + "}").encode()


def messages(topic: Topic) -> Iterator[bytes | None]:
    """Each oddity alone in a message that is good otherwise, and many of them together."""
    count = len(topic.metrics)
    good = ["1.5"] * count
    yield from WHOLE
    yield from (message(topic, ts, '"a"', good) for ts in TIMES)
    yield from (message(topic, TS_TEXT, server_id, good) for server_id in IDS)
    for place in range(count):
        for number in NUMBERS:
            yield message(topic, TS_TEXT, '"a"', [*good[:place], number, *good[place + 1 :]])
    fill = len(message(topic, TS_TEXT, '"a"', good)) + len(',"x":""')
    for size in (65_536, 65_537):
        padded = message(topic, TS_TEXT, '"a"', good)[:-1] + b',"x":"' + b"x" * (size - fill)
        yield padded + b'"}'
    rng = random.Random(1)  # noqa: S311  made-up data
    whole = message(topic, TS_TEXT, '"a"', good)
    for _ in range(500):
        # A byte of a good message is lost, doubled or another one.
        at = rng.randrange(len(whole))
        piece = rng.choice([b"", whole[at : at + 1] * 2, bytes([rng.randrange(256)])])
        yield whole[:at] + piece + whole[at + 1 :]
        numbers = [rng.choice([*NUMBERS[:10], *good * 10]) for _ in range(count)]
        ts, server_id = rng.choice([*TIMES, *[TS_TEXT] * 50]), rng.choice([*IDS, *IDS[:3] * 5])
        yield message(topic, ts, server_id, numbers)


@pytest.mark.parametrize("topic", [CPU, NET], ids=lambda topic: topic.key)
@pytest.mark.parametrize("zone", ["UTC", "Europe/Paris"])
def test_spark_takes_what_the_codec_takes(spark: SparkSession, topic: Topic, zone: str) -> None:
    tz = dt.UTC if zone == "UTC" else zoneinfo.ZoneInfo(zone)
    payloads = list(messages(topic))
    # Kafka's own time of a message is what a clock time is near to.
    near = dt.datetime(2025, 10, 5, 12, tzinfo=tz).astimezone(dt.UTC)
    rows = [(number, payload) for number, payload in enumerate(payloads)]
    raw = spark.createDataFrame(rows, "number int, value binary").selectExpr(
        "number", "value", f"timestamp_millis({int(near.timestamp() * 1000)}) as timestamp"
    )
    form = MessageForm(topic, "0123456789abcdef", tz)
    names = [metric.name for metric in topic.metrics]
    columns = with_samples(raw, form, ("number",)).select("number", TS, SERVER, *names)
    found = {number: cells for number, *cells in columns.collect()}
    taken = 0
    for number, payload in enumerate(payloads):
        wanted = decode_message(topic, payload, TimeReader(tz, DAY))
        ts_ms, server_id, *texts = found[number]
        if isinstance(wanted, Record):
            values = tuple(float(json.loads(text)) for text in texts)
            assert (ts_ms, server_id, values) == (wanted.ts_ms, wanted.server_id, wanted.values), (
                payload
            )
            taken += 1
        else:
            assert ts_ms is None, (payload, wanted)
    assert taken > len(payloads) // 5

import json
from datetime import UTC, date

from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.codec.intake import Intake
from fleetpulse.codec.message import decode_message, encode_message
from fleetpulse.codec.plain import PlainForm
from fleetpulse.codec.table import record_line
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.metric import TOPICS, Topic
from fleetpulse.domain.position import Partition
from fleetpulse.domain.reject import Reject, RejectLimit
from fleetpulse.domain.sample import Record

DAY = date(2025, 10, 5)
INSTANTS = st.sampled_from([0, 1_759_697_580_000, 1_759_697_580_001, 253_402_300_799_999])
# Numbers as JSON may spell them, most of them close to what the shortcut takes.
DIGITS = st.text("0123456789", min_size=1, max_size=10)
NUMBERS = st.one_of(
    st.floats(0, 101).map(repr),
    st.integers(0, 1000).map(str),
    st.decimals(0, 101, places=4).map(str),
    st.decimals(0, 200_000_000, places=5).map(str),
    st.tuples(DIGITS, DIGITS).map(".".join),
    st.sampled_from(["0", "-0", "-0.0", "1e2", "0.0001", "0.00001", "100", "100.0", "99.9999"]),
)
STAMPS = st.sampled_from(
    [
        "2025-10-05T20:53:00Z",
        "2025-10-05T20:53:00.000Z",
        "2025-10-05T20:53:00.1Z",
        "2025-10-05T20:53:00.100Z",
        "2025-10-05T20:53:00z",
        "2025-10-05 20:53:00",
        "2025-10-05T22:53:00+02:00",
        "20:53:00",
    ]
)
SERVERS = st.sampled_from(["server_1", "a:b-c.d", "-bad", "", "x" * 64, "x" * 65, "a\\u0062"])


@st.composite
def messages(draw: st.DrawFn, topic: Topic) -> bytes:
    values = ",".join(f'"{metric.name}":{draw(NUMBERS)}' for metric in topic.metrics)
    space = draw(st.sampled_from(["", "", "", " ", "\n"]))
    text = f'{{"ts":"{draw(STAMPS)}","server_id":"{draw(SERVERS)}",{space}{values}}}'
    return text.encode() + draw(st.sampled_from([b"", b"", b"", b" ", b"x"]))


def the_long_way(topic: Topic, payloads: list[bytes]) -> tuple[list[bytes], int]:
    times = TimeReader(UTC, DAY)
    found = [decode_message(topic, payload, times) for payload in payloads]
    lines = [record_line(one).encode() for one in found if not isinstance(one, Reject)]
    return lines, len(found) - len(lines)


@given(st.sampled_from(TOPICS), st.data())
def test_the_shortcut_and_the_long_way_give_the_same_lines(
    topic: Topic, data: st.DataObject
) -> None:
    payloads = data.draw(st.lists(messages(topic), max_size=20)) * 2
    desk = Intake({"name": topic}, RejectLimit(1.0, 1_000_000), UTC, DAY)
    desk.read(Partition("name", 0), range(len(payloads)), payloads, None)
    drained = desk.drain()
    lines, rejects = the_long_way(topic, payloads)
    assert drained.rows.get(topic, []) == lines
    assert len(drained.reject_lines) == rejects


@given(st.sampled_from(TOPICS), INSTANTS, st.data())
def test_messages_of_our_producers_take_the_shortcut(
    topic: Topic, ts_ms: int, data: st.DataObject
) -> None:
    values = tuple(
        data.draw(st.integers(0, 99).flatmap(lambda n: st.sampled_from([n, n + 0.5, n + 0.25])))
        for _ in topic.metrics
    )
    record = Record(topic, ts_ms, "server_1", values)
    form = PlainForm.of(topic)
    form.learn(record)
    assert form.line(encode_message(record)) == record_line(record).encode()


def test_an_unknown_instant_goes_the_long_way() -> None:
    payload = json.dumps({"ts": "2025-10-05T20:53:00Z", "server_id": "a", "cpu_pct": 1})
    assert PlainForm.of(TOPICS[0]).line(payload.replace(" ", "").encode()) is None

"""Messages and lines that are read by columns hold what the codec finds in each of them."""

import datetime as dt
import json
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from fleetpulse.codec.message import decode_message, encode_message
from fleetpulse.codec.table import read_table
from fleetpulse.domain.clock import TimeReader, iso_text
from fleetpulse.domain.metric import CPU_PCT, NET, TOPICS, Topic
from fleetpulse.domain.reject import Reject
from fleetpulse.domain.sample import Record
from fleetpulse.engine.columns import Columns
from fleetpulse.engine.intake import TopicIntake
from fleetpulse.engine.layout import Delimiters, Layout
from fleetpulse.engine.server import Servers
from fleetpulse.engine.table import Table
from fleetpulse.engine.text import Texts

START_MS = 1_759_697_580_000
instants = st.one_of(
    st.integers(0, 100).map(lambda second: START_MS + second * 1000),
    st.integers(0, 200_000_000).map(lambda ms: START_MS + ms),
)
server_ids = st.sampled_from(
    ["server_1", "s", "web-7.example:9100", "x" * 64, "x" * 63, "12345678"]
)
numbers = st.one_of(
    st.integers(0, 100),
    st.integers(0, 10_000).map(lambda number: number / 100),
    st.floats(0, 100),
    st.sampled_from([0.0, -0.0, 1e-7, 100.0, 99.9999999]),
)


@st.composite
def records(draw: st.DrawFn, topic: Topic) -> Record:
    values = tuple(draw(numbers) for _ in topic.metrics)
    return Record(topic, draw(instants), draw(server_ids), values)


def times() -> TimeReader:
    return TimeReader(dt.UTC, dt.date(2025, 10, 5))


def dumped(record: Record, extra: dict[str, object], order: int, style: int) -> bytes:
    """The record as other programs write it: their order, spaces and further fields."""
    fields: dict[str, object] = {"ts": iso_text(record.ts_ms), "server_id": record.server_id}
    for metric, value in zip(record.topic.metrics, record.values, strict=True):
        fields[metric.name] = value
    fields |= extra
    names = list(fields)
    names = names[order % len(names) :] + names[: order % len(names)]
    separators = [(",", ":"), (", ", ": "), (" ,\n", "\t:  ")][style % 3]
    return json.dumps({name: fields[name] for name in names}, separators=separators).encode()


extras = st.dictionaries(
    st.sampled_from(["host", "seq", "up", "note", "ts2", "cpu_pct2"]),
    st.one_of(
        st.integers(-5, 10**12),
        st.floats(allow_nan=True),
        st.text(max_size=5),
        st.sampled_from(["eu-1", "plain text", 'a"b', "a\\b", "ü", None, True, [], {"a": 1}]),
    ),
    max_size=3,
)


@st.composite
def payloads(draw: st.DrawFn, topic: Topic) -> list[bytes | None]:
    """Runs of messages of a few programs, some of them broken somewhere."""
    found: list[bytes | None] = []
    for _ in range(draw(st.integers(1, 4))):
        is_ours = draw(st.booleans())
        extra, order, style = draw(extras), draw(st.integers(0, 5)), draw(st.integers(0, 2))
        for record in draw(st.lists(records(topic), min_size=1, max_size=6)):
            payload = encode_message(record) if is_ours else dumped(record, extra, order, style)
            for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
                place = draw(st.integers(0, len(payload) - 1))
                byte = bytes([draw(st.sampled_from(b'"\\{}:,.0129-+eE\0\n\xff aZT_'))])
                cut = draw(st.integers(0, 2))
                payload = payload[:place] + byte + payload[place + cut :]
            found.append(draw(st.sampled_from([payload] * 20 + [None, b"", b"[]", b"20:53:00"])))
    return found


def as_facts(servers: Servers, columns: Columns) -> list[tuple[int, bytes, int, float]]:
    ids = servers.ids(columns.servers).tolist()
    rows, ts_ms, values = columns.rows.tolist(), columns.ts_ms.tolist(), columns.values.tolist()
    return list(zip(rows, ids, ts_ms, values, strict=True))


def decoded(
    topic: Topic, given_payloads: Sequence[bytes | None]
) -> tuple[list[tuple[int, bytes, int, float]], list[tuple[int, Reject]]]:
    facts, rejects, reader = [], [], times()
    for row, payload in enumerate(given_payloads):
        found = decode_message(topic, payload, reader)
        if isinstance(found, Reject):
            rejects.append((row, found))
        else:
            facts.append((row, found.server_id.encode(), found.ts_ms, float(found.values[0])))
    return facts, rejects


@given(st.data(), st.sampled_from(TOPICS))
def test_messages_hold_what_the_codec_finds_in_each(data: st.DataObject, topic: Topic) -> None:
    intake, servers, reader = TopicIntake(topic, topic.metrics[0]), Servers(), times()
    # Several batches, so that layouts learnt from one are used for the next.
    for _ in range(3):
        batch = data.draw(payloads(topic))
        read = intake.read(batch, servers, reader)
        facts, rejects = decoded(topic, batch)
        assert as_facts(servers, read.columns) == facts
        assert list(read.rejects) == rejects
        event(f"rejects: {bool(rejects)}")


FORMS = {
    "ours": b'{"ts":"2025-10-05T20:53:00Z","server_id":"server_1","net_in":34.74,"net_out":5}',
    "another": b"""{ "net_out": 12.5, "host": "eu-1", "seq": 12, "up": true,
        "ts": "2025-10-05T20:53:00.125Z", "net_in": 7, "server_id": "a.b:c-d", "down": false }""",
}


@pytest.mark.parametrize("byte", b'"\\{}:,.09-x\0 ')
@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
def test_a_change_of_any_one_byte_means_what_the_codec_says(form: bytes, byte: int) -> None:
    one = bytes([byte])
    changed = [
        form[:place] + instead + form[place + cut :]
        for place in range(len(form) + 1)
        for instead, cut in ((one, 1), (one, 0), (b"", 1), (one, 2), (one, len(form)))
    ]
    intake, servers = TopicIntake(NET, NET.metrics[0]), Servers()
    intake.read([form], servers, times())
    read = intake.read(changed, servers, times())
    facts, rejects = decoded(NET, changed)
    assert as_facts(servers, read.columns) == facts
    assert list(read.rejects) == rejects


@given(st.data())
def test_one_message_tells_the_form_of_the_others(data: st.DataObject) -> None:
    order, style = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 2))
    two_places = st.integers(0, 10_000).map(lambda number: number / 100)
    made = []
    for seq, value in enumerate(data.draw(st.lists(two_places, min_size=1))):
        record = Record(NET, START_MS + seq, f"server_{seq}", (value, value))
        made.append(dumped(record, {"host": f"eu-{seq}", "seq": seq, "up": True}, order, style))
    layout = Layout.of_message(NET, made[0])
    assert layout is not None
    texts = Texts.of(made)
    delimiters = Delimiters.of(texts, layout.delimiter, layout.delimiters)
    cut = layout.cut(texts, delimiters, np.arange(len(made)), times())
    assert cut.rows.tolist() == list(range(len(made)))


cells = st.one_of(
    st.sampled_from(
        ["", " ", "1", "100", "34.74", " 34.74 ", "1e1", "+5", "abc", "nan", "101", '"7"']
    ),
    st.integers(0, 10_000).map(lambda number: repr(number / 100)),
)
stamps = st.one_of(
    instants.map(iso_text),
    st.sampled_from(["23:59:58", "00:00:02", "24:00:00", "1759697580", "", "2025-10-05 20:53:00"]),
)


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    names = draw(st.permutations(["ts", "server_id", "cpu_pct"]))
    others = draw(st.lists(st.sampled_from(["note", "mem_pct"]), unique=True))
    names = [*names, *others]
    ends = st.sampled_from(["\n", "\n", "\n", "\r\n"])
    text = draw(st.sampled_from(["", "\n", "\ufeff"])) + ",".join(names) + draw(ends)
    for _ in range(draw(st.integers(0, 12))):
        values = {
            "ts": draw(stamps),
            "server_id": draw(st.one_of(server_ids, st.sampled_from(["", "ü", "a b", " s "]))),
            "cpu_pct": draw(cells),
            "note": draw(st.sampled_from(["", "plain", '"a,b"', "ü", "back\\slash", '"'])),
            "mem_pct": "5",
        }
        line = ",".join(values[name] for name in names)
        text += draw(st.sampled_from([line] * 8 + ["", "  ", line + ",", "x" * 66_000])) + draw(
            ends
        )
    return text.encode()[: -1 if draw(st.booleans()) and text.endswith("\n") else None]


@given(tables(), st.lists(st.integers(0, 400)))
@example(b"ts,server_id,cpu_pct\n2025-10-05T20:53:00Z,a,1\n2025-10-05T20:53:00Z,a,2", [])
def test_lines_hold_what_the_codec_finds_in_each(content: bytes, cuts: list[int]) -> None:
    servers, table = Servers(), Table(CPU_PCT, times(), "cpu.csv")
    edges = [0, *sorted(cuts), len(content)]
    chunks = [content[start:end] for start, end in pairwise(edges)]
    facts, rejects = [], []
    for chunk in [*chunks, None]:
        found = table.finish(servers) if chunk is None else table.read(chunk, servers)
        read, lines, line_numbers = found
        for row, name, ts_ms, value in as_facts(servers, read.columns):
            facts.append((line_numbers[row], name, ts_ms, value))
        rejects += [(line_numbers[row], reject, lines[row]) for row, reject in read.rejects]

    expected, expected_rejects = [], []
    for line, row in read_table([content], [CPU_PCT], times(), "cpu.csv"):
        expected_rejects += [(line.number, reject, line.content) for reject in row.rejects]
        if (one := row.sample) is not None:
            value = float(one.values[CPU_PCT.name])
            expected.append((line.number, one.server_id.encode(), one.ts_ms, value))
    assert facts == expected
    assert rejects == expected_rejects
    assert table.samples == len(expected)
    assert table.first_ms == min((ts_ms for _, _, ts_ms, _ in expected), default=None)
    assert table.last_ms == max((ts_ms for _, _, ts_ms, _ in expected), default=None)

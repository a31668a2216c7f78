import csv
import io
import json
from datetime import UTC, date
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from fleetpulse.codec.field import MAX_INPUT_BYTES, number_text
from fleetpulse.codec.lines import Line, split_lines
from fleetpulse.codec.message import decode_message, encode_message
from fleetpulse.codec.rejects import message_reject_line
from fleetpulse.codec.table import read_table, record_line, sample_line, table_header
from fleetpulse.codec.windows import TimeFormat, format_windows
from fleetpulse.domain.aggregate import WindowRow
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.metric import CPU, CPU_MEM, METRICS, TOPICS, Metric, Topic
from fleetpulse.domain.reject import Reject, RejectClass
from fleetpulse.domain.sample import Record, Sample, split

instants = st.integers(0, 253_402_300_799_999)
server_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", fullmatch=True)


def values_of(metric: Metric) -> st.SearchStrategy[int | float]:
    return st.one_of(st.integers(0, metric.highest), st.floats(0, metric.highest))


@st.composite
def records(draw: st.DrawFn) -> Record:
    topic = draw(st.sampled_from(TOPICS))
    values = tuple(draw(values_of(metric)) for metric in topic.metrics)
    return Record(topic, draw(instants), draw(server_ids), values)


@st.composite
def whole_samples(draw: st.DrawFn) -> Sample:
    values = {metric.name: draw(values_of(metric)) for metric in METRICS}
    return Sample(draw(instants), draw(server_ids), values)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=6,
)
messages = st.dictionaries(
    st.sampled_from(["ts", "server_id", "cpu_pct", "mem_pct", "net_in", "net_out", "disk_io", "x"]),
    st.one_of(
        json_values,
        st.sampled_from(["2025-10-05T20:53:00Z", "20:53:00", "server_1", 1_759_697_580, 5, -0.0]),
    ),
).map(lambda found: json.dumps(found).encode())


def times() -> TimeReader:
    return TimeReader(UTC, date(2025, 10, 5))


def same(one: Record | Reject, other: Record | Reject) -> bool:
    """Tell whether two are alike down to int or float and the sign of a zero."""
    return repr(one) == repr(other)


@given(records())
def test_a_record_comes_back_from_its_message(record: Record) -> None:
    assert same(decode_message(record.topic, encode_message(record), times()), record)


@given(records())
def test_a_message_is_json_for_everybody(record: Record) -> None:
    found = json.loads(encode_message(record))
    names = [metric.name for metric in record.topic.metrics]
    assert list(found) == ["ts", "server_id", *names]
    assert [found[name] for name in names] == list(record.values)


@given(st.lists(records(), max_size=10), st.sampled_from(TOPICS))
def test_records_come_back_from_their_table(given_records: list[Record], topic: Topic) -> None:
    mine = [record for record in given_records if record.topic == topic]
    text = table_header(topic.metrics) + "".join(map(record_line, mine))
    found = list(read_table([text.encode()], topic.metrics, times(), "here"))
    assert all(row.rejects == () for _, row in found)
    back = [record for _, row in found if row.sample for record in split_of(row.sample, topic)]
    assert list(map(repr, back)) == list(map(repr, mine))


def split_of(sample: Sample, topic: Topic) -> list[Record]:
    return [record for record in split(sample) if record.topic == topic]


@given(st.lists(whole_samples(), max_size=5), st.permutations(list(METRICS)))
def test_samples_come_back_from_a_dataset_of_any_column_order(
    given_samples: list[Sample], order: list[Metric]
) -> None:
    plain = [table_header(METRICS), *map(sample_line, given_samples)]
    rows = [line.rstrip("\n").split(",") for line in plain]
    columns = [1, *(2 + METRICS.index(metric) for metric in order), 0]
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(
        [[row[column] for column in columns] for row in rows]
    )
    found = list(read_table([text.getvalue().encode()], METRICS, times(), "here"))
    wanted = [
        (s.ts_ms, s.server_id, {k: repr(v) for k, v in s.values.items()}) for s in given_samples
    ]
    assert [
        (s.ts_ms, s.server_id, {k: repr(v) for k, v in s.values.items()})
        for s in (row.sample for _, row in found)
        if s is not None
    ] == wanted


@given(st.one_of(st.integers(0, 10**8), st.floats(allow_nan=False)))
def test_a_number_reads_back_from_its_text(number: float) -> None:
    text = number_text(number)
    assert repr(type(number)(text)) == repr(number)


def check(found: Record | Reject, payload: bytes | None) -> None:
    if isinstance(found, Record):
        for metric, value in zip(found.topic.metrics, found.values, strict=True):
            assert type(value) in (int, float)
            assert 0 <= value <= metric.highest
        assert same(decode_message(found.topic, encode_message(found), times()), found)
        return
    assert found.reason.isprintable()
    assert len(found.reason) < 300
    line = message_reject_line("topic", 0, 0, found, payload)
    assert line[:-1].isprintable()
    assert json.loads(line)["class"] == found.reject_class


@given(st.one_of(st.binary(), messages), st.sampled_from(TOPICS))
@example(b"", CPU)
@example(b"\xef\xbb\xbf{}", CPU)
@example(b'{"ts":1,"server_id":"a","cpu_pct":' + b"9" * 60_000 + b"}", CPU)
@example(b'{"ts":' + b"9" * 4300 + b',"server_id":"a","cpu_pct":1}', CPU)
@example(b'{"ts":"\\ud800","server_id":"a","cpu_pct":1}', CPU)
@example(b'{"a":' * 9000, CPU)
def test_any_bytes_are_a_record_or_a_reject(payload: bytes, topic: Topic) -> None:
    check(decode_message(topic, payload, times()), payload)


@given(records(), st.data())
def test_a_damaged_message_is_a_record_or_a_reject(record: Record, data: st.DataObject) -> None:
    payload = bytearray(encode_message(record))
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    check(decode_message(record.topic, bytes(payload), times()), bytes(payload))


@given(st.integers(0, 5000))
def test_a_longer_message_than_the_limit_is_oversized(beyond: int) -> None:
    found = decode_message(CPU, b" " * (MAX_INPUT_BYTES + 1 + beyond), times())
    assert isinstance(found, Reject)
    assert found.reject_class is RejectClass.OVERSIZED


HEADER = table_header(METRICS).encode()
csv_bytes = st.one_of(
    st.binary(),
    st.text(st.sampled_from('a1.,"\r\n -\x00é'), max_size=60).map(str.encode),
)


@given(csv_bytes)
def test_any_bytes_below_a_header_are_samples_and_rejects(text: bytes) -> None:
    lines = [line for line in text.split(b"\n") if line.strip()]
    found = list(read_table([HEADER + text], METRICS, times(), "here"))
    assert [line.content for line, _ in found] == [line.removesuffix(b"\r") for line in lines]
    for _, row in found:
        # Nothing vanishes: what is no sample has a reason.
        assert row.sample or row.rejects
        assert all(reject.reason.isprintable() for reject in row.rejects)


@given(csv_bytes)
def test_any_bytes_are_a_table_or_a_wrong_file(text: bytes) -> None:
    error = None
    try:
        list(read_table([text], METRICS, times(), "here"))
    except UsageError as err:
        error = err
    assert error is None or str(error).isprintable()


@given(
    st.text(st.sampled_from("a \r\n"), max_size=60).map(str.encode),
    st.lists(st.integers(0, 60)),
)
def test_the_chunks_of_a_file_change_no_line(text: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(text)]
    chunks = [text[start:end] for start, end in pairwise(edges)]
    parts = [part.removesuffix(b"\r") for part in text.split(b"\n")]
    wanted = [Line(at, part) for at, part in enumerate(parts, 1) if part.strip()]
    assert list(split_lines(chunks)) == wanted
    assert list(split_lines([text])) == wanted


@given(
    st.lists(
        st.tuples(
            st.integers(MAX_INPUT_BYTES - 2, MAX_INPUT_BYTES + 3),
            st.sampled_from([b"x", b" ", b"\r"]),
            st.text(st.sampled_from("x \r"), max_size=4).map(str.encode),
        ),
        min_size=1,
        max_size=2,
    ),
    st.lists(st.integers(0, 2 * MAX_INPUT_BYTES), max_size=4),
    st.lists(st.integers(MAX_INPUT_BYTES - 2, MAX_INPUT_BYTES + 6), max_size=2),
)
def test_the_chunks_change_no_line_near_the_greatest_length(
    shapes: list[tuple[int, bytes, bytes]], cuts: list[int], near: list[int]
) -> None:
    text = b"\n".join(fill * length + tail for length, fill, tail in shapes)
    edges = [0, *sorted(cut for cut in [*cuts, *near] if cut < len(text)), len(text)]
    chunks = [text[start:end] for start, end in pairwise(edges)]
    whole = [part.removesuffix(b"\r") for part in text.split(b"\n")]
    wanted = [
        Line(at, part[: MAX_INPUT_BYTES + 1])
        for at, part in enumerate(whole, 1)
        if part.strip() or len(part) > MAX_INPUT_BYTES
    ]
    assert list(split_lines(chunks)) == wanted


cells = st.none() | st.integers(0, 10**10)


@given(
    st.lists(
        st.builds(
            lambda server_id, start_ms, numbers, alert: WindowRow(
                CPU_MEM, server_id, start_ms, start_ms + 30_000, numbers, alert
            ),
            server_ids,
            st.integers(0, 4_000_000_000_000),
            st.tuples(cells, cells),
            st.text(st.characters(exclude_categories=["Cs"])),
        ),
        max_size=5,
    ),
    st.sampled_from([TimeFormat.ISO, TimeFormat.CLOCK]),
)
def test_window_rows_read_back_from_their_file(rows: list[WindowRow], form: TimeFormat) -> None:
    text = "".join(format_windows(CPU_MEM, rows, 30_000, form, UTC))
    found = list(csv.reader(io.StringIO(text, newline=""), strict=True))[1:]
    assert [(cell[0], cell[3], cell[4], cell[5]) for cell in found] == [
        (row.server_id, *map(decimal_text, row.hundredths), row.alert) for row in rows
    ]
    if form is TimeFormat.ISO:
        read = [(times().read(cell[1]), times().read(cell[2])) for cell in found]
        assert read == [(row.start_ms, row.end_ms) for row in rows]


def decimal_text(hundredths: int | None) -> str:
    if hundredths is None:
        return ""
    digits = f"{hundredths:03d}"
    return f"{digits[:-2]}.{digits[-2:]}"

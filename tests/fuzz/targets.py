"""What must hold for any bytes: each target takes some, and fails where a parser breaks a promise.

A promise is more than "no crash": what is accepted reads back the same once it is printed, what is
refused has one class or one explained error, and nothing takes a second or grows without bound.
"""

import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from fleetpulse.codec.field import MAX_INPUT_BYTES
from fleetpulse.codec.intake import Intake
from fleetpulse.codec.lines import split_lines
from fleetpulse.codec.message import decode_message, encode_message
from fleetpulse.codec.replay_position import decode_position, encode_position
from fleetpulse.codec.table import (
    TableRow,
    read_table,
    record_line,
    sample_line,
    table_header,
)
from fleetpulse.codec.window_message import decode_window, encode_window
from fleetpulse.config import load
from fleetpulse.config.source import MAX_BYTES
from fleetpulse.config.written import written
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.errors import (
    AlreadyRunning,
    DamagedState,
    DataChanged,
    DiskError,
    UsageError,
)
from fleetpulse.domain.metric import METRICS, TOPICS, Metric, Topic
from fleetpulse.domain.position import Partition, Position
from fleetpulse.domain.reject import Reject, RejectClass, RejectLimit
from fleetpulse.domain.sample import Record, split
from fleetpulse.edges.sink import Batch, FileSpec, Lines, committed_bytes, open_sink
from fleetpulse.edges.sink.state import read_state
from fleetpulse.roles.gap_mark import GapMark

# Of processor time: a busy machine makes nothing slow but itself.
LONGEST_S = 1.0
DAY = date(2025, 10, 5)
# Of a table, looked at one by one: the others are alike.
MOST_ROWS = 20
MOST_LINES, MOST_CHUNKS = 300, 100
# Beyond every limit on a single input.
MOST_BYTES = 70_000


def expanded(data: bytes) -> tuple[int, bytes]:
    """Return a choice and the bytes it is for, repeated where the choice's high bit says so.

    So a few bytes are also a message of 64 KiB, and a bracket is ten thousand of them.
    """
    if not data:
        return 0, b""
    choice, rest = data[0], data[1:]
    if choice & 0x80 and rest:
        at, part, times = rest[0], rest[1:9], 1 << (rest[0] % 17)
        rest = rest[9:]
        cut = at % (len(rest) + 1)
        rest = (rest[:cut] + part * times + rest[cut:])[:MOST_BYTES]
    return choice & 0x7F, rest


def times() -> TimeReader:
    return TimeReader(UTC, DAY)


# Messages


def message(data: bytes) -> None:
    """A Kafka message of one of the four topics, or a closed window's."""
    choice, payload = expanded(data)
    if choice % 5 == len(TOPICS):
        check_window(payload)
        return
    topic = TOPICS[choice % 5]
    found = decode_message(topic, payload, times())
    if isinstance(found, Reject):
        assert found.reject_class is wanted_class(topic, payload, found.reject_class), found
        assert found.reason.isprintable(), found
        assert len(found.reason) < 300, found
    else:
        check_record(found)
    check_intake(topic, payload, found)


def wanted_class(topic: Topic, payload: bytes, found: RejectClass) -> RejectClass:
    """Return the class that a second look gives; where it gives none, the one that was found."""
    if len(payload) > MAX_INPUT_BYTES:
        return RejectClass.OVERSIZED
    try:
        value = json.loads(payload.decode())
    except (ValueError, RecursionError):
        return RejectClass.MALFORMED
    if not isinstance(value, dict):
        return RejectClass.MALFORMED
    names = [metric.name for metric in topic.metrics]
    if not {"ts", "server_id", *names} <= set(value):
        return RejectClass.MISSING_FIELD
    classes = [wanted_number(metric, value[metric.name]) for metric in topic.metrics]
    assert any(classes) or found in (RejectClass.BAD_SERVER_ID, RejectClass.BAD_TIME), found
    return next((one for one in classes if one), found)


def wanted_number(metric: Metric, number: object) -> RejectClass | None:
    if isinstance(number, bool) or not isinstance(number, int | float):
        return RejectClass.WRONG_TYPE
    if isinstance(number, float) and not math.isfinite(number):
        return RejectClass.NOT_FINITE
    return None if 0 <= number <= metric.highest else RejectClass.OUT_OF_RANGE


def check_record(record: Record) -> None:
    for metric, value in zip(record.topic.metrics, record.values, strict=True):
        assert type(value) in (int, float)
        assert 0 <= value <= metric.highest
    again = decode_message(record.topic, encode_message(record), times())
    assert repr(again) == repr(record)
    text = table_header(record.topic.metrics) + record_line(record)
    ((_, row),) = read_table([text.encode()], record.topic.metrics, times(), "here")
    assert row.sample is not None
    assert repr([one for one in split(row.sample) if one.topic is record.topic]) == repr([record])


def check_intake(topic: Topic, payload: bytes, found: Record | Reject) -> None:
    """A message is in one line, whichever way it goes: twice, so that the shortcut is taken too."""
    where = Partition("topic", 0)
    desk = Intake({"topic": topic}, RejectLimit(1.0, 1000), UTC, DAY)
    desk.read(where, [0, 1], [payload, payload], None)
    drained = desk.drain()
    rows = drained.rows.get(topic, [])
    assert len(rows) + len(drained.reject_lines) == 2
    assert sum(drained.rejects.values()) == len(drained.reject_lines)
    if isinstance(found, Reject):
        for line in drained.reject_lines:
            assert line.endswith("\n")
            assert line[:-1].isprintable()
            assert json.loads(line)["class"] == found.reject_class
    else:
        assert rows[0].count(b"\n") == 1
        # A clock time goes on from the one before, here from itself.
        assert set(rows) == {record_line(found).encode()}


def check_window(payload: bytes) -> None:
    found = decode_window(payload)
    if isinstance(found, Reject):
        assert found.reject_class is RejectClass.MALFORMED
        return
    with suppress(ValueError, OverflowError):
        # An instant beyond the years that can be printed.
        assert decode_window(encode_window(found)) == found


# Settings


def settings(data: bytes) -> None:
    """A settings file, and a value from the environment."""
    choice, text = expanded(data)
    environ = {}
    if choice % 4 == 1:
        text, _, value = text.partition(b"\0")
        environ = {"FLEETPULSE__WINDOW__SIZE_S": value.decode(errors="replace").replace("\0", "")}
    with scratch() as folder:
        file = folder / "config.yaml"
        file.write_bytes(text)
        try:
            loaded = load(file, environ)
        except UsageError as err:
            check_explained(str(err), str(file), "environment FLEETPULSE__", "settings")
            return
        assert len(text) <= MAX_BYTES
        plain = loaded.settings.model_dump(exclude={"security"})
        file.write_text(written(loaded.settings, {}, "again"), encoding="utf-8")
        assert load(file, {}).settings.model_dump(exclude={"security"}) == plain


def check_explained(message_text: str, *places: str) -> None:
    """Each line of a message says where, and none plays tricks with a terminal."""
    for line in message_text.splitlines():
        assert line.startswith(places), message_text
        assert line.isprintable(), repr(line)


# Tables


def table(data: bytes) -> None:
    """A CSV file: with its own header, or below ours."""
    choice, text = expanded(data)
    metrics = METRICS if choice % 2 else TOPICS[choice // 2 % 4].metrics
    if choice % 3:
        text = table_header(metrics).encode() + text
    text = b"\n".join(text.split(b"\n")[:MOST_LINES])
    size = choice % 7 + 1
    edges = [*range(0, min(len(text), MOST_CHUNKS * size), size), len(text)]
    chunks = [text[start:end] for start, end in pairwise(edges)]
    found = read_or_error([text], metrics)
    assert read_or_error(chunks, metrics) == found
    if isinstance(found, str):
        check_explained(found, "here: ")
        return
    assert len(found) == sum(1 for _ in split_lines([text])) - 1
    for row in found[:MOST_ROWS]:
        check_row(row)


def read_or_error(chunks: list[bytes], metrics: Sequence[Metric]) -> list[TableRow] | str:
    try:
        return [row for _, row in read_table(chunks, metrics, times(), "here")]
    except UsageError as err:
        return str(err)


def check_row(row: TableRow) -> None:
    assert row.sample or row.rejects
    assert all(reject.reason.isprintable() for reject in row.rejects)
    if row.sample is None:
        assert len(row.rejects) >= 1
        return
    text = table_header(METRICS) + sample_line(row.sample)
    ((_, again),) = read_table([text.encode()], METRICS, times(), "here")
    assert again.sample is not None
    assert repr(again.sample.ts_ms) == repr(row.sample.ts_ms)
    assert again.sample.server_id == row.sample.server_id
    assert {name: repr(value) for name, value in again.sample.values.items()} == {
        name: repr(value) for name, value in row.sample.values.items()
    }


# State

SINK_FILES = (FileSpec("cpu_data.csv", "ts,server_id,cpu_pct\n"), FileSpec("rejects.c.jsonl"))
PATCHED = ("c.state.db", "c.state.db", "c.state.db-wal", "c.lock")
REFUSALS = (AlreadyRunning, DamagedState, DataChanged, DiskError, UsageError)


def state(data: bytes) -> None:
    """What a role reads of itself: notes, and the files of a sink with some bytes changed."""
    choice, content = expanded(data)
    match choice % 8:
        case 0:
            with suppress(DamagedState):
                position = decode_position(content, "here")
                assert decode_position(encode_position(position), "here") == position
        case 1:
            with suppress(DamagedState):
                mark = GapMark.unpack(content, "here")
                assert GapMark.unpack(mark.pack(), "here") == mark
        case _:
            check_patched(PATCHED[choice % 4], content)


def check_patched(name: str, patches: bytes) -> None:
    """Open a sink, some bytes of a file of which were changed: it opens or says why not.

    Three bytes of a patch say where, one how long it is. Whatever comes of it, no row is touched.
    """
    with scratch() as folder:
        for other, whole in sink_left_behind().items():
            (folder / other).write_bytes(patched(whole, patches) if other == name else whole)
        rows = (folder / "cpu_data.csv").read_bytes()
        with suppress(*REFUSALS):
            committed_bytes(folder / "cpu_data.csv")
        with suppress(*REFUSALS):
            read_state(folder / "c.state.db")
        assert (folder / "cpu_data.csv").read_bytes() == rows
        try:
            with open_sink(folder, "c", SINK_FILES) as sink:
                sink.notes()
                assert all(type(one.next_offset) is int for one in sink.positions.values())
                assert all(type(n) is int for n in sink.counters.values())
        except REFUSALS as err:
            check_explained(str(err), str(folder))
        assert (folder / "cpu_data.csv").read_bytes() == rows


@lru_cache(maxsize=1)
def sink_left_behind() -> dict[str, bytes]:
    """Return the files of a sink that was killed after some commits."""
    with scratch() as folder, open_sink(folder, "c", SINK_FILES) as sink:
        for number in range(3):
            lines = {"cpu_data.csv": Lines(b"2025-10-05T20:53:00Z,a,1\n", 1)}
            position = Position(Partition("topic-cpu", 0), "id", number + 1)
            sink.commit(Batch(lines, [position], {"malformed": 1}, {"gap": b"{}"}))
            sink.tidy()
        return {
            path.name: path.read_bytes() for path in folder.iterdir() if path.name[-4:] != "-shm"
        }


def patched(whole: bytes, patches: bytes) -> bytes:
    found = bytearray(whole)
    rest = memoryview(patches)
    while len(rest) > 4 and found:
        at, size = int.from_bytes(rest[:3]) % len(found), rest[3] % 16 + 1
        found[at : at + size] = rest[4 : 4 + size]
        rest = rest[4 + size :]
    return bytes(found)


# The means


@contextmanager
def scratch() -> Iterator[Path]:
    """Give an empty folder, in memory where that is known how."""
    memory = "/dev/shm"  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory if os.path.isdir(memory) else None) as name:  # noqa: PTH112
        yield Path(name)


def in_time(target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Return a target that also fails where it takes a second."""

    def timed(data: bytes) -> None:
        start_s = time.thread_time()
        target(data)
        took_s = time.thread_time() - start_s
        assert took_s < LONGEST_S, f"{took_s:.1f} s for {len(data)} bytes"

    return timed


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: in_time(one) for one in (message, settings, table, state)
}

METRIC_NAMES = [metric.name for metric in METRICS]
# What a fuzzer would find out only after a long time.
WORDS: dict[str, list[str]] = {
    "message": [
        *(f'"{name}":' for name in ("ts", "server_id", *METRIC_NAMES)),
        '"2025-10-05T20:53:00Z"',
        '"20:53:00"',
        '"server_1"',
        "NaN",
        "-Infinity",
        "1e309",
        "true",
        '"family":"cpu_mem"',
        '"metrics":{',
        '"exact":"1/2"',
        '"reported":1.50',
        '"samples":1',
        '"closed_by":"watermark"',
        "\\ud800",
        "1e999999",
    ],
    "settings": [
        "window:",
        "size_s:",
        "hosts:",
        "&a",
        "*a",
        "!!python/object:",
        "<<:",
        "- ",
        "{",
        "|",
    ],
    "table": [*METRIC_NAMES, "ts", "timestamp", "server_id", "2025-10-05T20:53:00Z", '"', "\r\n"],
    "state": [
        '"v":1',
        '"next_sample":',
        '"date":"2025-10-05"',
        '"sizes_bytes":{',
        "SQLite format 3",
    ],
}

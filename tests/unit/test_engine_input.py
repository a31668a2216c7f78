"""Layouts, tables and server numbers where the property tests do not look."""

import datetime as dt

import numpy as np
import pytest

from fleetpulse.codec.message import encode_message
from fleetpulse.domain.aggregate import Arithmetic
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.metric import CPU, CPU_MEM, CPU_PCT, MEM_PCT
from fleetpulse.domain.position import Partition
from fleetpulse.domain.reject import RejectClass
from fleetpulse.domain.rule import Operator, RuleSet, Threshold
from fleetpulse.domain.sample import Record
from fleetpulse.domain.window import WindowSpec
from fleetpulse.engine import Engine, Liveness, Table, first_instant
from fleetpulse.engine.intake import TopicIntake
from fleetpulse.engine.layout import Layout
from fleetpulse.engine.server import Servers
from fleetpulse.engine.text import Texts

DAY = dt.date(2025, 10, 5)
START_MS = 1_759_697_580_000
RULES = RuleSet(
    CPU_MEM,
    (
        Threshold(CPU_PCT, Operator.AT_LEAST, 80_000_000, "hot"),
        Threshold(MEM_PCT, Operator.AT_LEAST, 89_000_000, "full"),
    ),
    "both",
)
HEADER = b"ts,server_id,cpu_pct\n"


def times() -> TimeReader:
    return TimeReader(dt.UTC, DAY)


def table_of(times_of_file: TimeReader | None = None) -> Table:
    return Table(CPU_PCT, times_of_file or times(), "cpu_data.csv")


@pytest.mark.parametrize(
    "payload",
    [
        b'{"ts":"2025-10-05T20:53:00Z","server_id":"a","cpu_pct":1,"cpu_pct":2}',
        b'{"ts":"2025-10-05T20:53:00Z","server_id":"a","cpu_pct":1,"x":[1]}',
        b'{"ts":"2025-10-05T20:53:00Z","server_id":"a","cpu_pct":1,"x":"\\n"}',
        b'{"ts":1759697580,"server_id":"a","cpu_pct":1}',
        b'{"ts":"2025-10-05T20:53:00Z","server_id":"a","cpu_pct":1,"x":"' + b"x" * 2000 + b'"}',
        b'{"ts":"2025-10-05T20:53:00Z","server_id":"a","cpu_pct":1}}',
        b"[]",
    ],
    ids=["repeats a key", "nests", "escapes", "epoch", "is long", "goes on", "is no object"],
)
def test_a_message_that_is_not_flat_and_plain_has_no_layout(payload: bytes) -> None:
    assert Layout.of_message(CPU, payload) is None


def test_fixed_words_may_change_from_program_to_program() -> None:
    payload = b'{"ts":"2025-10-05T20:53:00Z","server_id":"a","up":true,"cpu_pct":1,"x":null}'
    layout = Layout.of_message(CPU, payload)
    assert layout is not None
    assert b',"up":true,"cpu_pct":' in layout.fixed[2]


def test_a_quote_too_many_in_one_message_does_not_make_up_for_one_too_few_in_another() -> None:
    good = encode_message(Record(CPU, START_MS, "a", (34.74,)))
    payloads = [good, good + b'"', good, good.replace(b'"', b"", 1), good]
    read = TopicIntake(CPU, CPU_PCT).read(payloads, Servers(), times())
    assert read.columns.rows.tolist() == [0, 2, 4]
    assert [row for row, _ in read.rejects] == [1, 3]


def test_text_behind_a_known_form_is_malformed() -> None:
    good = b'{"ts":"2025-10-05T20:53:00Z","server_id":"a","cpu_pct":1,"up":null}'
    intake, servers = TopicIntake(CPU, CPU_PCT), Servers()
    intake.read([good], servers, times())
    read = intake.read([good, good + b" ", good + b"1", good + b"}"], servers, times())
    assert read.columns.rows.tolist() == [0, 1]
    assert [row for row, _ in read.rejects] == [2, 3]


def test_broken_messages_among_good_ones_cost_only_themselves() -> None:
    good = encode_message(Record(CPU, START_MS, "a", (34.74,)))
    payloads: list[bytes | None] = [good, b'"', good, None, good + b'"', b'""""""""""', good]
    read = TopicIntake(CPU, CPU_PCT).read(payloads, Servers(), times())
    assert read.columns.rows.tolist() == [0, 2, 6]
    assert [row for row, _ in read.rejects] == [1, 3, 4, 5]


def test_a_message_beyond_the_size_limit_is_oversized_in_every_form() -> None:
    form = '{"ts":"2025-10-05T20:53:00Z","server_id":"a","cpu_pct":1,"note":"%s"}'
    intake, servers = TopicIntake(CPU, CPU_PCT), Servers()
    intake.read([(form % "x").encode()], servers, times())
    read = intake.read([(form % ("x" * size)).encode() for size in (5, 70_000)], servers, times())
    assert read.columns.rows.tolist() == [0]
    assert [reject.reject_class for _, reject in read.rejects] == [RejectClass.OVERSIZED]


def test_more_forms_than_are_remembered_are_still_read() -> None:
    intake, servers = TopicIntake(CPU, CPU_PCT), Servers()
    for turn in range(3):
        for number in range(8):
            text = '{"ts":"2025-10-05T20:53:00Z","server_id":"a","cpu_pct":%d,"k%d":%d}'
            read = intake.read([(text % (turn, number, turn)).encode()] * 3, servers, times())
            assert read.columns.values.tolist() == [turn] * 3


def test_an_id_with_a_zero_byte_is_not_the_id_without_it() -> None:
    servers = Servers()
    texts = Texts.of([b"a", b"a\0", b"", b"x" * 65, b"a"])
    for expected_new in ([b"a"], []):
        numbers, new = servers.find(texts, texts.starts, texts.ends)
        assert numbers.tolist() == [0, -1, -1, -1, 0]
        assert new == expected_new


def test_many_servers_keep_their_numbers_while_the_table_grows() -> None:
    servers = Servers()
    names = [b"server_%d" % number for number in range(20_000)]
    texts = Texts.of(names)
    half = slice(0, 10_000)
    first, _ = servers.find(texts, texts.starts[half], texts.ends[half])
    found, new = servers.find(texts, texts.starts, texts.ends)
    assert first.tolist() == list(range(10_000))
    assert found.tolist() == list(range(20_000))
    assert new == names[10_000:]
    assert servers.ids(found).tolist() == names


def test_kept_servers_are_found_under_their_new_numbers_and_the_others_are_new() -> None:
    servers = Servers()
    texts = Texts.of([b"a", b"b" * 20, b"c", b"d"])
    servers.find(texts, texts.starts, texts.ends)
    servers.keep(np.array([1, 3]))
    found, new = servers.find(texts, texts.starts, texts.ends)
    assert (found.tolist(), new) == ([2, 0, 3, 1], [b"a", b"c"])
    assert servers.ranks().tolist() == [1, 3, 0, 2]


def test_a_table_without_a_line_or_a_needed_column_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"^cpu_data.csv: the file is empty"):
        table_of().finish(Servers())
    with pytest.raises(UsageError, match=r"^cpu_data.csv: the header lacks cpu_pct"):
        table_of().read(b"ts,server_id\n", Servers())


def test_a_line_that_never_ends_takes_bounded_memory_and_is_oversized() -> None:
    table, servers = table_of(), Servers()
    table.read(HEADER, servers)
    for _ in range(10):
        read, lines, _ = table.read(b"x" * 50_000, servers)
        assert not len(lines)
    read, lines, numbers = table.finish(servers)
    assert [reject.reject_class for _, reject in read.rejects] == [RejectClass.OVERSIZED]
    assert (list(numbers), len(lines[0])) == ([2], 64 * 1024 + 1)
    assert len(lines.texts.data) < 2 * 64 * 1024


def test_lines_can_be_taken_in_part() -> None:
    _, lines, _ = table_of().read(HEADER + b"a\nb\r\nc\n", Servers())
    assert lines[1:] == [b"a", b"b", b"c"]


def test_the_first_instant_of_a_file_is_its_earliest() -> None:
    text = HEADER + b"2025-10-05T20:53:10Z,a,1\n2025-10-05T20:53:00Z,b,2\n"
    assert first_instant(table_of(), [text[:30], text[30:]]) == START_MS
    assert first_instant(table_of(), [HEADER]) is None


def test_files_are_counted_like_messages() -> None:
    engine = Engine(RULES, lambda _: WindowSpec(), Arithmetic.EXACT, Liveness(None), dt.UTC, DAY)
    where = Partition("cpu_data.csv", 0)
    engine.assign({where: CPU}, 0)
    table = table_of()
    text = HEADER + b"2025-10-05T20:53:00Z,a,90\nbad\n2999-10-05T20:53:05Z,a,80"
    first = engine.receive_table(where, table, text)
    last = engine.receive_table(where, table, None)
    assert (first.accepted, last.accepted) == (1, 1)
    (refusal,) = first.refusals
    assert (refusal.offset, refusal.payload) == (3, b"bad")
    assert refusal.reject.reject_class is RejectClass.MALFORMED
    assert next(row.alert for row in engine.finish().rows()) == "hot"
    assert table.samples == 2

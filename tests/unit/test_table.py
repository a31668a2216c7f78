from collections.abc import Sequence
from datetime import UTC, date

import pytest

from fleetpulse.codec.field import MAX_INPUT_BYTES
from fleetpulse.codec.table import (
    TableRow,
    read_header,
    read_table,
    record_file_name,
    record_line,
    sample_line,
    table_header,
)
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.metric import CPU, CPU_PCT, METRICS, NET, TOPICS, Metric
from fleetpulse.domain.reject import Reject, RejectClass
from fleetpulse.domain.sample import Record, Sample

TS_MS = 1_759_697_580_000
HEADER = "ts,server_id,cpu_pct,mem_pct,net_in,net_out,disk_io"
ROW = "2025-10-05T20:53:00Z,server_1,34.74,50,1.5,2,3"
VALUES = {"cpu_pct": 34.74, "mem_pct": 50, "net_in": 1.5, "net_out": 2, "disk_io": 3}
SAMPLE = Sample(TS_MS, "server_1", VALUES)


def times() -> TimeReader:
    return TimeReader(UTC, date(2025, 10, 5))


def table(text: str | bytes, metrics: Sequence[Metric] = METRICS) -> list[TableRow]:
    raw = text if isinstance(text, bytes) else text.encode()
    return [row for _, row in read_table([raw], metrics, times(), "data.csv")]


def row(line: str | bytes) -> TableRow:
    raw = line if isinstance(line, bytes) else line.encode()
    (found,) = table(HEADER.encode() + b"\n" + raw)
    return found


def reject_classes(found: TableRow) -> list[RejectClass]:
    assert all(reject.reason.isprintable() for reject in found.rejects)
    return [reject.reject_class for reject in found.rejects]


def header_error(text: str | bytes, metrics: Sequence[Metric] = METRICS) -> str:
    with pytest.raises(UsageError) as caught:
        table(text, metrics)
    message = str(caught.value)
    assert message.startswith("data.csv: ")
    assert "wanted the columns ts, server_id, " in message
    assert message.isprintable()
    return message


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}\n{ROW}\n",
        f"{HEADER}\n{ROW}",
        f"{HEADER}\r\n{ROW}\r\n",
        f"\ufeff{HEADER}\n{ROW}\n",
        f"\n\n{HEADER}\n\n{ROW}\n\n",
        f"{HEADER.upper()}\n{ROW}\n",
        f"{HEADER.replace('ts', 'timestamp')}\n{ROW}\n",
        f"{HEADER.replace(',', ' , ')}\n{ROW.replace(',', ' , ')}\n",
        (
            '"ts","server_id","cpu_pct","mem_pct","net_in","net_out","disk_io"\n'
            '"2025-10-05T20:53:00Z","server_1","34.74","50","1.5","2","3"\n'
        ),
        (
            "disk_io,note,net_out,net_in,mem_pct,cpu_pct,server_id,ts\n"
            '3,"a ""quoted"", text",2,1.5,50,34.74,server_1,2025-10-05T20:53:00Z\n'
        ),
        f"{HEADER},,\n{ROW},,\n",
        f"{HEADER},note,note\n{ROW},1,2\n",
    ],
)
def test_every_spelling_of_a_table_reads_alike(text: str) -> None:
    assert table(text) == [TableRow(SAMPLE)]


def test_rows_come_with_their_line_numbers() -> None:
    text = f"\n{HEADER}\n\n{ROW}\n \n{ROW}".encode()
    found = list(read_table([text[:70], text[70:]], METRICS, times(), "data.csv"))
    assert [line.number for line, _ in found] == [4, 6]
    assert found[0][0].content == ROW.encode()


def test_a_table_without_rows_is_empty() -> None:
    assert table(HEADER) == []


def test_only_the_wanted_metrics_are_read() -> None:
    assert table(f"{HEADER}\n{ROW}", [CPU_PCT]) == [
        TableRow(Sample(TS_MS, "server_1", {"cpu_pct": 34.74}))
    ]


def test_a_column_that_is_not_wanted_may_be_there_twice() -> None:
    text = "ts,server_id,cpu_pct,mem_pct,mem_pct\n2025-10-05T20:53:00Z,a,1,x,y"
    assert table(text, [CPU_PCT]) == [TableRow(Sample(TS_MS, "a", {"cpu_pct": 1}))]


@pytest.mark.parametrize("text", ["", "\n", "\r\n \n"])
def test_an_empty_file_is_named(text: str) -> None:
    assert "the file is empty" in header_error(text)


def test_a_missing_column_is_named_with_what_was_found() -> None:
    message = header_error("ts,cpu_pct,mem_pct,net_in,net_out\n")
    assert "the header lacks server_id, disk_io; found 'ts, cpu_pct, mem_pct" in message


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (f"{HEADER},timestamp", "ts"),
        (f"{HEADER},TS", "ts"),
        (f"{HEADER},cpu_pct", "cpu_pct"),
        (f"server_id,{HEADER}", "server_id"),
    ],
)
def test_a_wanted_column_that_is_there_twice_is_named(header: str, name: str) -> None:
    assert f"the header names {name} twice" in header_error(header)


@pytest.mark.parametrize("extra", [b"\x1b[31m", b"\x00", b"\x07"])
def test_control_characters_of_a_header_reach_no_terminal(extra: bytes) -> None:
    header_error(b"ts," + extra)
    header_error(b"ts,ts," + extra)


@pytest.mark.parametrize(
    ("header", "what"),
    [
        (b"\xff\xfet\x00s\x00", "malformed (not UTF-8 at byte 0"),
        (b'ts,"server_id', "malformed (not CSV"),
        (b"x" * 100_000, "oversized"),
        (b"\xef\xbb\xbf\n", "lacks ts, server_id"),
        (b"\x89PNG\r\n\x1a\n", "malformed"),
    ],
)
def test_a_header_that_is_no_text_is_explained(header: bytes, what: str) -> None:
    assert what in header_error(header)


def test_a_header_is_read_on_its_own() -> None:
    reader = read_header(HEADER.encode(), METRICS, times(), "data.csv")
    assert reader.read(ROW.encode()) == TableRow(SAMPLE)
    with pytest.raises(UsageError, match="the file is empty"):
        read_header(None, METRICS, times(), "data.csv")


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("", RejectClass.MISSING_FIELD),
        ("abc", RejectClass.WRONG_TYPE),
        ("NaN", RejectClass.NOT_FINITE),
        ("101", RejectClass.OUT_OF_RANGE),
    ],
)
def test_a_bad_number_rejects_its_cell_alone(cell: str, expected: RejectClass) -> None:
    found = row(ROW.replace("34.74", cell))
    others = {name: value for name, value in VALUES.items() if name != "cpu_pct"}
    assert found.sample == Sample(TS_MS, "server_1", others)
    assert reject_classes(found) == [expected]
    assert found.rejects[0].reason.startswith("cpu_pct is ")


def test_a_row_of_bad_numbers_is_no_sample() -> None:
    found = row("2025-10-05T20:53:00Z,server_1,x,,NaN,-1,1e9")
    assert found.sample is None
    assert reject_classes(found) == [
        RejectClass.WRONG_TYPE,
        RejectClass.MISSING_FIELD,
        RejectClass.NOT_FINITE,
        RejectClass.OUT_OF_RANGE,
        RejectClass.OUT_OF_RANGE,
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (ROW.replace("server_1", "server 1"), RejectClass.BAD_SERVER_ID),
        (ROW.replace("server_1", ""), RejectClass.BAD_SERVER_ID),
        (ROW.replace("20:53:00", "25:00:00"), RejectClass.BAD_TIME),
        (ROW.replace("2025-10-05T20:53:00Z", ""), RejectClass.BAD_TIME),
        (ROW.rsplit(",", 1)[0], RejectClass.MALFORMED),
        (ROW + ",", RejectClass.MALFORMED),
        ("x", RejectClass.MALFORMED),
        (ROW + '"', RejectClass.WRONG_TYPE),
        (ROW.replace("server_1", '"server_1'), RejectClass.MALFORMED),
        (ROW.replace("server_1", '"server_1"x'), RejectClass.MALFORMED),
        (ROW.replace("server_1", '"server_1",\r'), RejectClass.MALFORMED),
        (ROW.encode() + b"\xff", RejectClass.MALFORMED),
        ("\x00" * 10, RejectClass.MALFORMED),
        ("x" * (MAX_INPUT_BYTES + 1), RejectClass.OVERSIZED),
        ("x" * 1_000_000, RejectClass.OVERSIZED),
    ],
)
def test_a_bad_row_has_its_class(line: str | bytes, expected: RejectClass) -> None:
    found = row(line)
    assert reject_classes(found) == [expected]
    if expected is not RejectClass.WRONG_TYPE:
        assert found.sample is None


def test_a_row_of_64_kib_is_read() -> None:
    text = HEADER + ",note\n" + ROW + ","
    padded = text + "x" * (MAX_INPUT_BYTES - len(ROW) - 1)
    assert table(padded) == [TableRow(SAMPLE)]
    assert reject_classes(table(padded + "x")[0]) == [RejectClass.OVERSIZED]


def test_a_bad_row_says_that_alone() -> None:
    assert reject_classes(row("25:00:00,server 1,x,x,x,x,x")) == [RejectClass.BAD_SERVER_ID]
    assert reject_classes(row("25:00:00,server_1,x,x,x,x,x")) == [RejectClass.BAD_TIME]


def test_a_short_row_says_how_many_cells_were_wanted() -> None:
    assert row("a,b").rejects == (
        Reject(RejectClass.MALFORMED, "2 cells, wanted 7 as in the header"),
    )


def test_bad_rows_do_not_stop_the_table() -> None:
    rows = table(f"{HEADER}\nx\n{ROW}\n" + "x" * 100_000 + f"\n{ROW}\n")
    assert [found.sample for found in rows] == [None, SAMPLE, None, SAMPLE]


def test_clock_times_go_on_along_the_file() -> None:
    text = "timestamp,server_id,cpu_pct\n20:53:00,a,1\n00:00:01,a,2\n23:59:59,a,3\n"
    seconds = [(row.sample.ts_ms - TS_MS) // 1000 for row in table(text, [CPU_PCT]) if row.sample]
    assert seconds == [0, 3 * 3600 + 7 * 60 + 1, 3 * 3600 + 6 * 60 + 59]


def test_a_record_is_a_line_below_its_header() -> None:
    assert table_header(NET.metrics) == "ts,server_id,net_in,net_out\n"
    assert table_header(METRICS) == HEADER + "\n"
    assert record_line(Record(NET, TS_MS, "a", (1.5, 2))) == "2025-10-05T20:53:00Z,a,1.5,2\n"
    assert record_line(Record(CPU, TS_MS + 1, "a", (1e-7,))) == (
        "2025-10-05T20:53:00.001Z,a,1e-07\n"
    )


def test_a_sample_is_a_line_with_empty_cells_for_what_is_absent() -> None:
    assert sample_line(SAMPLE) == ROW + "\n"
    assert sample_line(Sample(TS_MS, "a", {"net_in": 0})) == "2025-10-05T20:53:00Z,a,,,0,,\n"


def test_each_topic_has_its_file() -> None:
    assert [record_file_name(topic) for topic in TOPICS] == [
        "cpu_data.csv",
        "mem_data.csv",
        "net_data.csv",
        "disk_data.csv",
    ]

import csv
import io
from datetime import UTC
from zoneinfo import ZoneInfo

import pytest

from fleetpulse.codec.windows import (
    TimeFormat,
    format_windows,
    window_cells,
    windows_file_name,
)
from fleetpulse.domain.aggregate import WindowRow
from fleetpulse.domain.metric import CPU_MEM, NET_DISK

START_MS = 1_759_697_580_000  # 2025-10-05T20:53:00Z
DAY_MS = 86_400_000


def window(
    hundredths: tuple[int | None, int | None] = (5970, 1), alert: str = "", start_ms: int = START_MS
) -> WindowRow:
    return WindowRow(CPU_MEM, "server_1", start_ms, start_ms + 30_000, hundredths, alert)


def lines(
    *rows: WindowRow,
    span_ms: int = 30_000,
    time_format: TimeFormat = TimeFormat.AUTO,
    zone: str = "UTC",
) -> list[str]:
    return list(format_windows(CPU_MEM, rows, span_ms, time_format, ZoneInfo(zone)))


def test_a_family_has_its_header() -> None:
    assert lines() == ["server_id,window_start,window_end,avg_cpu,avg_mem,alert\n"]
    assert list(format_windows(NET_DISK, [], 0, TimeFormat.AUTO, UTC)) == [
        "server_id,window_start,window_end,max_net_in,max_disk_io,alert\n"
    ]


def test_a_row_has_two_decimals_always() -> None:
    assert lines(window((5970, 1)))[1] == "server_1,20:53:00,20:53:30,59.70,0.01,\n"
    assert lines(window((0, 10_000_000_000)))[1].endswith(",0.00,100000000.00,\n")
    assert lines(window((109, 110)))[1].endswith(",1.09,1.10,\n")


def test_a_side_without_samples_is_an_empty_cell() -> None:
    assert lines(window((None, 100)))[1].endswith("20:53:30,,1.00,\n")
    assert lines(window((100, None)))[1].endswith("20:53:30,1.00,,\n")


def test_rows_keep_the_order_given() -> None:
    rows = [window(start_ms=START_MS + ms) for ms in (20_000, 0, 10_000)]
    assert [line.split(",")[1] for line in lines(*rows)[1:]] == ["20:53:20", "20:53:00", "20:53:10"]


@pytest.mark.parametrize(
    "label",
    [
        "Intense resource spike",
        "cpu, mem",
        'the "big" one',
        '"',
        ",",
        "a\nb",
        "a\rb",
        "a\r\nb",
        " lead and trail ",
        "überlast, 高",
        "a'b;c\td",
    ],
)
def test_any_label_reads_back_from_its_cell(label: str) -> None:
    text = "".join(lines(window(alert=label), window(alert=label)))
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert [row[-1] for row in rows] == ["alert", label, label]
    assert {len(row) for row in rows} == {6}


def test_a_plain_label_is_not_quoted_and_others_are_as_in_rfc_4180() -> None:
    assert lines(window(alert="over"))[1].endswith(",over\n")
    assert lines(window(alert='a "b", c'))[1].endswith(',"a ""b"", c"\n')


def test_auto_prints_clocks_up_to_24_hours_and_iso_beyond() -> None:
    assert ",20:53:00,20:53:30," in lines(window(), span_ms=DAY_MS)[1]
    assert ",2025-10-05T20:53:00Z,2025-10-05T20:53:30Z," in lines(window(), span_ms=DAY_MS + 1)[1]


def test_a_format_that_is_told_ignores_the_span() -> None:
    clock = lines(window(), span_ms=9 * DAY_MS, time_format=TimeFormat.CLOCK)[1]
    assert ",20:53:00," in clock
    assert ",2025-10-05T20:53:00Z," in lines(window(), time_format=TimeFormat.ISO)[1]


def test_times_are_in_the_zone() -> None:
    assert ",22:53:00,22:53:30," in lines(window(), zone="Europe/Berlin")[1]
    iso = lines(window(), zone="Europe/Berlin", time_format=TimeFormat.ISO)[1]
    assert ",2025-10-05T22:53:00+02:00," in iso


def test_output_files_carry_the_team_number_where_there_is_one() -> None:
    assert windows_file_name(CPU_MEM) == "CPU_MEM.csv"
    assert windows_file_name(NET_DISK) == "NET_DISK.csv"
    assert windows_file_name(CPU_MEM, 4) == "team_4_CPU_MEM.csv"
    assert windows_file_name(NET_DISK, 0) == "team_0_NET_DISK.csv"


def test_a_row_for_scripts_holds_what_the_file_prints() -> None:
    assert window_cells(window((5970, None), "over"), ZoneInfo("Europe/Berlin")) == {
        "server_id": "server_1",
        "start": "2025-10-05T22:53:00+02:00",
        "end": "2025-10-05T22:53:30+02:00",
        "values": {"avg_cpu": "59.70", "avg_mem": ""},
        "alert": "over",
    }

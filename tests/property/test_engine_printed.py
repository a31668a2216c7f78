"""The engine's lines against the codec's, byte by byte."""

import datetime as dt
from collections.abc import Sequence
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.codec.windows import TimeFormat, format_windows, instant_text
from fleetpulse.domain.aggregate import Arithmetic, WindowRow
from fleetpulse.domain.closing import ClosedBy
from fleetpulse.domain.metric import FAMILIES, Family
from fleetpulse.engine import Windows, printed_file, printed_lines

START_MS = 1_759_697_580_000
SIZE_MS = 30_000
HOUR_MS = 3_600_000
# A day in autumn on which clocks go back, a zone off by 45 minutes, one that moved by a day.
INSTANTS_MS = (
    0,
    1,
    START_MS,
    START_MS + 10_000,
    START_MS + 10_001,
    1_761_436_800_000,
    1_761_440_400_000,
    1_761_440_399_999,
    1_325_239_200_000,
    253_402_000_000_000,
)
ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu", "Pacific/Apia", "America/St_Johns")
IDS = (
    "a",
    "A",
    "a0",
    "server_1",
    "server_10",
    "server_2",
    "web-7.example:9100",
    "x" * 64,
    "x" * 63,
)
LABELS = (
    "",
    "hot",
    "cpu, mem",
    'the "big" one',
    '"',
    "a\nb",
    "a\rb",
    "überlast, 高",
    " lead",
    "\0",
)

zones = st.sampled_from(ZONES).map(lambda name: dt.UTC if name == "UTC" else ZoneInfo(name))
hundredths = st.one_of(
    st.just(-1), st.integers(0, 20_000), st.integers(0, 10**10), st.sampled_from([0, 9, 10, 99])
)


@st.composite
def parts_of(draw: st.DrawFn) -> list[Windows]:
    """What one engine closed, in one or more parts."""
    family = draw(st.sampled_from(FAMILIES))
    texts = ("", *draw(st.lists(st.sampled_from(LABELS), max_size=4)))
    ids = draw(st.lists(st.sampled_from(IDS), min_size=1, unique=True))
    instants_ms = draw(st.lists(st.sampled_from(INSTANTS_MS), min_size=1, unique=True))
    row = st.tuples(
        st.sampled_from(ids),
        st.sampled_from(instants_ms),
        hundredths,
        hundredths,
        st.integers(0, len(texts) - 1),
    )
    cut = draw(st.integers(0, 20))
    rows = draw(st.lists(row, max_size=40, unique_by=lambda one: one[:2]))
    return [windows_of(family, texts, part) for part in (rows[:cut], rows[cut:])]


def windows_of(
    family: Family, texts: Sequence[str], rows: Sequence[tuple[str, int, int, int, int]]
) -> Windows:
    width = -(-max((len(row[0]) for row in rows), default=1) // 8) * 8
    starts, first, second, labels = (
        np.array([row[column] for row in rows], np.int64) for column in range(1, 5)
    )
    none = np.zeros(len(rows), np.int64)
    return Windows(
        family=family,
        arithmetic=Arithmetic.EXACT,
        size_ms=SIZE_MS,
        closed_by=ClosedBy.END,
        texts=texts,
        server_ids=np.array([row[0].encode() for row in rows], f"S{width}"),
        starts_ms=starts,
        samples=(none, none),
        samples_over=(none, none),
        totals=((none,), (none,)),
        hundredths=(first, second),
        labels=labels,
    )


def by_codec(
    family: Family,
    rows: Sequence[WindowRow],
    span_ms: int,
    time_format: TimeFormat,
    zone: dt.tzinfo,
) -> bytes:
    return "".join(format_windows(family, rows, span_ms, time_format, zone)).encode()


@given(
    parts_of(),
    st.sampled_from(TimeFormat),
    st.sampled_from([0, 24 * HOUR_MS, 24 * HOUR_MS + 1]),
    zones,
)
def test_a_file_is_that_of_the_codec_over_the_sorted_rows(
    parts: list[Windows], time_format: TimeFormat, span_ms: int, zone: dt.tzinfo
) -> None:
    family = parts[0].family
    rows = sorted(
        (row for part in parts for row in part.rows()),
        key=lambda row: (row.server_id.encode(), row.start_ms),
    )
    found = b"".join(printed_file(family, parts, span_ms, time_format, zone))
    assert found == by_codec(family, rows, span_ms, time_format, zone)


@given(parts_of(), st.sampled_from(TimeFormat), zones)
def test_lines_keep_the_order_given(
    parts: list[Windows], time_format: TimeFormat, zone: dt.tzinfo
) -> None:
    for part in parts:
        found = printed_lines(part, instant_text(time_format, 0), zone)
        _, _, lines = by_codec(part.family, list(part.rows()), 0, time_format, zone).partition(
            b"\n"
        )
        assert found == lines


@pytest.mark.parametrize("servers", [1, 5_000])
def test_a_file_of_more_rows_than_are_printed_at_once_is_whole(servers: int) -> None:
    texts = ("", "hot", "full", "a, b")
    rows = [
        (
            f"server_{server}",
            START_MS + 10_000 * number,
            number * server % 10_002 - 1,
            5,
            number % 4,
        )
        for number in range(70_000 // servers)
        for server in range(servers)
    ]
    part = windows_of(FAMILIES[0], texts, rows)
    chunks = list(printed_file(part.family, [part], 0, TimeFormat.ISO, dt.UTC))
    wanted = sorted(part.rows(), key=lambda row: (row.server_id.encode(), row.start_ms))
    assert b"".join(chunks) == by_codec(part.family, wanted, 0, TimeFormat.ISO, dt.UTC)
    assert all(chunk.endswith(b"\n") for chunk in chunks)


def test_a_file_without_a_window_has_a_header() -> None:
    family = FAMILIES[0]
    assert b"".join(printed_file(family, [], 0, TimeFormat.AUTO, dt.UTC)) == by_codec(
        family, [], 0, TimeFormat.AUTO, dt.UTC
    )

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetpulse.domain.aggregate import WindowRow
from fleetpulse.domain.closing import ClosedBy
from fleetpulse.domain.errors import DamagedState, DiskError
from fleetpulse.domain.metric import CPU_MEM, NET_DISK, Family
from fleetpulse.domain.quiet import Closing
from fleetpulse.edges.spark.ledger import BatchEnd, Ledger


def row(server_id: str, start_ms: int, family: Family = CPU_MEM, first: int = 1) -> WindowRow:
    return WindowRow(family, server_id, start_ms, start_ms + 30, (first, None), "")


def finish(ledger: Ledger, number: int, *rows: WindowRow, watermark_ms: int = 0) -> None:
    with ledger.batch():
        ledger.add(rows)
        ledger.end(BatchEnd(number, watermark_ms, {("cpu_mem", "a"): 5}, {"cpu": 9}))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path) as opened:
        yield opened


def test_what_a_batch_added_is_there_for_the_next_process(path: Path) -> None:
    with Ledger(path) as first:
        finish(first, 0, row("a", 0))
        first.note(Closing(1, 2, ClosedBy.IDLE))
    with Ledger(path) as second:
        assert second.next_batch == 1
        assert second.next_notice == 1
        assert second.stream_id == first.stream_id
        assert second.first_seen() == {("cpu_mem", "a"): 5}
        assert second.latest_ms() == {"cpu": 9}
        assert second.closings() == [Closing(1, 2, ClosedBy.IDLE)]
        assert list(second.rows(CPU_MEM)) == [row("a", 0)]


def test_a_batch_that_fails_leaves_nothing(ledger: Ledger) -> None:
    def fail() -> Iterator[WindowRow]:
        yield row("a", 0)
        raise ValueError("anything")

    with pytest.raises(ValueError, match="anything"), ledger.batch():
        ledger.add(fail())
    assert list(ledger.rows(CPU_MEM)) == []
    assert ledger.next_batch == 0


def test_rows_of_a_batch_that_is_given_again_replace_themselves(ledger: Ledger) -> None:
    with ledger.batch():
        ledger.add([row("a", 0)])
    finish(ledger, 0, row("a", 0))
    assert list(ledger.rows(CPU_MEM)) == [row("a", 0)]


def test_rows_come_by_family_in_the_byte_order_of_the_servers(ledger: Ledger) -> None:
    ids = ["a", "S", "a-1", "a.1", "a1", "a:1", "a_1"]
    finish(ledger, 0, *(row(one, 10) for one in ids), row("a", 0), row("b", 0, NET_DISK))
    found = [(one.server_id, one.start_ms) for one in ledger.rows(CPU_MEM)]
    wanted = [(one, 10) for one in sorted(ids, key=str.encode)]
    wanted.insert(1, ("a", 0))
    assert found == wanted
    assert [one.server_id for one in ledger.rows(NET_DISK)] == ["b"]


def test_the_span_goes_from_the_first_start_to_the_last_end(ledger: Ledger) -> None:
    assert ledger.span_ms(CPU_MEM) == 0
    finish(ledger, 0, row("a", 100), row("b", -20), row("c", 500, NET_DISK))
    assert ledger.span_ms(CPU_MEM) == 150


def test_closings_are_over_once_the_watermark_passed_their_end(ledger: Ledger) -> None:
    ledger.note(Closing(0, 50, ClosedBy.IDLE))
    ledger.note(Closing(50, 90, ClosedBy.END))
    finish(ledger, 0, watermark_ms=51)
    assert ledger.closings() == [Closing(50, 90, ClosedBy.END)]


def test_each_notice_has_its_own_number(ledger: Ledger) -> None:
    assert [ledger.note(None), ledger.note(Closing(0, 1, ClosedBy.END)), ledger.note(None)] == [
        0,
        1,
        2,
    ]


def test_nobody_else_reads_it(ledger: Ledger, path: Path) -> None:
    assert ledger.next_batch == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_no_database_is_damaged(path: Path) -> None:
    path.write_bytes(b"no database, but long enough to be looked at" * 100)
    with pytest.raises(DamagedState, match=r"ledger\.db: it is damaged"):
        Ledger(path)


def test_another_version_is_refused(path: Path) -> None:
    Ledger(path).close()
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE meta SET schema_version = 2")
    database.close()
    with pytest.raises(DamagedState, match="found version 2, this program knows 1"):
        Ledger(path)


def test_a_link_in_its_place_is_not_followed(path: Path) -> None:
    target = path.with_name("target")
    target.touch()
    path.symlink_to(target)
    with pytest.raises(DiskError):
        Ledger(path)
    assert target.read_bytes() == b""

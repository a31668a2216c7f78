import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetpulse.domain.position import LastRecord, Partition, Position
from fleetpulse.edges.sink import Batch, FileSpec, Lines, Sink, committed_bytes, open_sink

NAME = "consumer1"
HEADER = "ts,server_id,cpu_pct\n"
FILES = (FileSpec("cpu.csv", HEADER), FileSpec("mem.csv", HEADER), FileSpec("rejects.jsonl"))
WHERE = Partition("topic-cpu", 0)
HEADERS = {spec.name: spec.header.encode() for spec in FILES}

LINE = st.binary(min_size=1, max_size=40).map(lambda raw: raw.hex().encode() + b"\n")
LINES = st.lists(LINE, min_size=1, max_size=4).map(lambda some: Lines(b"".join(some), len(some)))
CONTENT = st.dictionaries(st.sampled_from([spec.name for spec in FILES]), LINES, max_size=3)


class Crash(BaseException):
    """The process dies here."""


@dataclass
class FaultyDisk:
    """Lets the process die before the n-th call that changes the disk, and writes in pieces.

    `synced_bytes` is what a power loss cannot take.
    """

    calls_left: int
    piece_bytes: int
    synced_bytes: dict[str, int] = field(default_factory=dict)

    def step(self) -> None:
        self.calls_left -= 1
        if self.calls_left < 0:
            raise Crash

    @contextmanager
    def installed(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        pwrite, ftruncate, fsync = os.pwrite, os.ftruncate, os.fsync
        sync_name = "fdatasync" if hasattr(os, "fdatasync") else "fsync"
        sync = getattr(os, sync_name)

        def faulty_pwrite(descriptor: int, data: memoryview, offset: int) -> int:
            self.step()
            return pwrite(descriptor, data[: self.piece_bytes], offset)

        def faulty_ftruncate(descriptor: int, length: int) -> None:
            self.step()
            ftruncate(descriptor, length)

        def faulty_sync(descriptor: int) -> None:
            self.step()
            sync(descriptor)
            path = Path(f"/dev/fd/{descriptor}").resolve()
            self.synced_bytes[path.name] = os.fstat(descriptor).st_size
            self.step()

        def faulty_fsync(descriptor: int) -> None:
            self.step()
            fsync(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", faulty_pwrite)
            patch.setattr(os, "ftruncate", faulty_ftruncate)
            patch.setattr(os, "fsync", faulty_fsync)
            patch.setattr(os, sync_name, faulty_sync)
            yield


def position(next_offset: int) -> Position:
    return Position(
        WHERE, "id", next_offset, 0, LastRecord(next_offset - 1, 7) if next_offset else None
    )


def expected(batches: list[dict[str, Lines]], done: int) -> dict[str, bytes]:
    return {
        name: header + b"".join(one[name].data for one in batches[:done] if name in one)
        for name, header in HEADERS.items()
    }


def committed(folder: Path) -> dict[str, bytes]:
    return {
        spec.name: (folder / spec.name).read_bytes()[: committed_bytes(folder / spec.name)]
        for spec in FILES
    }


def lose_unsynced(path: Path, synced_bytes: int) -> None:
    with suppress(FileNotFoundError):
        os.truncate(path, min(synced_bytes, path.stat().st_size))


def done_of(sink: Sink) -> int:
    found = sink.positions.get(WHERE)
    return found.next_offset if found else 0


def run(folder: Path, batches: list[dict[str, Lines]]) -> int:
    """Commit what is not committed yet, one batch an offset; return how many were there before."""
    with open_sink(folder, NAME, FILES) as sink:
        before = done_of(sink)
        for number in range(before, len(batches)):
            counts = {"malformed": 1} if "rejects.jsonl" in batches[number] else {}
            sink.commit(Batch(batches[number], [position(number + 1)], counts))
    return before


def crash(folder: Path, batches: list[dict[str, Lines]], disk: FaultyDisk, copy: Path) -> int:
    """Run until the disk says die, and leave in `copy` what is there then.

    Returns how many commits were reported; 0 where the sink did not even open.
    """
    done = 0
    sink = None
    with pytest.MonkeyPatch.context() as monkeypatch, disk.installed(monkeypatch):
        try:
            sink = open_sink(folder, NAME, FILES)
            done = done_of(sink)
            for number in range(done, len(batches)):
                counts = {"malformed": 1} if "rejects.jsonl" in batches[number] else {}
                sink.commit(Batch(batches[number], [position(number + 1)], counts))
                done = number + 1
        except Crash:
            pass
        # What a killed process leaves: also SQLite's log, which an orderly close would fold in.
        shutil.copytree(folder, copy)
    if sink is not None:
        sink.close()
    return done


@settings(max_examples=60)
@given(
    batches=st.lists(CONTENT, max_size=5),
    crashes=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 60)), max_size=4),
    is_power_loss=st.booleans(),
)
def test_after_any_crashes_every_batch_is_there_once(
    batches: list[dict[str, Lines]],
    crashes: list[tuple[int, int]],
    is_power_loss: bool,  # noqa: FBT001  Hypothesis fills it in
) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "0"
        synced_bytes: dict[str, int] = {}
        reported = 0
        for number, (calls, piece_bytes) in enumerate(crashes, start=1):
            disk = FaultyDisk(calls, piece_bytes, synced_bytes)
            copy = Path(root) / str(number)
            folder.mkdir(exist_ok=True)
            reported = max(reported, crash(folder, batches, disk, copy))
            folder = copy
            if is_power_loss:
                for spec in FILES:
                    lose_unsynced(folder / spec.name, synced_bytes.get(spec.name, 0))
            with open_sink(folder, NAME, FILES) as sink:
                done = done_of(sink)
            assert done in (reported, reported + 1)
            assert committed(folder) == expected(batches, done)
            reported = done
            synced_bytes = {name: len(data) for name, data in committed(folder).items()}
        run(folder, batches)
        assert {spec.name: (folder / spec.name).read_bytes() for spec in FILES} == expected(
            batches, len(batches)
        )
        with open_sink(folder, NAME, FILES) as sink:
            assert sink.counters.get("malformed", 0) == sum(
                "rejects.jsonl" in one for one in batches
            )
            assert {name: state.lines for name, state in sink.files.items()} == {
                spec.name: sum(one[spec.name].count for one in batches if spec.name in one)
                for spec in FILES
            }

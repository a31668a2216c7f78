"""The sink against a model of it, on a disk that dies, fails and forgets in every way.

After every step: what was reported as committed is in the files once and whole, and
nothing else is.
"""

import errno
import os
import resource
import shutil
import sqlite3
import stat
import sys
import tempfile
import zlib
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

sys.path.insert(0, str(Path(__file__).parent))

from model_disk import Crash, Fault, ModelDisk

from chaos_table import IS_FULL
from fleetpulse.domain.errors import (
    AlreadyRunning,
    DamagedState,
    DataChanged,
    DiskError,
    UsageError,
)
from fleetpulse.domain.position import LastRecord, Partition, Position
from fleetpulse.edges.sink import (
    Batch,
    FileSpec,
    Lines,
    Sink,
    committed_bytes,
    open_sink,
)
from fleetpulse.edges.sink.state import read_state

NAME = "consumer1"
STATE = f"{NAME}.state.db"
HEADER = "ts,server_id,cpu_pct\n"
FILES = (FileSpec("cpu.csv", HEADER), FileSpec("mem.csv", HEADER), FileSpec("rejects.jsonl"))
NAMES = [spec.name for spec in FILES]
PARTITIONS = [Partition("topic-cpu", 0), Partition("topic-cpu", 1), Partition("topic-mem", 0)]
# More than the tail that every start reads.
LONG_LINE = b"x" * 70_000 + b"\n"


def lines_of(some: list[bytes]) -> Lines:
    return Lines(
        b"".join(one.hex().encode() + b"\n" if one else LONG_LINE for one in some), len(some)
    )


lines = st.builds(lines_of, st.lists(st.binary(max_size=20), min_size=1, max_size=4))


@dataclass(frozen=True)
class Plan:
    """What a batch holds; its positions follow from those before it."""

    lines: dict[str, Lines]
    steps: dict[Partition, int]
    counts: dict[str, int]
    notes: dict[str, bytes]


plans = st.builds(
    Plan,
    st.dictionaries(st.sampled_from(NAMES), lines, max_size=3),
    st.dictionaries(st.sampled_from(PARTITIONS), st.integers(1, 9), min_size=1),
    st.dictionaries(st.sampled_from(["malformed", "bad_time"]), st.integers(1, 3)),
    st.dictionaries(st.sampled_from(["open", "gap"]), st.binary(max_size=9)),
)
deaths = st.builds(
    Fault,
    st.integers(0, 30),
    is_power_cut=st.booleans(),
    piece_bytes=st.sampled_from([7, 999, 1 << 20]),
)
failures = st.builds(
    Fault,
    st.integers(0, 30),
    st.sampled_from([errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT]),
    piece_bytes=st.sampled_from([7, 999, 1 << 20]),
)
NEVER = 1 << 20
NOTHING_FAILS = Fault(NEVER)
faults = st.one_of(
    st.builds(Fault, st.just(NEVER), piece_bytes=st.sampled_from([7, 999])), deaths, failures
)


class World:
    """What a sink that does as it promises would hold."""

    def __init__(self) -> None:
        self.content = {spec.name: spec.header.encode() for spec in FILES}
        self.line_counts = dict.fromkeys(NAMES, 0)
        self.positions: dict[Partition, Position] = {}
        self.counters: Counter[str] = Counter()
        self.notes: dict[str, bytes] = {}

    def batch(self, plan: Plan) -> Batch:
        """Return the batch that leads from here to there."""
        positions = [self._stepped(where, step) for where, step in plan.steps.items()]
        return Batch(plan.lines, positions, plan.counts, plan.notes)

    def after(self, batch: Batch) -> "World":
        """Return the world once a batch is done."""
        found = World()
        found.content = dict(self.content)
        found.line_counts = dict(self.line_counts)
        for name, added in batch.lines.items():
            found.content[name] += added.data
            found.line_counts[name] += added.count
        found.positions = {**self.positions, **{one.partition: one for one in batch.positions}}
        found.counters = self.counters + Counter(batch.counts)
        found.notes = {**self.notes, **batch.notes}
        return found

    def is_found_in(self, sink: Sink) -> bool:
        """Tell whether a sink says that this is so."""
        return (
            dict(sink.positions) == self.positions
            and sink.notes() == self.notes
            and dict(sink.counters) == dict(self.counters)
            and {name: state.lines for name, state in sink.files.items()} == self.line_counts
            and {name: state.committed_bytes for name, state in sink.files.items()}
            == {name: len(content) for name, content in self.content.items()}
        )

    def _stepped(self, where: Partition, step: int) -> Position:
        before = self.positions.get(where)
        next_offset = step + (before.next_offset if before else 0)
        return Position(where, "id", next_offset, 0, LastRecord(next_offset - 1, step))


class SinkMachine(RuleBasedStateMachine):
    """A sink, the disk under it and the world that it should hold.

    `maybe` is the world of a batch that was begun and neither reported done nor found not done.
    """

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")  # noqa: S108  syncs cost nothing there
        place = memory if memory.is_dir() else None
        self.place = Path(tempfile.mkdtemp(prefix="fleetpulse-machine-", dir=place))
        self.sink: Sink | None = None
        self.is_failed = False
        self.is_made = False
        self.world = World()
        self.maybe: World | None = None
        self.lives = 0
        # How many starts it had seen, and its content.
        self.old_state: tuple[int, bytes] | None = None

    @initialize(chance=st.integers(0, 1 << 32).map(Random))
    def begin(self, chance: Random) -> None:
        root = self.place / "0"
        root.mkdir()
        self.disk = ModelDisk(root, self.place / "1", chance)

    @property
    def folder(self) -> Path:
        return self.disk.root / "fleet" / "output"

    # What the role does.

    @precondition(lambda self: self.sink is None)
    @rule(fault=faults)
    def open(self, fault: Fault) -> None:
        """Open it, on a disk that may fail meanwhile."""
        try:
            with self.disk.installed(fault):
                sink = open_sink(self.folder, NAME, FILES)
        except Crash:
            self.go_on_after_death(is_power_cut=fault.is_power_cut)
        except DiskError:
            assert self.disk.has_fired
            assert fault.errno is not None
        else:
            self.take(sink)

    @precondition(lambda self: self.sink is not None and not self.is_failed)
    @rule(plan=plans, fault=faults)
    def commit(self, plan: Plan, fault: Fault) -> None:
        """Commit a batch, on a disk that may fail meanwhile."""
        assert self.sink
        batch = self.world.batch(plan)
        after = self.world.after(batch)
        try:
            with self.disk.installed(fault):
                self.sink.commit(batch)
        except Crash:
            self.maybe = after
            self.go_on_after_death(is_power_cut=fault.is_power_cut)
        except DiskError:
            assert fault.errno is not None
            assert self.disk.has_fired
            self.is_failed = True
            self.nothing_is_written_after_a_failure(batch)
        else:
            self.world = after

    def nothing_is_written_after_a_failure(self, batch: Batch) -> None:
        assert self.sink
        before = self.bytes_found()
        with self.disk.installed(), pytest.raises(DiskError, match="an earlier write failed"):
            self.sink.commit(batch)
        assert self.disk.calls == 0
        assert self.bytes_found() == before

    @precondition(lambda self: self.sink is not None and not self.is_failed)
    @rule(plan=plans)
    def commit_without_room_for_the_state(self, plan: Plan) -> None:
        """Commit a batch while no file may grow beyond SQLite's log, whose own calls thus fail."""
        assert self.sink
        batch = self.world.batch(plan)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        room = (self.folder / f"{STATE}-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            with self.disk.installed():
                self.sink.commit(batch)
        except DiskError:
            self.is_failed = True
        else:
            # What the log held before was moved away, so there was room in it.
            self.world = self.world.after(batch)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    @precondition(lambda self: self.sink is not None)
    @rule()
    def close(self) -> None:
        assert self.sink
        self.sink.close()
        self.sink = None

    @precondition(lambda self: self.sink is not None and not self.is_failed)
    @rule()
    def tidy(self) -> None:
        assert self.sink
        self.sink.tidy()

    @precondition(lambda self: self.folder.exists())
    @rule(is_power_cut=st.booleans())
    def die(self, is_power_cut: bool) -> None:  # noqa: FBT001  Hypothesis fills it in
        """Die between two calls, with the power or without."""
        self.disk.die(is_power_cut=is_power_cut)
        self.go_on_after_death(is_power_cut=is_power_cut)

    # What others do.

    @precondition(lambda self: self.sink is not None)
    @rule()
    def start_a_second_one(self) -> None:
        before = self.bytes_found()
        with pytest.raises(AlreadyRunning):
            open_sink(self.folder, NAME, FILES)
        assert self.bytes_found() == before

    @precondition(lambda self: self.is_settled)
    @rule(
        name=st.sampled_from(NAMES),
        harm=st.sampled_from(["shortened", "edited", "deleted", "linked", "pipe", "folder"]),
        at=st.integers(0, 1 << 20),
    )
    def change_a_closed_file(self, name: str, harm: str, at: int) -> None:
        """A file that is not what was committed is refused, and so are the others with it."""
        path, committed = self.folder / name, len(self.world.content[name])
        if not committed:
            return
        self.keep_aside()
        harmed(path, harm, committed, at)
        wanted = UsageError if harm == "folder" else DataChanged
        before = self.bytes_found()
        with self.disk.installed(), pytest.raises(wanted, match=name):
            open_sink(self.folder, NAME, FILES)
        after = self.bytes_found()
        assert before.get(name) == after.get(name)
        # Of another file that was opened before, what no commit covers may be cut already.
        for other in set(NAMES) - {name}:
            assert after[other] in (before[other], self.world.content[other])
        self.put_back()

    @precondition(lambda self: self.is_settled)
    @rule(name=st.sampled_from(NAMES), more=st.binary(min_size=1, max_size=50))
    def append_to_a_closed_file(self, name: str, more: bytes) -> None:
        """Bytes that no commit covers are cut, and counted."""
        with (self.folder / name).open("ab") as file:
            file.write(more)
        self.disk.adopt()
        found = (self.folder / name).stat().st_size
        with self.disk.installed():
            sink = open_sink(self.folder, NAME, FILES)
        assert sink.cut_bytes[name] == found - len(self.world.content[name])
        self.take(sink)

    @precondition(lambda self: self.is_settled)
    @rule(harm=st.sampled_from(["gone", "emptied", "no database", "cut"]))
    def change_the_closed_state(self, harm: str) -> None:
        """Data whose state is gone or damaged is refused, and nothing is touched."""
        self.keep_aside()
        state = self.folder / STATE
        whole = state.read_bytes()
        for path in self.folder.glob(f"{STATE}*"):
            path.unlink()
        match harm:
            case "emptied":
                state.touch()
            case "no database":
                state.write_bytes(b"no database, but long enough" * 200)
            case "cut":
                state.write_bytes(whole[: len(whole) // 2])
            case _:
                pass
        before = self.bytes_found()
        # Half of a database that was never moved out of its log is an empty one.
        with pytest.raises((DataChanged, DamagedState)) as caught:
            open_sink(self.folder, NAME, FILES)
        if harm != "cut":
            assert caught.type is (DamagedState if harm == "no database" else DataChanged)
        assert self.bytes_found() == before
        self.put_back()

    @precondition(lambda self: self.is_settled and not self.has_log)
    @rule()
    def keep_a_copy_of_the_closed_state(self) -> None:
        self.old_state = (self.starts(), (self.folder / STATE).read_bytes())

    @precondition(lambda self: self.is_settled and self.old_state is not None)
    @rule()
    def put_back_an_older_state(self) -> None:
        """The state of an earlier start is refused, and nothing is touched."""
        assert self.old_state
        starts, content = self.old_state
        noted = (self.folder / f"{NAME}.lock").read_text().split()[1:]
        # A power cut may have taken the note, of which zeros may be left; then an older state is as
        # good as a new one.
        if not noted or not noted[0].isdecimal() or int(noted[0]) <= starts:
            return
        self.keep_aside()
        for path in self.folder.glob(f"{STATE}*"):
            path.unlink()
        (self.folder / STATE).write_bytes(content)
        before = self.bytes_found()
        with pytest.raises(DataChanged, match=f"this state is of start {starts}"):
            open_sink(self.folder, NAME, FILES)
        assert self.bytes_found() == before
        self.put_back()

    @precondition(lambda self: self.sink is not None and not self.is_failed)
    @rule(
        plan=plans,
        name=st.sampled_from(NAMES),
        harm=st.sampled_from(["shortened", "deleted", "replaced", "appended"]),
    )
    def change_an_open_file(self, plan: Plan, name: str, harm: str) -> None:
        """A file that somebody changes under the sink stops the commit before its point."""
        assert self.sink
        path, whole = self.folder / name, self.world.content[name]
        if not whole:
            return
        stamp = path.stat()
        match harm:
            case "shortened":
                os.truncate(path, len(whole) - 1)
            case "appended":
                with path.open("ab") as file:
                    file.write(b"more\n")
            case _:
                path.unlink()
                if harm == "replaced":
                    path.write_bytes(whole)
        plan = Plan({**plan.lines, name: Lines(b"row\n", 1)}, plan.steps, plan.counts, plan.notes)
        with self.disk.installed(), pytest.raises(DataChanged, match=name):
            self.sink.commit(self.world.batch(plan))
        self.close()
        path.unlink(missing_ok=True)
        path.write_bytes(whole)
        path.chmod(stat.S_IMODE(stamp.st_mode))
        self.disk.adopt()

    # What is true after every step.

    @invariant()
    def an_open_sink_holds_the_world_and_its_files_nothing_else(self) -> None:
        if self.sink is not None and not self.is_failed:
            assert self.world.is_found_in(self.sink)
            found = {name: (self.folder / name).read_bytes() for name in NAMES}
            assert found == self.world.content

    @invariant()
    def readers_find_whole_what_was_reported(self) -> None:
        if not self.is_made:
            return
        found = {}
        for name in NAMES:
            size_bytes = committed_bytes(self.folder / name)
            assert size_bytes is not None
            found[name] = (self.folder / name).read_bytes()[:size_bytes]
        view = read_state(self.folder / STATE)
        assert view is not None
        if self.maybe is None or view.positions == self.world.positions:
            world = self.world
        else:
            world = self.maybe
        assert found == world.content
        assert dict(view.positions) == world.positions
        assert dict(view.counters) == dict(world.counters)
        assert dict(view.notes) == world.notes
        for name, state in view.files.items():
            assert zlib.crc32(found[name]) == state.running_crc

    def teardown(self) -> None:
        if self.sink is not None:
            self.sink.close()
        shutil.rmtree(self.place)

    # The means.

    @property
    def is_settled(self) -> bool:
        """Whether it is closed, and known what it holds."""
        return self.sink is None and self.is_made and self.maybe is None

    @property
    def has_log(self) -> bool:
        return (self.folder / f"{STATE}-wal").exists()

    def starts(self) -> int:
        place = f"file:{self.folder / STATE}?immutable=1"
        with closing(sqlite3.connect(place, uri=True)) as database:
            return int(database.execute("SELECT starts FROM meta").fetchone()[0])

    def take(self, sink: Sink) -> None:
        """Go on with a sink that opened: a batch whose end nobody saw is there whole or not."""
        self.sink, self.is_failed, self.is_made = sink, False, True
        if self.maybe is not None and self.maybe.is_found_in(sink):
            self.world = self.maybe
        self.maybe = None
        assert self.world.is_found_in(sink)

    def go_on_after_death(self, *, is_power_cut: bool) -> None:
        if self.sink is not None:
            self.sink.close()
            self.sink = None
        old = self.disk.root
        self.lives += 1
        after = self.place / str(self.lives + 1)
        self.disk = self.disk.successor(after, is_power_cut=is_power_cut)
        shutil.rmtree(old)

    def bytes_found(self) -> dict[str, bytes]:
        """Return the content of the data files that can be read."""
        found = {}
        for name in NAMES:
            path = self.folder / name
            with suppress(FileNotFoundError):
                if stat.S_ISREG(path.lstat().st_mode):
                    found[name] = path.read_bytes()
        return found

    def keep_aside(self) -> None:
        shutil.copytree(self.folder, self.place / "aside")

    def put_back(self) -> None:
        shutil.rmtree(self.folder)
        (self.place / "aside").rename(self.folder)
        self.disk.adopt()


def harmed(path: Path, harm: str, committed: int, at: int) -> None:
    """Do to a file what a careless person or program does."""
    match harm:
        case "shortened":
            os.truncate(path, at % committed)
        case "edited":
            content = bytearray(path.read_bytes())
            # Further back an edit is only noticed where the file has no torn end (ADR 0004).
            start = 0 if len(content) == committed else max(0, committed - 64 * 1024)
            content[start + at % (committed - start)] ^= 1
            path.write_bytes(content)
            os.utime(path, ns=(1, 1))
        case "deleted":
            path.unlink()
        case "linked":
            path.rename(path.with_name("moved"))
            path.symlink_to(path.with_name("moved"))
        case "pipe":
            path.unlink()
            os.mkfifo(path)
        case _:
            path.unlink()
            path.mkdir()


@pytest.mark.timeout(1800)
def test_after_every_step_the_promise_holds() -> None:
    run_state_machine_as_test(
        SinkMachine,
        settings=settings(
            max_examples=1500 if IS_FULL else 100,
            stateful_step_count=50 if IS_FULL else 25,
            print_blob=True,
        ),
    )


class WorstChance(Random):
    """A power cut with which everything is lost that may be."""

    def random(self) -> float:
        return 0.0

    def randrange(self, *_: int) -> int:  # type: ignore[override]
        return 0


def machine_on_the_worst_disk() -> SinkMachine:
    machine = SinkMachine()
    machine.begin(WorstChance(0))
    return machine


PLAN = Plan({name: Lines(b"row\n", 1) for name in NAMES}, {PARTITIONS[0]: 1}, {}, {})


@pytest.mark.parametrize("is_power_cut", [False, True])
def test_after_a_death_at_any_call_of_a_start_no_power_cut_takes_a_commit(
    is_power_cut: bool,  # noqa: FBT001  a parameter of pytest
) -> None:
    at_call, has_died = 0, True
    while has_died:
        machine = machine_on_the_worst_disk()
        try:
            machine.open(Fault(at_call, is_power_cut=is_power_cut))
            has_died = machine.sink is None
            if machine.sink is None:
                machine.open(NOTHING_FAILS)
            machine.commit(PLAN, NOTHING_FAILS)
            machine.die(is_power_cut=True)
            machine.open(NOTHING_FAILS)
            machine.an_open_sink_holds_the_world_and_its_files_nothing_else()
            assert machine.world.positions, at_call
        finally:
            machine.teardown()
        at_call += 1
    assert at_call > len(NAMES)

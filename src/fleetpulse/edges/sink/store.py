"""The sink itself: opens lock, state and files in that order, and commits batches."""

import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from fleetpulse.domain.errors import DataChanged, DiskError
from fleetpulse.domain.position import Partition, Position
from fleetpulse.edges.sink.data_file import DataFile, FileSpec
from fleetpulse.edges.sink.disk import Lock, make_folder
from fleetpulse.edges.sink.state import STATE_SUFFIX, FileState, StateStore


@dataclass(frozen=True, slots=True)
class Lines:
    """Whole lines, each with its end, and how many they are."""

    data: bytes
    count: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What becomes true at once: lines by file name, positions, additions to the counters, notes.

    A note is what its role wants to find again, as bytes under a name; it replaces the one before.
    """

    lines: Mapping[str, Lines] = field(default_factory=dict)
    positions: Sequence[Position] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, bytes] = field(default_factory=dict)


class Sink:
    """Files, state and lock of one role in one folder; made by `open_sink`.

    After an error nothing more is written: the sink can only be closed, and the next start finds
    the last commit. Not for use by several threads at once.
    """

    def __init__(
        self,
        state: StateStore,
        files: Mapping[str, DataFile],
        positions: Mapping[Partition, Position],
        counters: Mapping[str, int],
        owned: ExitStack,
    ) -> None:
        """Take the open parts and what the state holds; `owned` closes them and the lock."""
        self._state = state
        self._files = files
        self._positions = positions
        self._counters = dict(counters)
        self._owned = owned
        self._failed = False

    @property
    def positions(self) -> Mapping[Partition, Position]:
        """The committed position of every partition."""
        return self._positions

    @property
    def counters(self) -> Mapping[str, int]:
        """The committed counters by class."""
        return self._counters

    def notes(self) -> dict[str, bytes]:
        """Return the committed notes by name."""
        return self._state.notes()

    @property
    def files(self) -> dict[str, FileState]:
        """What is committed of each file, by name."""
        return {name: file.state for name, file in self._files.items()}

    @property
    def cut_bytes(self) -> dict[str, int]:
        """How many uncommitted bytes were cut from each file on opening, where any were."""
        return {name: file.cut_bytes for name, file in self._files.items() if file.cut_bytes}

    def commit(self, batch: Batch) -> None:
        """Make a batch durable: all of it, or after a crash none of it.

        Raises DiskError where the disk fails and DataChanged where somebody changed a file.
        """
        if self._failed:
            raise DiskError(
                f"{self._state.path}: an earlier write failed, so nothing more is written; start "
                "this again"
            )
        self._failed = True
        written = [file for name, file in self._files.items() if name in batch.lines]
        for file in written:
            lines = batch.lines[file.path.name]
            file.append(lines.data, lines.count)
            file.sync()
        self._state.commit(
            [file.pending for file in written], batch.positions, batch.counts, batch.notes
        )
        for file in written:
            file.settle()
        self._positions = {**self._positions, **{new.partition: new for new in batch.positions}}
        for name, n in batch.counts.items():
            self._counters[name] = self._counters.get(name, 0) + n
        self._failed = False

    def tidy(self) -> None:
        """Do now what a later commit would have to do beside its own work."""
        self._state.tidy()

    def close(self) -> None:
        """Close everything and give the lock back; what was not committed is not kept."""
        self._owned.close()

    def __enter__(self) -> Self:
        """Return the sink."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the sink."""
        self.close()


def open_sink(folder: Path, name: str, files: Iterable[FileSpec]) -> Sink:
    """Open the sink of a role; folder, state and files are made where they are missing.

    `files` are written in their order. Raises AlreadyRunning, DamagedState, DiskError, UsageError,
    and DataChanged where a file is not what the state says or the state is missing beside data.
    """
    make_folder(folder)
    with ExitStack() as opened:
        lock = Lock(folder / f"{name}.lock")
        opened.callback(lock.close)
        state = StateStore(folder / f"{name}{STATE_SUFFIX}")
        opened.callback(state.close)
        _check_starts(lock, state)
        specs = tuple(files)
        known = state.files()
        new = [FileState(spec.name) for spec in specs if spec.name not in known]
        for file in new:
            _check_unclaimed(folder / file.name, state.path)
        # A file is claimed before it is made: one that a crash leaves behind is then known as ours.
        state.commit(new, new_starts=1)
        lock.note(state.starts())
        known |= {file.name: file for file in new}
        data = {}
        for spec in specs:
            data[spec.name] = DataFile(folder, known[spec.name])
            opened.callback(data[spec.name].close)
        # The parts change hands last: until then an error closes them.
        sink = Sink(state, data, state.positions(), state.counters(), opened.pop_all())
    headers = {
        spec.name: Lines(spec.header.encode(), 0)
        for spec in specs
        if spec.header and not known[spec.name].committed_bytes
    }
    try:
        if headers:
            sink.commit(Batch(headers))
    except BaseException:
        sink.close()
        raise
    return sink


def _check_starts(lock: Lock, state: StateStore) -> None:
    starts, noted = state.starts(), lock.starts
    # A new state (no start yet) is judged by the data that it finds.
    if 0 < starts < noted:
        raise DataChanged(
            f"{state.path}: this state is of start {starts}, but there were {noted}: somebody put "
            "an older one in its place; put the newest back, or move the whole folder away and "
            "start again from the topics"
        )


def _check_unclaimed(path: Path, state_path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    # Anything else than a file is refused when it is opened.
    if stat.S_ISREG(found.st_mode) and found.st_size:
        raise DataChanged(
            f"{path}: it has {found.st_size} bytes, but {state_path} does not know it: the "
            "state is missing or the file comes from elsewhere; put the state back, or move the "
            "file away and start again from the topics"
        )

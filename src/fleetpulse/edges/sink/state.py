"""The sink's state: a SQLite database whose one transaction a batch is the commit point.

It sits in the folder of the files that it describes and names them without their folder, so the
folder can be moved as a whole.
"""

import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from fleetpulse.domain.errors import AlreadyRunning, DamagedState, DiskError, UsageError
from fleetpulse.domain.position import ClockState, LastRecord, Partition, Position
from fleetpulse.domain.text import one_line
from fleetpulse.edges.sink.disk import open_regular, sync_folder
from fleetpulse.edges.sink.wal import is_without_beginning

SCHEMA_VERSION: Final = 3
# A commit that finds a longer log moves it to the database, which takes twice as long.
_LOG_PAGES: Final = 4096
STATE_SUFFIX: Final = ".state.db"
_STATE_MODE: Final = 0o600
_SCHEMA: Final = """
CREATE TABLE meta(schema_version INTEGER NOT NULL, starts INTEGER NOT NULL);
CREATE TABLE partition(
  topic TEXT NOT NULL, partition INTEGER NOT NULL, topic_id TEXT, next_offset INTEGER NOT NULL,
  leader_epoch INTEGER, last_offset INTEGER, last_fingerprint INTEGER,
  clock_start TEXT, clock_ms INTEGER, checksum INTEGER NOT NULL, PRIMARY KEY (topic, partition)
  ) WITHOUT ROWID;
CREATE TABLE file(
  path TEXT NOT NULL PRIMARY KEY, committed_bytes INTEGER NOT NULL, lines INTEGER NOT NULL,
  running_crc INTEGER NOT NULL, tail_crc INTEGER NOT NULL, modified_ns INTEGER NOT NULL
  ) WITHOUT ROWID;
CREATE TABLE counter(class TEXT NOT NULL PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE note(
  name TEXT NOT NULL PRIMARY KEY, content BLOB NOT NULL, checksum INTEGER NOT NULL);
"""
_DISK_CODES: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
    }
)


@dataclass(frozen=True, slots=True)
class FileState:
    """What is committed of one file; bytes beyond `committed_bytes` do not count.

    `lines` counts lines below the header. `running_crc` is the CRC-32 of all committed bytes,
    `tail_crc` that of the last 64 KiB of them; `modified_ns` is the file's time at the commit.
    """

    name: str
    committed_bytes: int = 0
    lines: int = 0
    running_crc: int = 0
    tail_crc: int = 0
    modified_ns: int = 0


@dataclass(frozen=True, slots=True)
class StateView:
    """What a state held at one instant: files and notes by name, counters by class."""

    files: Mapping[str, FileState]
    positions: Mapping[Partition, Position]
    counters: Mapping[str, int]
    notes: Mapping[str, bytes]


class StateStore:
    """The open database. Every method raises DamagedState or DiskError, naming the file."""

    def __init__(self, path: Path) -> None:
        """Open the database, made with mode 0600 if it is missing; checks it and its version."""
        self.path = path
        descriptor = open_regular(path, _STATE_MODE)
        is_new = os.fstat(descriptor).st_size == 0
        os.close(descriptor)
        if is_new:
            sync_folder(path.parent)
        with _explained(path):
            self._database = sqlite3.connect(_uri(path), uri=True, isolation_level=None)
        try:
            self._prepare()
        except BaseException:
            self._database.close()
            raise

    def _prepare(self) -> None:
        with _explained(self.path):
            for pragma in (
                "journal_mode=WAL",
                "synchronous=FULL",
                "fullfsync=ON",
                "checkpoint_fullfsync=ON",
                f"wal_autocheckpoint={_LOG_PAGES}",
            ):
                self._database.execute(f"PRAGMA {pragma}")
            _check(self._database, self.path)
            if not _has_tables(self._database):
                self._database.executescript(
                    f"BEGIN IMMEDIATE;{_SCHEMA}INSERT INTO meta VALUES({SCHEMA_VERSION}, 0);COMMIT;"
                )
        _check_version(self._database, self.path)

    def starts(self) -> int:
        """Return how often a sink was opened on this state."""
        with _explained(self.path):
            return int(self._database.execute("SELECT starts FROM meta").fetchone()[0])

    def files(self) -> dict[str, FileState]:
        """Return the known files by name."""
        with _explained(self.path):
            return _files(self._database)

    def positions(self) -> dict[Partition, Position]:
        """Return the position of every known partition."""
        with _explained(self.path):
            return _positions(self._database, self.path)

    def counters(self) -> dict[str, int]:
        """Return the counters by class."""
        with _explained(self.path):
            return _counters(self._database)

    def notes(self) -> dict[str, bytes]:
        """Return the notes by name."""
        with _explained(self.path):
            return _notes(self._database, self.path)

    def commit(
        self,
        files: Iterable[FileState],
        positions: Iterable[Position] = (),
        counts: Mapping[str, int] | None = None,
        notes: Mapping[str, bytes] | None = None,
        new_starts: int = 0,
    ) -> None:
        """Replace files, positions and notes, add to the counters: all or nothing, durably."""
        with _explained(self.path):
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(
                "INSERT OR REPLACE INTO file VALUES(?, ?, ?, ?, ?, ?)", map(astuple, files)
            )
            self._database.executemany(
                "INSERT OR REPLACE INTO partition(topic, partition, topic_id, next_offset, "
                "leader_epoch, last_offset, last_fingerprint, clock_start, clock_ms, checksum) "
                "VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                ((*row, _row_checksum(row)) for row in map(_position_row, positions)),
            )
            self._database.executemany(
                "INSERT INTO counter VALUES(?, ?) ON CONFLICT(class) DO UPDATE SET n = n + ?",
                [(name, n, n) for name, n in (counts or {}).items()],
            )
            self._database.executemany(
                "INSERT OR REPLACE INTO note VALUES(?, ?, ?)",
                [(name, content, zlib.crc32(content)) for name, content in (notes or {}).items()],
            )
            if new_starts:
                self._database.execute("UPDATE meta SET starts = starts + ?", (new_starts,))
            self._database.execute("COMMIT")

    def tidy(self) -> None:
        """Move what commits wrote from SQLite's log to the database."""
        with _explained(self.path):
            self._database.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Close the database; what was not committed is not kept."""
        with _explained(self.path):
            self._database.close()


def state_paths(folder: Path, name: str) -> list[Path]:
    """Return the states that sinks of this name, and of its shares (`name.p0-3`), keep in a folder.

    >>> state_paths(Path("/nowhere"), "consumer1")
    []
    """
    whole = folder / f"{name}{STATE_SUFFIX}"
    return [*([whole] if whole.exists() else []), *sorted(folder.glob(f"{name}.p*{STATE_SUFFIX}"))]


def committed_bytes(path: Path) -> int | None:
    """Return how far a file is committed according to the states in its folder.

    None where no state knows it: then the file comes from elsewhere and counts whole. Works while a
    consumer writes. Raises DamagedState, DiskError, or UsageError where a state may not be read.
    """
    place = path.resolve()
    for state_path in sorted(place.parent.glob(f"*{STATE_SUFFIX}")):
        known = _read_files(state_path).get(place.name)
        if known is not None:
            return known.committed_bytes
    return None


def read_state(state_path: Path) -> StateView | None:
    """Return what a state holds at one instant, None where it holds nothing yet.

    Changes nothing and takes no lock, so it works while a consumer writes. Raises DamagedState,
    DiskError, or UsageError where it may not be read.
    """
    with _read_only(state_path) as database:
        if not _has_tables(database):
            return None
        _check(database, state_path)
        _check_version(database, state_path)
        return StateView(
            _files(database),
            _positions(database, state_path),
            _counters(database),
            _notes(database, state_path),
        )


def _read_files(state_path: Path) -> dict[str, FileState]:
    with _read_only(state_path) as database:
        if not _has_tables(database):
            return {}
        _check_version(database, state_path)
        return _files(database)


@contextmanager
def _read_only(state_path: Path) -> Iterator[sqlite3.Connection]:
    """Give the database in one read transaction that leaves no trace."""
    if not os.access(state_path, os.R_OK):
        raise UsageError(
            f"{state_path}: no permission to read it, and only it knows how far the data beside it "
            "is complete; run this as the user who runs the consumer"
        )
    log, index = (state_path.with_name(f"{state_path.name}-{one}") for one in ("wal", "shm"))
    if not log.exists() or is_without_beginning(log):
        # Nobody is changing the database, and it can be read as it is.
        query = "immutable=1"
    elif index.exists():
        # What a dead consumer left is read through an index in memory.
        query = "mode=ro&readonly_shm=1"
    else:
        query = "mode=ro"
    with (
        _explained(state_path),
        closing(
            sqlite3.connect(_uri(state_path, query), uri=True, isolation_level=None)
        ) as database,
    ):
        database.execute("BEGIN")
        yield database


def _uri(path: Path, query: str = "mode=rw") -> str:
    return f"file:{quote(str(path.absolute()))}?{query}"


def _has_tables(database: sqlite3.Connection) -> bool:
    return bool(database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])


def _check(database: sqlite3.Connection, path: Path) -> None:
    found = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise _damaged(path, str(found))


def _check_version(database: sqlite3.Connection, path: Path) -> None:
    with _explained(path):
        rows = database.execute("SELECT schema_version FROM meta").fetchall()
    if len(rows) != 1 or not isinstance(rows[0][0], int):
        raise _damaged(path, "it names no version")
    if rows[0][0] != SCHEMA_VERSION:
        raise DamagedState(
            f"{path}: written by another version of fleetpulse (format {rows[0][0]}, wanted "
            f"{SCHEMA_VERSION}); run the version that wrote it"
        )


def _files(database: sqlite3.Connection) -> dict[str, FileState]:
    rows = database.execute(
        "SELECT path, committed_bytes, lines, running_crc, tail_crc, modified_ns FROM file"
    )
    return {row[0]: FileState(row[0], *map(int, row[1:])) for row in rows}


def _positions(database: sqlite3.Connection, path: Path) -> dict[Partition, Position]:
    rows = database.execute(
        "SELECT topic, partition, topic_id, next_offset, leader_epoch, last_offset, "
        "last_fingerprint, clock_start, clock_ms, checksum FROM partition"
    )
    found = {}
    for *columns, checksum in rows:
        row = tuple(columns)
        if _row_checksum(row) != checksum:
            raise _damaged(path, f"the position of {row[0]}-{row[1]} does not match its checksum")
        position = _position(row)
        found[position.partition] = position
    return found


def _counters(database: sqlite3.Connection) -> dict[str, int]:
    return dict(database.execute("SELECT class, n FROM counter").fetchall())


def _notes(database: sqlite3.Connection, path: Path) -> dict[str, bytes]:
    rows = database.execute("SELECT name, content, checksum FROM note").fetchall()
    for name, content, checksum in rows:
        if zlib.crc32(content) != checksum:
            raise _damaged(path, f"the note {name} does not match its checksum")
    return {name: content for name, content, _ in rows}


def _position_row(position: Position) -> tuple[str | int | None, ...]:
    last, clock = position.last, position.clock
    return (
        position.partition.topic_name,
        position.partition.number,
        position.topic_id,
        position.next_offset,
        position.leader_epoch,
        last.offset if last else None,
        last.fingerprint if last else None,
        clock.start_date.isoformat() if clock else None,
        clock.last_ms if clock else None,
    )


def _row_checksum(row: tuple[str | int | None, ...]) -> int:
    # SQLite itself notices a damaged page only where its structure suffers.
    return zlib.crc32(repr(row).encode())


def _position(row: tuple[Any, ...]) -> Position:
    topic_name, number, topic_id, next_offset, epoch = row[:5]
    last_offset, fingerprint, clock_start, clock_ms = row[5:]
    last = clock = None
    if last_offset is not None:
        last = LastRecord(int(last_offset), int(fingerprint))
    if clock_start is not None:
        clock = ClockState(date.fromisoformat(clock_start), int(clock_ms))
    partition = Partition(topic_name, int(number))
    return Position(partition, topic_id, int(next_offset), epoch, last, clock)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as err:
        code = getattr(err, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in _DISK_CODES:
            name = getattr(err, "sqlite_errorname", "SQLITE_ERROR")
            raise DiskError(
                f"{path}: cannot read or write it ({err}, {name}); nothing is lost: check space "
                "and rights of the disk and start this again"
            ) from err
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise AlreadyRunning(
                f"{path}: another program holds this database; close it and start this again"
            ) from err
        raise _damaged(path, str(err)) from err
    except (TypeError, ValueError) as err:
        raise _damaged(path, str(err)) from err


def _damaged(path: Path, what: str) -> DamagedState:
    # SQLite's words may have several lines, and quote bytes of a damaged file.
    return DamagedState(
        f"{path}: the state is damaged ({one_line(what)[:200]}); put back a copy of the whole "
        "folder, or move the folder away and start again from the topics"
    )

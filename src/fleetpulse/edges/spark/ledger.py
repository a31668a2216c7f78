"""What a stream has given out: a SQLite database with one transaction for each batch.

Spark runs the last batch again after a crash. A batch below `next_batch` is in all outputs; first
sight of servers, instants and closings are those behind it. `window` has rows only where the CSV
files are asked for.
"""

import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from fleetpulse.domain.aggregate import WindowRow
from fleetpulse.domain.closing import ClosedBy
from fleetpulse.domain.errors import DamagedState, DiskError
from fleetpulse.domain.metric import Family
from fleetpulse.domain.quiet import Closing

SCHEMA_VERSION: Final = 1
_MODE: Final = 0o600
_SCHEMA: Final = """
CREATE TABLE meta(schema_version INTEGER NOT NULL, stream_id TEXT NOT NULL,
  next_batch INTEGER NOT NULL, next_notice INTEGER NOT NULL);
CREATE TABLE first_seen(family TEXT NOT NULL, server_id TEXT NOT NULL, first_ms INTEGER NOT NULL,
  PRIMARY KEY (family, server_id)) WITHOUT ROWID;
CREATE TABLE latest(topic TEXT NOT NULL PRIMARY KEY, latest_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE closing(after_ms INTEGER NOT NULL, up_to_ms INTEGER NOT NULL, closed_by TEXT NOT NULL);
CREATE TABLE window(family TEXT NOT NULL, server_id TEXT NOT NULL, start_ms INTEGER NOT NULL,
  end_ms INTEGER NOT NULL, first INTEGER, second INTEGER, alert TEXT NOT NULL,
  PRIMARY KEY (family, server_id, start_ms)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class BatchEnd:
    """What a finished batch adds: its number, servers seen first or earlier, latest instants.

    Closings up to `watermark_ms` are over.
    """

    batch_id: int
    watermark_ms: int
    first_seen: Mapping[tuple[str, str], int]
    latest_ms: Mapping[str, int]


class Ledger:
    """The open database; every method raises DamagedState or DiskError, naming the file.

    `next_batch` is the first batch that is not in all outputs, `next_notice` the number that the
    next notice gets.
    """

    def __init__(self, path: Path) -> None:
        """Open the database, made with mode 0600 if it is missing."""
        self._path = path
        with _explained(path):
            try:
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, _MODE))
            except OSError as err:
                raise DiskError(f"{path}: cannot open it ({err.strerror}); check the disk") from err
            self._database = sqlite3.connect(path, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            if not self._database.execute("SELECT name FROM sqlite_master").fetchone():
                values = f"{SCHEMA_VERSION}, '{secrets.token_hex(8)}', 0, 0"
                self._database.executescript(
                    f"BEGIN IMMEDIATE;{_SCHEMA}INSERT INTO meta VALUES({values});COMMIT;"
                )
            found = self._database.execute(
                "SELECT schema_version, stream_id, next_batch, next_notice FROM meta"
            ).fetchone()
            version = found[0]
            self.stream_id: str = found[1]
            self.next_batch: int = found[2]
            self.next_notice: int = found[3]
        if version != SCHEMA_VERSION:
            raise DamagedState(
                f"{path}: found version {version}, this program knows {SCHEMA_VERSION}; use the "
                "version of Fleetpulse that wrote it"
            )

    def first_seen(self) -> dict[tuple[str, str], int]:
        """Return the earliest sample of each family and server, in milliseconds."""
        with _explained(self._path):
            rows = self._database.execute("SELECT family, server_id, first_ms FROM first_seen")
            return {(family, server_id): first_ms for family, server_id, first_ms in rows}

    def latest_ms(self) -> dict[str, int]:
        """Return the latest accepted instant of each topic."""
        with _explained(self._path):
            return dict(self._database.execute("SELECT topic, latest_ms FROM latest").fetchall())

    def closings(self) -> list[Closing]:
        """Return the closings that are not over, oldest first."""
        with _explained(self._path):
            rows = self._database.execute(
                "SELECT after_ms, up_to_ms, closed_by FROM closing ORDER BY rowid"
            )
            return [Closing(after_ms, up_to_ms, ClosedBy(why)) for after_ms, up_to_ms, why in rows]

    def note(self, closing: Closing | None) -> int:
        """Keep a closing (None: only a notice) and return the number of its notice."""
        with _explained(self._path), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("UPDATE meta SET next_notice = next_notice + 1")
            if closing is not None:
                self._database.execute(
                    "INSERT INTO closing VALUES (?, ?, ?)",
                    (closing.after_ms, closing.up_to_ms, closing.closed_by),
                )
        number = self.next_notice
        self.next_notice += 1
        return number

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make all that is added inside, and `end`, durable at once, or nothing of it."""
        with _explained(self._path), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            yield

    def add(self, rows: Iterable[WindowRow]) -> None:
        """Add rows to the batch."""
        self._database.executemany(
            "INSERT OR REPLACE INTO window VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    one.family.name,
                    one.server_id,
                    one.start_ms,
                    one.end_ms,
                    *one.hundredths,
                    one.alert,
                )
                for one in rows
            ),
        )

    def end(self, batch: BatchEnd) -> None:
        """Add what the batch ends with; the last call inside `batch`."""
        self._database.executemany(
            "INSERT OR REPLACE INTO first_seen VALUES (?, ?, ?)",
            ((*key, first_ms) for key, first_ms in batch.first_seen.items()),
        )
        self._database.executemany(
            "INSERT OR REPLACE INTO latest VALUES (?, ?)", batch.latest_ms.items()
        )
        self._database.execute("DELETE FROM closing WHERE up_to_ms < ?", (batch.watermark_ms,))
        self._database.execute("UPDATE meta SET next_batch = ?", (batch.batch_id + 1,))
        self.next_batch = batch.batch_id + 1

    def span_ms(self, family: Family) -> int:
        """Return the time from the start of a family's first row to the end of its last one."""
        with _explained(self._path):
            ((span_ms,),) = self._database.execute(
                "SELECT COALESCE(MAX(end_ms) - MIN(start_ms), 0) FROM window WHERE family = ?",
                (family.name,),
            )
        return int(span_ms)

    def rows(self, family: Family) -> Iterator[WindowRow]:
        """Yield the rows of a family, by server id (in byte order) and start."""
        with _explained(self._path):
            found = self._database.execute(
                "SELECT server_id, start_ms, end_ms, first, second, alert FROM window "
                "WHERE family = ? ORDER BY server_id, start_ms",
                (family.name,),
            )
            for server_id, start_ms, end_ms, first, second, alert in found:
                yield WindowRow(family, server_id, start_ms, end_ms, (first, second), alert)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def __enter__(self) -> Self:
        """Return the ledger."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the ledger."""
        self.close()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as err:
        raise DiskError(f"{path}: cannot use it ({err}); check the disk") from err
    except sqlite3.DatabaseError as err:
        raise DamagedState(
            f"{path}: it is damaged ({err}); put the stream's folder back from a copy, or choose "
            "another with stream.checkpoint_dir to start anew"
        ) from err

"""`fleetpulse` with every wait for the disk left out, to measure what those waits cost.

What it writes would not survive a power cut: for measurements alone.
"""

import os
import sqlite3
import sys
from typing import Any

from fleetpulse.cli.app import main


class _Connection(sqlite3.Connection):
    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:  # noqa: ANN401  as the library's
        """Do what it says, without syncing."""
        return super().execute(sql.replace("synchronous=FULL", "synchronous=OFF"), *arguments)


def _nothing(_descriptor: int) -> None:
    return


_connect = sqlite3.connect
os.fsync = _nothing
os.fdatasync = _nothing
sqlite3.connect = lambda *given, **named: _connect(  # type: ignore[assignment]
    *given, **named, factory=_Connection
)

if __name__ == "__main__":
    sys.exit(main())

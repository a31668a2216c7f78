"""The exactly-once sink: data, rejects and positions that move together.

Order of a commit: data files written and synced, then the rejects, then one SQLite transaction with
lengths, checksums, counters and positions. That transaction is the commit point: what lies beyond
the committed length of a file is cut on the next start.
"""

from fleetpulse.edges.sink.data_file import FileSpec
from fleetpulse.edges.sink.state import (
    FileState,
    StateView,
    committed_bytes,
    read_state,
    state_paths,
)
from fleetpulse.edges.sink.store import Batch, Lines, Sink, open_sink

__all__ = [
    "Batch",
    "FileSpec",
    "FileState",
    "Lines",
    "Sink",
    "StateView",
    "committed_bytes",
    "open_sink",
    "read_state",
    "state_paths",
]

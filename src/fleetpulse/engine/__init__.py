"""The embedded engine: batches of messages in, closed windows out. Pure, with NumPy arrays.

A record costs the same whatever the number of servers, windows and records before it. Memory grows
with the open panes times the active servers, and by one small entry for every server ever seen.
See docs/engine.md.
"""

from fleetpulse.engine.core import Engine, Liveness
from fleetpulse.engine.facts import Closed, Messages, Refusal
from fleetpulse.engine.parcel import pack_windows, unpack_windows
from fleetpulse.engine.printed import printed_file, printed_lines
from fleetpulse.engine.published import published
from fleetpulse.engine.summary import summary_of
from fleetpulse.engine.table import Table, first_instant
from fleetpulse.engine.window import Windows

__all__ = [
    "Closed",
    "Engine",
    "Liveness",
    "Messages",
    "Refusal",
    "Table",
    "Windows",
    "first_instant",
    "pack_windows",
    "printed_file",
    "printed_lines",
    "published",
    "summary_of",
    "unpack_windows",
]

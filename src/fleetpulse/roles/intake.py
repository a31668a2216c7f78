"""What every batch job reads: a family's two CSV files, and what was wrong in them.

The meaning of a CSV is the codec's, in the order of its lines: a clock time gets its date from the
lines before it, and a file that a consumer is still writing ends where its state says that it is
committed. See docs/adr/0006-one-parser-for-every-csv.md.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Protocol

from fleetpulse.codec.rejects import file_reject_line
from fleetpulse.config import Settings
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.errors import FleetpulseError
from fleetpulse.domain.reject import Reject, RejectClass
from fleetpulse.domain.summary import WindowSummary
from fleetpulse.domain.window import WindowSpec
from fleetpulse.edges.files import atomic_writer, read_chunks
from fleetpulse.edges.sink import committed_bytes
from fleetpulse.roles.job import Plan


class AnalysisStopped(FleetpulseError):
    """Somebody stopped the job before its end; its output is what it was."""

    exit_code = 130

    def __init__(self) -> None:
        """Say so."""
        super().__init__("stopped before the end; the output is as it was")


@dataclass(frozen=True, slots=True)
class Intake:
    """What the inputs held; the instants are the earliest and the latest sample of both."""

    samples: tuple[int, int]
    first_ms: int | None
    last_ms: int | None

    def span_ms(self, spec: WindowSpec) -> int:
        """Return the time from the first row's start to the last one's end."""
        if self.first_ms is None or self.last_ms is None:
            return 0
        return spec.span_ms(self.first_ms, self.last_ms)


class Reading(Protocol):
    """The inputs of a job as an interpreter has read them."""

    @property
    def intake(self) -> Intake:
        """What they held."""

    def begin(self) -> float:
        """Prepare to write; return since when, by `time.monotonic`, windows are worked on."""

    def write_windows(self, write: Callable[[str], object]) -> WindowSummary:
        """Write the family's file, header first, and return what its rows say."""


@dataclass(frozen=True, slots=True)
class RejectFile:
    """Rejected lines and cells of a job's inputs, counted and written."""

    counts: Counter[RejectClass]
    write: Callable[[str], object]

    def note(self, path: Path, line_number: int, reject: Reject, line: bytes) -> None:
        """Take a reject of an input."""
        self.counts[reject.reject_class] += 1
        self.write(file_reject_line(str(path), line_number, reject, line))


# How files become windows: reads the inputs of a plan; the event stops it (AnalysisStopped).
Interpreter = Callable[[Plan, RejectFile, Event], Reading]


@contextmanager
def reject_file(path: Path) -> Iterator[RejectFile]:
    """Give a file for rejects, which exists afterwards only if there are some."""
    with atomic_writer(path) as write:
        rejects = RejectFile(Counter(), write)
        yield rejects
    if not rejects.counts:
        path.unlink()


def input_chunks(path: Path, stop: Event) -> Iterator[bytes]:
    """Yield an input, as far as it is committed; raises AnalysisStopped once `stop` is set."""
    for chunk in read_chunks(path, committed_bytes(path)):
        yield chunk
        if stop.is_set():
            raise AnalysisStopped


def times_of_file(settings: Settings) -> TimeReader:
    """Return a reader for the times of one file, whose first clock time has the set date."""
    zone = settings.time.tz
    return TimeReader(zone, settings.time.start_date(datetime.now(zone).date()))

"""Where samples come from: a dataset file, this host, or a simulated fleet."""

import math
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from threading import Event
from typing import Final

from fleetpulse.codec.field import check_server_id
from fleetpulse.codec.incidents import incident_line, incidents_header
from fleetpulse.codec.rejects import file_reject_line
from fleetpulse.codec.table import read_table
from fleetpulse.config import Settings
from fleetpulse.domain.clock import EPOCH, TimeReader, iso_text
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.incident import KnownIncident
from fleetpulse.domain.metric import DISK_IO, METRICS
from fleetpulse.domain.reject import RejectClass, RejectLimit
from fleetpulse.domain.replay import MAX_SPEED, Replay, Times
from fleetpulse.domain.sample import Sample
from fleetpulse.edges.files import atomic_writer, read_chunks
from fleetpulse.edges.host import host_samples, host_server_id
from fleetpulse.edges.simulator import simulate_fleet
from fleetpulse.roles.simulate import Fleet

REJECTS_FILE: Final = "rejects.producer.jsonl"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A CSV file of samples; `run` names this sending of it, which goes on where it ended."""

    path: Path
    run: str = "default"


@dataclass(frozen=True, slots=True)
class Live:
    """This host, one sample a second; `server_id` is made of the host's name unless given."""

    server_id: str | None = None


@dataclass(frozen=True, slots=True)
class Simulated:
    """A made-up fleet that goes on for ever.

    Its incidents go to `incidents_path` as CSV, or are said as they end.
    """

    fleet: Fleet
    incidents_path: Path | None = None


Source = Dataset | Live | Simulated


class Feed:
    """An opened source: its samples, and what became known while they were read.

    `is_finite`: a file, whose rows must not be skipped.
    `trouble` says why reading ended before the source did.
    """

    def __init__(self, samples: Iterator[Sample], *, is_finite: bool) -> None:
        """Wrap samples that need no account of bytes and rejects."""
        self.samples = samples
        self.is_finite = is_finite
        self.rejects: Counter[RejectClass] = Counter()
        self.trouble: str | None = None
        self.size_bytes = 0
        self.read_bytes = 0

    def fraction(self) -> float | None:
        """Return how much of the source was read, 0 to 1; None where nobody can know."""
        return min(1.0, self.read_bytes / self.size_bytes) if self.size_bytes else None


def default_speed(source: Source, times: Times) -> float:
    """Return MAX_SPEED for a dataset with its own times, else 1.

    A dataset is a batch that someone waits for. With `now`, sending ahead of time would date the
    samples into the future, which live roles refuse.
    """
    is_batch = isinstance(source, Dataset) and times is Times.ORIGINAL
    return MAX_SPEED if is_batch else 1.0


@contextmanager
def open_source(
    settings: Settings, source: Source, replay: Replay, stop: Event, say: Callable[[str], None]
) -> Iterator[Feed]:
    """Give the source's feed. The files beside it appear, whole, when the context ends.

    Raises UsageError for a file that is no dataset, before anything is written.
    """
    if isinstance(source, Dataset):
        with atomic_writer(settings.output_dir / REJECTS_FILE) as write:
            yield _dataset(settings, source.path, write)
    elif isinstance(source, Live):
        server_id = host_server_id() if source.server_id is None else source.server_id
        if (bad := check_server_id(server_id)) is not None:
            raise UsageError(bad.reason)
        say(f"this host is {server_id}: one sample a second")
        yield Feed(_live(server_id, replay, stop, say), is_finite=False)
    elif source.incidents_path is None:
        with closing(_simulated(settings, source, lambda one: say(_sentence(one)))) as samples:
            yield Feed(samples, is_finite=False)
    else:
        # Closing the fleet reports the incidents that still last.
        with (
            atomic_writer(source.incidents_path) as write,
            closing(_simulated(settings, source, lambda one: write(incident_line(one)))) as samples,
        ):
            write(incidents_header())
            yield Feed(samples, is_finite=False)


def check_dataset(settings: Settings, path: Path) -> None:
    """Return where a file can be sent as a dataset; UsageError otherwise, DiskError."""
    times = TimeReader(settings.time.tz, EPOCH.date())
    next(read_table(read_chunks(path), METRICS, times, str(path)), None)


def _simulated(
    settings: Settings, source: Simulated, on_incident: Callable[[KnownIncident], object]
) -> Generator[Sample]:
    return simulate_fleet(source.fleet.plan(settings, math.inf), on_incident)


def _live(
    server_id: str, replay: Replay, stop: Event, say: Callable[[str], None]
) -> Iterator[Sample]:
    left = math.inf if replay.duration_s is None else math.ceil(replay.duration_s)
    is_disk_known = False
    for sample in host_samples(server_id, stop.wait):
        if not is_disk_known and DISK_IO.name not in sample.values:
            say("this host shows no disk: there will be no disk_io")
        is_disk_known = True
        yield sample
        left -= 1
        if left <= 0:
            return


def _dataset(settings: Settings, path: Path, write: Callable[[str], object]) -> Feed:
    feed = Feed(iter(()), is_finite=True)

    def counted() -> Iterator[bytes]:
        for chunk in read_chunks(path):
            feed.read_bytes += len(chunk)
            yield chunk

    zone = settings.time.tz
    times = TimeReader(zone, settings.time.start_date(datetime.now(zone).date()))
    rows = read_table(counted(), METRICS, times, str(path))
    # The first row is read now, so that a wrong file is told before anything is connected.
    first = list(islice(rows, 1))
    feed.size_bytes = path.stat().st_size

    def samples() -> Iterator[Sample]:
        limit = RejectLimit(settings.rejects.max_ratio, settings.rejects.max_in_a_row)
        for line, row in chain(first, rows):
            for reject in row.rejects:
                feed.rejects[reject.reject_class] += 1
                write(file_reject_line(str(path), line.number, reject, line.content))
            limit.note(is_reject=bool(row.rejects))
            if row.rejects and (trouble := limit.tripped()):
                feed.trouble = (
                    f"{path}, line {line.number}: {trouble}, the last one because "
                    f"{row.rejects[-1].reason}; correct the file, or raise "
                    "rejects.max_ratio and rejects.max_in_a_row in the settings"
                )
                return
            if row.sample is not None:
                yield row.sample

    feed.samples = samples()
    return feed


def _sentence(incident: KnownIncident) -> str:
    peaks = ", ".join(f"{name} up to {peak:g}" for name, peak in incident.peaks.items())
    return (
        f"incident on {incident.server_id}: {incident.label} from {iso_text(incident.start_ms)} "
        f"to {iso_text(incident.end_ms)}, {peaks}"
    )

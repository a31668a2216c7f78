"""A family's two CSV files -> checked values that Spark can read, and rejects.

Every CSV goes through the one parser of the codec, in the order of its lines: a clock time gets its
date from the lines before it, and a file that a consumer is still writing ends where its state says
that it is committed. See docs/adr/0006-one-parser-for-every-csv.md.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Final

from fleetpulse.codec.rejects import file_reject_line
from fleetpulse.codec.table import read_table
from fleetpulse.config import Settings
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.errors import FleetpulseError
from fleetpulse.domain.reject import RejectClass
from fleetpulse.edges.files import atomic_writer, read_chunks
from fleetpulse.edges.sink import committed_bytes
from fleetpulse.edges.spark.batch import ValueFile, value_line
from fleetpulse.roles.job import Plan

STOPPED: Final = "stopped before the end; the output is as it was"


class AnalysisStopped(FleetpulseError):
    """Somebody stopped the job before its end; its output is what it was."""

    exit_code = 130


@dataclass(frozen=True, slots=True)
class Intake:
    """What the inputs held; the instants are the earliest and the latest sample of both."""

    files: tuple[ValueFile, ValueFile]
    samples: tuple[int, int]
    rejects: Counter[RejectClass]
    first_ms: int | None
    last_ms: int | None


@dataclass(frozen=True, slots=True)
class _Copied:
    samples: int
    instants_ms: tuple[int, ...]


def take_in(settings: Settings, plan: Plan, folder: Path, stop: Event) -> Intake:
    """Copy the family's metrics from the job's inputs to value files in `folder`.

    Rejected lines and cells go to the job's rejects, a file that exists afterwards only if there
    are some.
    Raises UsageError for a file that is no table of its metric, and AnalysisStopped.
    """
    first, second = (
        ValueFile(metric, folder / f"{metric.name}.csv") for metric in plan.family.metrics
    )
    rejects: Counter[RejectClass] = Counter()
    with atomic_writer(plan.rejects_path) as write_reject:
        copied = [
            _copy(settings, path, file, rejects, write_reject, stop)
            for path, file in zip(plan.inputs, (first, second), strict=True)
        ]
    if not rejects:
        plan.rejects_path.unlink()
    instants_ms = [one for part in copied for one in part.instants_ms]
    return Intake(
        files=(first, second),
        samples=(copied[0].samples, copied[1].samples),
        rejects=rejects,
        first_ms=min(instants_ms, default=None),
        last_ms=max(instants_ms, default=None),
    )


def _copy(
    settings: Settings,
    path: Path,
    file: ValueFile,
    rejects: Counter[RejectClass],
    write_reject: Callable[[str], object],
    stop: Event,
) -> _Copied:
    zone = settings.time.tz
    times = TimeReader(zone, settings.time.start_date(datetime.now(zone).date()))
    name = file.metric.name
    samples = 0
    first_ms, last_ms = math.inf, -math.inf
    chunks = read_chunks(path, committed_bytes(path))
    with atomic_writer(file.path) as write:
        for line, row in read_table(chunks, [file.metric], times, str(path)):
            for reject in row.rejects:
                rejects[reject.reject_class] += 1
                write_reject(file_reject_line(str(path), line.number, reject, line.content))
            if (sample := row.sample) is not None:
                ts_ms = sample.ts_ms
                write(value_line(ts_ms, sample.server_id, sample.values[name]))
                samples += 1
                first_ms, last_ms = min(first_ms, ts_ms), max(last_ms, ts_ms)
            if stop.is_set():
                raise AnalysisStopped(STOPPED)
    return _Copied(samples, (int(first_ms), int(last_ms)) if samples else ())

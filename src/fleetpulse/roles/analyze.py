"""The batch jobs: a family's CSV files -> window rows -> its output file, on either engine."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from fleetpulse.config import Settings
from fleetpulse.domain.errors import FleetpulseError
from fleetpulse.domain.metric import Family
from fleetpulse.domain.reject import RejectClass
from fleetpulse.domain.summary import WindowSummary
from fleetpulse.edges.files import atomic_writer
from fleetpulse.roles.intake import AnalysisStopped, Interpreter, Reading, RejectFile, reject_file
from fleetpulse.roles.job import Job, Plan, plan_of


@dataclass(frozen=True, slots=True)
class SparkOptions:
    """Where Spark runs (None: this machine), what else is set there, and where Java is sought."""

    environ: Mapping[str, str]
    master: str | None = None
    conf: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AnalyzeSummary:
    """What a job read and wrote.

    `samples` by metric name, `rejects` by class (in `rejects_path` if there are some). `seconds`
    is the time of the windows: the embedded engine's begins with the first line, Spark's once it
    has started.
    """

    family: Family
    out: Path
    samples: Mapping[str, int]
    rejects: Mapping[RejectClass, int]
    rejects_path: Path
    windows: WindowSummary
    seconds: float


def analyze(
    settings: Settings,
    jobs: Sequence[Job],
    interpreter: Interpreter,
    stop: Event,
    say: Callable[[str], None],
) -> list[AnalyzeSummary]:
    """Run the jobs one after the other, and return what each did.

    All inputs are read and checked before the first output is begun; each output appears whole.
    Raises UsageError for an input that is not there or no table of its metric, AnalysisStopped once
    `stop` is set, and what the interpreter raises.
    """
    plans = [plan_of(settings, job) for job in jobs]
    taken = [_take_in(plan, interpreter, stop, say) for plan in plans]
    return [_write(plan, *one, stop) for plan, one in zip(plans, taken, strict=True)]


def _take_in(
    plan: Plan, interpreter: Interpreter, stop: Event, say: Callable[[str], None]
) -> tuple[Reading, RejectFile]:
    with reject_file(plan.rejects_path) as rejects:
        reading = interpreter(plan, rejects, stop)
    parts = ", ".join(
        f"{count} samples from {' + '.join(map(str, paths))}"
        for count, paths in zip(reading.intake.samples, plan.inputs, strict=True)
    )
    rejected = rejects.counts.total()
    say(parts + (f"; {rejected} rejects in {plan.rejects_path}" if rejected else ""))
    return reading, rejects


def _write(plan: Plan, reading: Reading, rejects: RejectFile, stop: Event) -> AnalyzeSummary:
    begun_s = reading.begin()
    with atomic_writer(plan.out) as write, _ending_at(stop):
        windows = reading.write_windows(write)
    return AnalyzeSummary(
        family=plan.family,
        out=plan.out,
        samples={
            metric.name: count
            for metric, count in zip(plan.family.metrics, reading.intake.samples, strict=True)
        },
        rejects=rejects.counts,
        rejects_path=plan.rejects_path,
        windows=windows,
        seconds=time.monotonic() - begun_s,
    )


@contextmanager
def _ending_at(stop: Event) -> Iterator[None]:
    """Raise AnalysisStopped in place of whatever a stop made fail inside."""
    try:
        yield
    except FleetpulseError as err:
        if not stop.is_set():
            raise
        raise AnalysisStopped from err
    if stop.is_set():
        raise AnalysisStopped

"""The batch jobs: a family's CSV files -> window rows through Spark -> its output file."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Final

from pyspark.sql import SparkSession

from fleetpulse.codec.windows import format_windows
from fleetpulse.config import Settings
from fleetpulse.domain.errors import FleetpulseError
from fleetpulse.domain.metric import Family
from fleetpulse.domain.reject import RejectClass
from fleetpulse.domain.summary import WindowSummary, WindowTally
from fleetpulse.edges.files import atomic_writer, scratch_folder
from fleetpulse.edges.spark.batch import window_rows
from fleetpulse.edges.spark.session import SessionOptions, cancelled_by, explained, open_session
from fleetpulse.roles.intake import STOPPED, AnalysisStopped, Intake, take_in
from fleetpulse.roles.job import Job, Plan, plan_of
from fleetpulse.roles.setup import ready_java

# Of both jobs, beside the first output.
LOG_NAME: Final = "spark.log"


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
    is the time of its own work, without the start of Spark.
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
    spark: SparkOptions,
    stop: Event,
    say: Callable[[str], None],
) -> list[AnalyzeSummary]:
    """Run the jobs one after the other in one Spark, and return what each did.

    All inputs are read and checked before Spark starts; each output appears whole. Raises
    UsageError for an input that is not there or no table of its metric, FleetpulseError where Spark
    fails, and AnalysisStopped once `stop` is set.
    """
    plans = [plan_of(settings, job) for job in jobs]
    with ExitStack() as kept:
        taken = []
        for plan in plans:
            folder = kept.enter_context(scratch_folder(plan.out))
            taken.append(_take_in(settings, plan, folder, stop, say))
        started_s = time.monotonic()
        java_home = ready_java(spark.environ).home
        log_path = plans[0].out.with_name(LOG_NAME)
        options = SessionOptions(log_path, java_home, spark.master, spark.conf)
        session = kept.enter_context(open_session(options))
        if stop.is_set():
            raise AnalysisStopped(STOPPED)
        say(f"Spark started in {time.monotonic() - started_s:.1f} s")
        return [
            _write(settings, plan, intake, session, log_path, stop)
            for plan, intake in zip(plans, taken, strict=True)
        ]


def _take_in(
    settings: Settings, plan: Plan, folder: Path, stop: Event, say: Callable[[str], None]
) -> Intake:
    intake = take_in(settings, plan, folder, stop)
    parts = ", ".join(
        f"{count} samples from {path}"
        for count, path in zip(intake.samples, plan.inputs, strict=True)
    )
    rejected = intake.rejects.total()
    say(parts + (f"; {rejected} rejects in {plan.rejects_path}" if rejected else ""))
    return intake


def _write(
    settings: Settings,
    plan: Plan,
    intake: Intake,
    session: SparkSession,
    log_path: Path,
    stop: Event,
) -> AnalyzeSummary:
    started_s = time.monotonic()
    spec = settings.window.spec(intake.first_ms)
    rules = settings.rule_set(plan.family)
    tally = WindowTally(rules)
    span_ms = 0
    if intake.first_ms is not None and intake.last_ms is not None:
        span_ms = spec.span_ms(intake.first_ms, intake.last_ms)
    with (
        atomic_writer(plan.out) as write,
        _ending_at(stop),
        explained(log_path),
        cancelled_by(stop, session),
    ):
        rows = tally.counted(window_rows(session, intake.files, spec, rules, settings.arithmetic))
        for line in format_windows(
            plan.family, rows, span_ms, settings.time.output, settings.time.tz
        ):
            write(line)
    return AnalyzeSummary(
        family=plan.family,
        out=plan.out,
        samples={
            metric.name: count
            for metric, count in zip(plan.family.metrics, intake.samples, strict=True)
        },
        rejects=intake.rejects,
        rejects_path=plan.rejects_path,
        windows=tally.summary(),
        seconds=time.monotonic() - started_s,
    )


@contextmanager
def _ending_at(stop: Event) -> Iterator[None]:
    """Raise AnalysisStopped in place of whatever a stop made fail inside."""
    try:
        yield
    except FleetpulseError as err:
        if not stop.is_set():
            raise
        raise AnalysisStopped(STOPPED) from err
    if stop.is_set():
        raise AnalysisStopped(STOPPED)

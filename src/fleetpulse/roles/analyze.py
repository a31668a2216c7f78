"""The batch jobs: a family's CSV files -> window rows through Spark -> its output file."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Final

from pyspark.sql import SparkSession

from fleetpulse.codec.rejects import rejects_file_name
from fleetpulse.codec.windows import format_windows
from fleetpulse.config import Settings
from fleetpulse.domain.errors import FleetpulseError, UsageError
from fleetpulse.domain.metric import CPU_MEM, NET_DISK, Family
from fleetpulse.domain.reject import RejectClass
from fleetpulse.domain.summary import WindowSummary, WindowTally
from fleetpulse.edges.files import atomic_writer, scratch_folder
from fleetpulse.edges.spark.batch import window_rows
from fleetpulse.edges.spark.session import SessionOptions, cancelled_by, explained, open_session
from fleetpulse.roles.intake import STOPPED, AnalysisStopped, Intake, take_in
from fleetpulse.roles.setup import ready_java

_JOB_NAMES: Final = {CPU_MEM: "spark-job1", NET_DISK: "spark-job2"}
_CONSUMERS: Final = {CPU_MEM: "consumer1", NET_DISK: "consumer2"}


@dataclass(frozen=True, slots=True)
class Job:
    """A family to analyze; files that are None are those of the settings."""

    family: Family
    inputs: tuple[Path | None, Path | None] = (None, None)
    out: Path | None = None


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


@dataclass(frozen=True, slots=True)
class _Plan:
    family: Family
    inputs: tuple[Path, Path]
    out: Path

    @property
    def rejects_path(self) -> Path:
        return self.out.with_name(rejects_file_name(_JOB_NAMES[self.family]))


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
    plans = [_plan(settings, job) for job in jobs]
    with ExitStack() as kept:
        taken = []
        for plan in plans:
            folder = kept.enter_context(scratch_folder(plan.out))
            taken.append(_take_in(settings, plan, folder, stop, say))
        started_s = time.monotonic()
        java_home = ready_java(spark.environ).home
        log_path = settings.output_dir / "spark.log"
        options = SessionOptions(log_path, java_home, spark.master, spark.conf)
        session = kept.enter_context(open_session(options))
        say(f"Spark started in {time.monotonic() - started_s:.1f} s")
        return [
            _write(settings, plan, intake, session, log_path, stop)
            for plan, intake in zip(plans, taken, strict=True)
        ]


def _plan(settings: Settings, job: Job) -> _Plan:
    paths = []
    for given, topic in zip(job.inputs, job.family.topics, strict=True):
        default = settings.record_path(topic)
        path = given or default
        if not path.exists():
            if path == default:
                role = _CONSUMERS[job.family]
                raise UsageError(f"{role} has not written {path} yet: run it first")
            raise UsageError(f"{path}: there is no such file; check the path")
        paths.append(path)
    out = job.out or settings.windows_path(job.family)
    if out.is_dir():
        raise UsageError(f"{out}: this is a folder, wanted a file to write")
    if out.resolve() in [path.resolve() for path in paths]:
        raise UsageError(f"{out}: this is an input of the same job, wanted another file to write")
    return _Plan(job.family, (paths[0], paths[1]), out)


def _take_in(
    settings: Settings, plan: _Plan, folder: Path, stop: Event, say: Callable[[str], None]
) -> Intake:
    intake = take_in(settings, plan.family, plan.inputs, folder, plan.rejects_path, stop)
    parts = ", ".join(
        f"{count} samples from {path}"
        for count, path in zip(intake.samples, plan.inputs, strict=True)
    )
    rejected = intake.rejects.total()
    say(parts + (f"; {rejected} rejects in {plan.rejects_path}" if rejected else ""))
    return intake


def _write(
    settings: Settings,
    plan: _Plan,
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

"""Windows of CSV files by Spark: their checked values in files that Spark reads, then one query."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final

from pyspark.sql import SparkSession

from fleetpulse.codec.table import read_table
from fleetpulse.codec.windows import format_windows
from fleetpulse.config import Settings
from fleetpulse.domain.summary import WindowSummary, WindowTally
from fleetpulse.edges.files import atomic_writer, scratch_folder
from fleetpulse.edges.spark.batch import ValueFile, value_line, window_rows
from fleetpulse.edges.spark.session import SessionOptions, cancelled_by, explained, open_session
from fleetpulse.roles.analyze import SparkOptions
from fleetpulse.roles.intake import (
    AnalysisStopped,
    Intake,
    Interpreter,
    RejectFile,
    input_chunks,
    times_of_file,
)
from fleetpulse.roles.job import Plan
from fleetpulse.roles.setup import ready_java

# Of all jobs, beside the first output.
LOG_NAME: Final = "spark.log"


@dataclass(frozen=True, slots=True)
class Copies:
    """The values of a family in files for Spark, and what was in the inputs."""

    files: tuple[ValueFile, ValueFile]
    intake: Intake


@contextmanager
def spark_interpreter(
    settings: Settings, options: SparkOptions, say: Callable[[str], None]
) -> Iterator[Interpreter]:
    """Give an interpreter that starts Spark, once for all jobs, before the first windows.

    Afterwards Spark is stopped and the copies of the inputs are gone. The interpreter raises
    FleetpulseError where Spark fails.
    """
    with ExitStack() as kept:
        spark = _Spark(options, kept, say)

        def read(plan: Plan, rejects: RejectFile, stop: Event) -> _SparkReading:
            spark.log_path = spark.log_path or plan.out.with_name(LOG_NAME)
            folder = kept.enter_context(scratch_folder(plan.out))
            copies = copy_values(settings, plan, folder, rejects, stop)
            return _SparkReading(settings, plan, copies, stop, spark)

        yield read


def copy_values(
    settings: Settings, plan: Plan, folder: Path, rejects: RejectFile, stop: Event
) -> Copies:
    """Copy the family's metrics from the inputs of a plan to value files in `folder`.

    Raises UsageError for a file that is no table of its metric, and AnalysisStopped.
    """
    first, second = (
        ValueFile(metric, folder / f"{metric.name}.csv") for metric in plan.family.metrics
    )
    copied = [
        _copy(settings, paths, file, rejects, stop)
        for paths, file in zip(plan.inputs, (first, second), strict=True)
    ]
    instants_ms = [one for part in copied for one in part.instants_ms]
    intake = Intake(
        (copied[0].samples, copied[1].samples),
        min(instants_ms, default=None),
        max(instants_ms, default=None),
    )
    return Copies((first, second), intake)


@dataclass(slots=True)
class _Spark:
    """Spark, which runs from when it is first needed until `kept` is left."""

    options: SparkOptions
    kept: ExitStack
    say: Callable[[str], None]
    log_path: Path | None = None
    session: SparkSession | None = None

    def started(self, stop: Event) -> SparkSession:
        """Return its session. Raises FleetpulseError where it does not start; AnalysisStopped."""
        if self.session is None:
            started_s = time.monotonic()
            java_home = ready_java(self.options.environ).home
            log_path = self.log_path or Path(LOG_NAME)
            options = SessionOptions(log_path, java_home, self.options.master, self.options.conf)
            self.session = self.kept.enter_context(open_session(options))
            if stop.is_set():
                raise AnalysisStopped
            self.say(f"Spark started in {time.monotonic() - started_s:.1f} s")
        return self.session


@dataclass(frozen=True, slots=True)
class _SparkReading:
    settings: Settings
    plan: Plan
    copies: Copies
    stop: Event
    spark: _Spark

    @property
    def intake(self) -> Intake:
        return self.copies.intake

    def begin(self) -> float:
        self.spark.started(self.stop)
        return time.monotonic()

    def write_windows(self, write: Callable[[str], object]) -> WindowSummary:
        settings, family = self.settings, self.plan.family
        spec = settings.window.spec(self.intake.first_ms)
        rules = settings.rule_set(family)
        tally = WindowTally(rules)
        span_ms = self.intake.span_ms(spec)
        session = self.spark.started(self.stop)
        with explained(self.spark.log_path), cancelled_by(self.stop, session):
            found = window_rows(session, self.copies.files, spec, rules, settings.arithmetic)
            for line in format_windows(
                family, tally.counted(found), span_ms, settings.time.output, settings.time.tz
            ):
                write(line)
        return tally.summary()


@dataclass(frozen=True, slots=True)
class _Copied:
    samples: int
    instants_ms: tuple[int, ...]


def _copy(
    settings: Settings, paths: Sequence[Path], file: ValueFile, rejects: RejectFile, stop: Event
) -> _Copied:
    name = file.metric.name
    samples = 0
    first_ms, last_ms = math.inf, -math.inf
    with atomic_writer(file.path) as write:
        for path in paths:
            times = times_of_file(settings)
            for line, row in read_table(input_chunks(path, stop), [file.metric], times, str(path)):
                for reject in row.rejects:
                    rejects.note(path, line.number, reject, line.content)
                if (sample := row.sample) is not None:
                    ts_ms = sample.ts_ms
                    write(value_line(ts_ms, sample.server_id, sample.values[name]))
                    samples += 1
                    first_ms, last_ms = min(first_ms, ts_ms), max(last_ms, ts_ms)
    return _Copied(samples, (int(first_ms), int(last_ms)) if samples else ())

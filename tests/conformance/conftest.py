import datetime as dt
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from pyspark.sql import SparkSession

from fleetpulse.codec.table import read_table
from fleetpulse.codec.windows import format_windows
from fleetpulse.config import Settings
from fleetpulse.domain.aggregate import WindowRow, fold
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.metric import Family
from fleetpulse.domain.position import Partition
from fleetpulse.edges.files import read_chunks
from fleetpulse.edges.spark.batch import window_rows
from fleetpulse.edges.spark.session import SessionOptions, open_session
from fleetpulse.engine import Engine, Liveness, Table, first_instant
from fleetpulse.roles.intake import take_in
from fleetpulse.roles.job import Job, plan_of
from fleetpulse.roles.setup import ready_java

# Settings, a family and a CSV file that holds its metrics -> the text of the family's output.
Interpreter = Callable[[Settings, Family, Path], str]


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    log_path = tmp_path_factory.mktemp("spark") / "spark.log"
    java_home = ready_java(os.environ).home
    with open_session(SessionOptions(log_path, java_home, "local[2]")) as session:
        yield session


@pytest.fixture(scope="session")
def reference() -> Interpreter:
    def interpret(settings: Settings, family: Family, path: Path) -> str:
        samples = []
        for metric in family.metrics:
            # As in the consumers' files, each metric has a clock of its own.
            times = TimeReader(
                settings.time.tz, settings.time.start_date(dt.datetime.now(dt.UTC).date())
            )
            for _, row in read_table(read_chunks(path), [metric], times, str(path)):
                if row.sample is not None:
                    samples.append(row.sample)
        spec = settings.window.spec(min((one.ts_ms for one in samples), default=None))
        rows = fold(samples, spec, settings.rule_set(family), settings.arithmetic)
        span_ms = max(row.end_ms for row in rows) - min(row.start_ms for row in rows) if rows else 0
        return _text(settings, family, rows, span_ms)

    return interpret


@pytest.fixture(scope="session")
def spark_batch(spark: SparkSession) -> Interpreter:
    def interpret(settings: Settings, family: Family, path: Path) -> str:
        with TemporaryDirectory() as name:
            folder = Path(name)
            plan = plan_of(settings, Job(family, (path, path), folder / "windows.csv"))
            intake = take_in(settings, plan, folder, threading.Event())
            spec = settings.window.spec(intake.first_ms)
            span_ms = 0
            if intake.first_ms is not None and intake.last_ms is not None:
                span_ms = spec.span_ms(intake.first_ms, intake.last_ms)
            rules = settings.rule_set(family)
            rows = list(window_rows(spark, intake.files, spec, rules, settings.arithmetic))
        return _text(settings, family, rows, span_ms)

    return interpret


@pytest.fixture(scope="session")
def embedded() -> Interpreter:
    def interpret(settings: Settings, family: Family, path: Path) -> str:
        day = settings.time.start_date(dt.datetime.now(dt.UTC).date())
        tables = [
            Table(metric, TimeReader(settings.time.tz, day), str(path)) for metric in family.metrics
        ]
        # A grid may hang on the first event, so the file is read for that first.
        first_ms = [first_instant(table, read_chunks(path)) for table in tables]
        last_ms = [table.last_ms for table in tables if table.last_ms is not None]
        found_ms = [one for one in first_ms if one is not None]
        spec = settings.window.spec(min(found_ms, default=None))
        engine = Engine(
            settings.rule_set(family),
            lambda _: spec,
            settings.arithmetic,
            Liveness(lateness_ms=None, max_skew_ms=None),
            settings.time.tz,
            day,
        )
        engine.assign({Partition(topic.key, 0): topic for topic in family.topics}, 0)
        for topic, metric in zip(family.topics, family.metrics, strict=True):
            where = Partition(topic.key, 0)
            table = Table(metric, TimeReader(settings.time.tz, day), str(path))
            for chunk in [*read_chunks(path), None]:
                assert not engine.receive_table(where, table, chunk).windows
        rows = sorted(
            engine.finish().rows(), key=lambda row: (row.server_id.encode(), row.start_ms)
        )
        span_ms = spec.span_ms(min(found_ms), max(last_ms)) if found_ms else 0
        return _text(settings, family, rows, span_ms)

    return interpret


@pytest.fixture(scope="session", params=["reference", "embedded", "spark_batch"])
def interpreter(request: pytest.FixtureRequest) -> Interpreter:
    found: Interpreter = request.getfixturevalue(request.param)
    return found


def _text(settings: Settings, family: Family, rows: Sequence[WindowRow], span_ms: int) -> str:
    output, zone = settings.time.output, settings.time.tz
    return "".join(format_windows(family, rows, span_ms, output, zone))

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
from fleetpulse.edges.files import read_chunks
from fleetpulse.edges.kafka import broker
from fleetpulse.edges.kafka.address import free_port
from fleetpulse.edges.kafka.broker import BrokerSpec
from fleetpulse.edges.spark.batch import window_rows
from fleetpulse.edges.spark.session import SessionOptions, open_session
from fleetpulse.roles.analyze import analyze
from fleetpulse.roles.analyze_embedded import EmbeddedInterpreter
from fleetpulse.roles.analyze_spark import copy_values
from fleetpulse.roles.intake import reject_file
from fleetpulse.roles.job import Job, plan_of
from fleetpulse.roles.setup import BROKER_JARS, CONNECTOR_JARS, ready_jars, ready_java

# Settings, a family and a CSV file that holds its metrics -> the text of the family's output.
Interpreter = Callable[[Settings, Family, Path], str]


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    log_path = tmp_path_factory.mktemp("spark") / "spark.log"
    java = ready_java(os.environ)
    # What spark-stream starts with: the connector, and names that let code be compiled once.
    jars = ready_jars(CONNECTOR_JARS, os.environ, java, lambda _line: None)
    conf = {
        "spark.jars": ",".join(map(str, jars)),
        "spark.sql.codegen.useIdInClassName": "false",
    }
    with open_session(SessionOptions(log_path, java.home, "local[2]", conf)) as session:
        yield session


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real broker."""
    java = ready_java(os.environ)
    jars = ready_jars(BROKER_JARS, os.environ, java, lambda _line: None)
    data_dir = tmp_path_factory.mktemp("broker")
    spec = BrokerSpec("127.0.0.1", free_port(), data_dir, java.executable, jars)
    with broker.running(spec, lambda _line: None):
        yield spec.address


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
            plan = plan_of(settings, Job("spark-job", family, (path, path), folder / "windows.csv"))
            with reject_file(plan.rejects_path) as rejects:
                copies = copy_values(settings, plan, folder, rejects, threading.Event())
            spec = settings.window.spec(copies.intake.first_ms)
            rules = settings.rule_set(family)
            rows = list(window_rows(spark, copies.files, spec, rules, settings.arithmetic))
        return _text(settings, family, rows, copies.intake.span_ms(spec))

    return interpret


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Interpreter:
    out = tmp_path_factory.mktemp("embedded") / "windows.csv"

    def interpret(settings: Settings, family: Family, path: Path) -> str:
        job = Job("analyze", family, (path, path), out)
        analyze(settings, [job], EmbeddedInterpreter(settings), threading.Event(), lambda _: None)
        return out.read_text(encoding="utf-8")

    return interpret


@pytest.fixture(scope="session", params=["reference", "embedded", "spark_batch"])
def interpreter(request: pytest.FixtureRequest) -> Interpreter:
    found: Interpreter = request.getfixturevalue(request.param)
    return found


def _text(settings: Settings, family: Family, rows: Sequence[WindowRow], span_ms: int) -> str:
    output, zone = settings.time.output, settings.time.tz
    return "".join(format_windows(family, rows, span_ms, output, zone))

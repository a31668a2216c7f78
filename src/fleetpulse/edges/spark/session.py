"""A Spark session that starts quickly, prints nothing on the console, and ends with its JVM.

Spark's own output goes to one log file. Under spark-submit the JVM, its settings and its log are
the submitter's; only what the meaning of a result hangs on is set there too.
"""

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pyspark
from py4j.java_gateway import JavaGateway  # type: ignore[import-untyped]
from py4j.protocol import Py4JError, Py4JNetworkError  # type: ignore[import-untyped]
from pyspark.conf import SparkConf
from pyspark.core.context import SparkContext
from pyspark.errors import PySparkException
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from fleetpulse.domain.errors import DiskError, FleetpulseError

_SUBMITTED: Final = "PYSPARK_GATEWAY_PORT"
# The numbers behind these are in docs/adr/0008-a-session-that-starts-quickly.md.
_QUICK_JAVA: Final = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
_JAVA_OPTIONS: Final = "spark.driver.extraJavaOptions"
# A result may not hang on these, so no one else sets them: an overflow raises, instants are UTC.
_MEANING: Final = {"spark.sql.ansi.enabled": "true", "spark.sql.session.timeZone": "UTC"}
_STOP_TIMEOUT_S: Final = 20
_STOP_POLL_S: Final = 0.2
_REASON_CHARS: Final = 300
_GONE: Final = "its Java process ended (killed, or out of memory)"
_LOG_MODE: Final = 0o640
# Appends, because the JVM's own standard error goes to the same file.
_LOG_SETTINGS: Final = """\
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
appender.file.type = File
appender.file.name = file
appender.file.fileName = {path}
appender.file.append = true
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{yyyy-MM-dd HH:mm:ss}} %p %c{{1}}: %m%n%ex
"""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How to start Spark: where it runs, what else is set, with which Java, where it logs."""

    log_path: Path
    java_home: Path | None = None
    master: str | None = None
    conf: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def open_session(options: SessionOptions) -> Iterator[SparkSession]:
    """Start Spark, give its session, and stop it with its JVM.

    Raises FleetpulseError where it does not start, and DiskError where its log cannot be written.
    """
    if _SUBMITTED in os.environ:
        with explained(None), _sigint_kept():
            session = _submitted(options)
        try:
            yield session
        finally:
            session.stop()
        return
    with explained(options.log_path):
        gateway, conf = _launch(options)
    try:
        with explained(options.log_path), _sigint_kept():
            context = SparkContext(conf=conf, gateway=gateway)
            # Both would print tracebacks where the Java process is gone; `explained` says that.
            logging.getLogger().addHandler(logging.NullHandler())
            context._accumulatorServer.handle_error = _ignore  # type: ignore[assignment,method-assign]  # noqa: SLF001
            session = SparkSession(context)
            _set_meaning(session)
        yield session
    finally:
        _end(gateway)


@contextmanager
def explained(log_path: Path | None) -> Iterator[None]:
    """Turn what Spark raises inside into a FleetpulseError of one line that names the log."""
    try:
        yield
    except (Py4JError, PySparkException, EOFError, ConnectionError) as err:
        reason = _reason(err)
        where = f"; details are in {log_path}" if log_path and log_path.exists() else ""
        if "No space left on device" in reason:
            raise DiskError(
                f"Spark: the disk is full; make room and run this again{where}"
            ) from err
        raise FleetpulseError(f"Spark failed: {reason}{where}") from err


@contextmanager
def cancelled_by(stop: threading.Event, session: SparkSession) -> Iterator[None]:
    """Cancel what Spark computes inside as soon as `stop` is set; it then raises."""
    is_over = threading.Event()

    def watch() -> None:
        # Again and again: a query starts several jobs, one after the other.
        while not is_over.wait(_STOP_POLL_S):
            if stop.is_set():
                # A Java process that is gone has nothing left to cancel.
                with suppress(Py4JError, OSError):
                    session.sparkContext.cancelAllJobs()

    watcher = threading.Thread(target=watch, name="spark-stop", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()


@contextmanager
def _sigint_kept() -> Iterator[None]:
    """Give SIGINT back to the command: PySpark takes it when a context starts."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def _ignore(_request: object, _client_address: object) -> None:
    pass


def _submitted(options: SessionOptions) -> SparkSession:
    builder = SparkSession.builder
    if options.master:
        builder = builder.master(options.master)
    for key, value in options.conf.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    _set_meaning(session)
    return session


def _set_meaning(session: SparkSession) -> None:
    for key, value in _MEANING.items():
        session.conf.set(key, value)


def _launch(options: SessionOptions) -> tuple[JavaGateway, SparkConf]:
    """Start the JVM with all it prints in the log file."""
    try:
        options.log_path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        descriptor = os.open(options.log_path, flags, _LOG_MODE)
        with (
            os.fdopen(descriptor, "wb") as log,
            TemporaryDirectory(prefix="fleetpulse-spark-") as folder,
        ):
            log_settings = Path(folder) / "log4j2.properties"
            log_settings.write_text(_LOG_SETTINGS.format(path=options.log_path.absolute()))
            conf = SparkConf(loadDefaults=False)
            conf.setAll(list(_conf(options, log_settings).items()))
            with _environment(options):
                gateway: JavaGateway = launch_gateway(  # type: ignore[no-untyped-call]
                    conf, {"stdout": log, "stderr": log}
                )
    except OSError as err:
        raise DiskError(
            f"{options.log_path}: cannot start Spark with this log ({err.strerror}); "
            "check the folder and the disk"
        ) from err
    return gateway, conf


def _master(options: SessionOptions) -> str:
    return options.master or options.conf.get("spark.master", "local[*]")


def _conf(options: SessionOptions, log_settings: Path) -> dict[str, str]:
    master = _master(options)
    conf = {
        "spark.app.name": "fleetpulse",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # Hadoop sets the modes of what it writes, whatever the umask of the process.
        "spark.hadoop.fs.permissions.umask-mode": "027",
    }
    if master.startswith("local"):
        conf |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.sql.adaptive.enabled": "false",
            "spark.sql.shuffle.partitions": str(max(2, os.cpu_count() or 2)),
        }
    conf |= options.conf
    conf["spark.master"] = master
    java_options = (
        f'{_QUICK_JAVA} "-Dlog4j2.configurationFile={log_settings.as_uri()}" '
        f"{options.conf.get(_JAVA_OPTIONS, '')}"
    )
    return conf | _MEANING | {_JAVA_OPTIONS: java_options.strip()}


@contextmanager
def _environment(options: SessionOptions) -> Iterator[None]:
    """Set what Spark's launcher reads from the environment, for as long as it starts."""
    # The JVM must be of the same Spark as this PySpark, whatever else is installed.
    wanted = {"SPARK_HOME": str(Path(pyspark.__file__).parent)}
    if _master(options).startswith("local"):
        # Spark looks its machine's name up, and fails where nobody knows it.
        wanted["SPARK_LOCAL_IP"] = os.environ.get("SPARK_LOCAL_IP", "127.0.0.1")
    if options.java_home is not None:
        wanted["JAVA_HOME"] = str(options.java_home)
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def _end(gateway: JavaGateway) -> None:
    """Stop the context and wait for the end of its JVM, which dies with its standard input."""
    with suppress(Py4JError, OSError):  # The Java process may be gone already.
        if (context := SparkContext._active_spark_context) is not None:  # noqa: SLF001  PySpark offers no public name
            context.stop()
    SparkContext._gateway = SparkContext._jvm = None  # noqa: SLF001  so that another may start
    gateway.proc.stdin.close()
    try:
        gateway.proc.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        gateway.proc.kill()
        gateway.proc.wait()
    # Only now: closing a connection waits for the thread that reads from it, and one that waits for
    # calls from Java reads until Java is gone.
    with suppress(Py4JError, OSError):
        gateway.shutdown()


def _reason(err: BaseException) -> str:
    """Return the innermost cause of a Java error in one line, without its stack."""
    if isinstance(err, EOFError | ConnectionError | Py4JNetworkError):
        return _GONE
    text = str(err)
    causes = [line for line in text.splitlines() if line.startswith("Caused by: ")]
    lines = [line.strip() for line in (causes[-1:] or text.splitlines()) if line.strip()]
    if isinstance(err, PySparkException) and err.getCondition() == "JAVA_GATEWAY_EXITED":
        return "its Java process did not start"
    # Py4J's own preface says only where in Python the call was; alone it is all that is left of a
    # call into a process that is gone.
    first = next((line for line in lines if not line.startswith("An error occurred")), _GONE)
    return first.removeprefix("Caused by: ").removeprefix(": ")[:_REASON_CHARS]

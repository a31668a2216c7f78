"""A real single-node Kafka (KRaft) on this machine, started, asked and stopped.

A process is a folder's broker when its command line names the folder's settings, so a recycled
process id is never taken for it, whatever the clock did.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from fleetpulse.domain.errors import AlreadyRunning
from fleetpulse.edges.kafka.address import accepts, check_address, free_port
from fleetpulse.edges.kafka.broker_folder import UMASK, BrokerFolder
from fleetpulse.edges.kafka.survey import silent_logger

START_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.05
_PROBE_TIMEOUT_S: Final = 2.0
# How a Java machine ends that was asked to: in order (128 + SIGTERM), or before it took signals.
_STOPPED_CODES: Final = (0, 143, -15)


@dataclass(frozen=True, slots=True)
class BrokerSpec:
    """The broker to run: where clients reach it, its data folder, and what to run it with."""

    host: str
    port: int
    data_dir: Path
    java: Path
    class_path: tuple[Path, ...]
    heap_mb: int = 512

    @property
    def address(self) -> str:
        """Return `host:port`, an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """What is known of a data folder's broker; `pid` and `address` are None when it is stopped."""

    data_dir: Path
    log_path: Path
    pid: int | None
    address: str | None
    is_answering: bool


def start(spec: BrokerSpec, say: Callable[[str], None], timeout_s: float = START_TIMEOUT_S) -> bool:
    """Start the broker as a process of its own; return True once it answers.

    Returns False, and leaves it alone, when this folder's broker runs already. Raises UsageError
    for an address that cannot be served, DiskError, AlreadyRunning while somebody else starts it,
    and FleetpulseError with the end of its log where it dies or does not answer in time.
    """
    folder = BrokerFolder.at(spec.data_dir)
    with folder.launching():
        if _running(folder) is not None:
            return False
        _prepare(spec, folder, say)
        pid = _spawn_detached(spec, folder)
        try:
            folder.write_process(pid, spec.address)
            _await_answer(spec, folder, lambda: _is_alive(pid), timeout_s)
        except BaseException:
            _end(pid, folder, STOP_TIMEOUT_S)
            folder.forget_process(pid)
            raise
    return True


@contextlib.contextmanager
def running(
    spec: BrokerSpec, say: Callable[[str], None], timeout_s: float = START_TIMEOUT_S
) -> Iterator[Callable[[], bool]]:
    """Run the broker as a child of this process, from its first answer to the context's end.

    Gives a function that returns whether it still runs: False after it was stopped from outside.
    Raises as `start`, and AlreadyRunning when this folder's broker runs already; the function
    raises FleetpulseError where the broker died.
    """
    folder = BrokerFolder.at(spec.data_dir)
    with contextlib.ExitStack() as launch:
        launch.enter_context(folder.launching())
        if (pid := _running(folder)) is not None:
            raise AlreadyRunning(
                f"{folder.path}: its broker already runs as process {pid}; stop it with: "
                "fleetpulse broker stop"
            )
        _prepare(spec, folder, say)
        with folder.output() as output:
            process = subprocess.Popen(  # noqa: S603  our own Java and arguments
                _command(spec, folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                umask=UMASK,
                # A session of its own: Ctrl-C reaches us, and we end it in order.
                start_new_session=True,
            )
        try:
            folder.write_process(process.pid, spec.address)
            _await_answer(spec, folder, lambda: process.poll() is None, timeout_s)
            launch.close()
            yield lambda: _still_runs(process, folder)
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            folder.forget_process(process.pid)


def stop(data_dir: Path, timeout_s: float = STOP_TIMEOUT_S) -> bool:
    """Stop the folder's broker and wait for its end; return whether it was running.

    It gets `timeout_s` for an orderly end and is killed then; acknowledged messages survive both.
    """
    folder = BrokerFolder.at(data_dir)
    pid = _running(folder)
    if pid is None:
        return False
    _end(pid, folder, timeout_s)
    folder.forget_process(pid)
    return True


def status(data_dir: Path, probe_timeout_s: float = _PROBE_TIMEOUT_S) -> BrokerStatus:
    """Return whether the folder's broker runs, and whether it answers within `probe_timeout_s`."""
    folder = BrokerFolder.at(data_dir)
    noted = folder.read_process()
    if noted is None or not _is_broker(noted[0], folder):
        return BrokerStatus(folder.path, folder.log_path, None, None, is_answering=False)
    pid, address = noted
    is_answering = _answers(address, probe_timeout_s)
    return BrokerStatus(folder.path, folder.log_path, pid, address, is_answering)


def _prepare(spec: BrokerSpec, folder: BrokerFolder, say: Callable[[str], None]) -> None:
    check_address(spec.host, spec.port)
    folder.write_settings(spec.address, free_port())
    if not folder.is_formatted():
        say(f"formatting {folder.messages_path}")
        folder.format(spec.java, _class_path(spec))
    say(f"starting Kafka on {spec.address}")


def _class_path(spec: BrokerSpec) -> str:
    return os.pathsep.join(map(str, spec.class_path))


def _command(spec: BrokerSpec, folder: BrokerFolder) -> list[str]:
    return [
        str(spec.java),
        f"-Xmx{spec.heap_mb}m",
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        f"-Dlog4j2.configurationFile={folder.log4j_path.as_uri()}",
        *("-cp", _class_path(spec), "kafka.Kafka", str(folder.settings_path)),
    ]


def _spawn_detached(spec: BrokerSpec, folder: BrokerFolder) -> int:
    # The shell starts it in a new session and ends: no terminal of ours reaches the broker, and
    # the system reaps it, whichever of us ends first.
    with folder.output() as output:
        shell = subprocess.run(  # noqa: S603  fixed script, our own Java and arguments
            ["/bin/sh", "-c", '"$@" >&2 & echo $!', "sh", *_command(spec, folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            umask=UMASK,
            start_new_session=True,
            check=True,
        )
    return int(shell.stdout)


def _await_answer(
    spec: BrokerSpec, folder: BrokerFolder, is_alive: Callable[[], bool], timeout_s: float
) -> None:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if not is_alive():
            raise folder.failure("the broker ended while it started")
        # Asking before it listens would only make the client wait longer between its attempts.
        if accepts(spec.host, spec.port, _PROBE_TIMEOUT_S) and _answers(
            spec.address, _PROBE_TIMEOUT_S
        ):
            return
        time.sleep(_POLL_S)
    raise folder.failure(f"the broker did not answer within {timeout_s:g} s and was stopped")


def _answers(address: str, timeout_s: float) -> bool:
    client = AdminClient({"bootstrap.servers": address, "log_level": 0}, logger=silent_logger)
    try:
        return bool(client.list_topics(timeout=timeout_s).brokers)
    except KafkaException:
        return False


def _still_runs(process: "subprocess.Popen[bytes]", folder: BrokerFolder) -> bool:
    code = process.poll()
    if code is None:
        return True
    if code in _STOPPED_CODES:
        return False
    raise folder.failure(f"the broker ended by itself (exit {code})")


def _running(folder: BrokerFolder) -> int | None:
    noted = folder.read_process()
    return noted[0] if noted and _is_broker(noted[0], folder) else None


def _is_broker(pid: int, folder: BrokerFolder) -> bool:
    try:
        return str(folder.settings_path) in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False


def _is_alive(pid: int) -> bool:
    # While a process takes on another program, its command line is empty for a moment.
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _end(pid: int, folder: BrokerFolder, timeout_s: float) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        # psutil compares start times before it signals: the id cannot be recycled in between.
        process = psutil.Process(pid)
        if not _is_broker(pid, folder):
            return
        process.terminate()
        try:
            process.wait(timeout_s)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(timeout_s)

"""A real single-node Kafka (KRaft) on this machine, started, asked and stopped.

A process is a folder's broker when its command line names the folder's settings, so a recycled
process id is never taken for it, whatever the clock did.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import psutil
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from fleetpulse.domain.errors import AccessDenied, AlreadyRunning
from fleetpulse.domain.secret import Secret
from fleetpulse.edges.kafka.access import ClientErrors, KafkaAccess
from fleetpulse.edges.kafka.address import accepts, check_address, free_port
from fleetpulse.edges.kafka.broker_folder import (
    SECURED_NAMES,
    UMASK,
    BrokerFolder,
    BrokerProcess,
    Listeners,
)
from fleetpulse.edges.kafka.grants import Grant, reload_certificate, set_grants, set_users
from fleetpulse.edges.kafka.tls import Tls, shows_expired

NODE_ID: Final = 1
START_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.05
_PROBE_TIMEOUT_S: Final = 2.0
# How a Java machine ends that was asked to: in order (128 + SIGTERM), or before it took signals.
_STOPPED_CODES: Final = (0, 143, -15)


@dataclass(frozen=True, slots=True)
class BrokerSecurity:
    """Whom a secured broker lets in, and to what.

    `tls` names its authority and, in one file, its key and certificate. `names` are the users that
    are ours to set: each has a password here or is let in no more.
    """

    tls: Tls
    passwords: Mapping[str, Secret]
    names: tuple[str, ...]
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True)
class BrokerSpec:
    """The broker to run: where clients reach it, its data folder, and what to run it with.

    Without `security` it lets everybody in.
    """

    host: str
    port: int
    data_dir: Path
    java: Path
    class_path: tuple[Path, ...]
    heap_mb: int = 512
    security: BrokerSecurity | None = None

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

    Returns False when this folder's broker runs already; users, permissions and certificate of a
    secured one are set again then, and nothing else of it is touched, unless the certificate that
    it shows has ended: nobody can tell it anything then, and it is started anew. Raises UsageError
    for an address that cannot be served, DiskError, AlreadyRunning while somebody else starts it,
    and FleetpulseError with the end of its log where it dies or does not answer in time.
    """
    folder = BrokerFolder.at(spec.data_dir)
    with folder.launching():
        if (noted := _running(folder)) is not None and _is_renewed(spec, noted, folder, say):
            return False
        listeners = _prepare(spec, folder, say)
        pid = _spawn_detached(spec, folder)
        try:
            folder.write_process(BrokerProcess(pid, spec.address, listeners.internal))
            _await_answer(spec, listeners, folder, lambda: _is_alive(pid), timeout_s)
        except BaseException:
            _end(pid, folder, STOP_TIMEOUT_S)
            folder.forget_process(pid)
            raise
    return True


@contextlib.contextmanager
def running(
    spec: BrokerSpec, say: Callable[[str], None], timeout_s: float = START_TIMEOUT_S
) -> Iterator["RunningBroker"]:
    """Run the broker as a child of this process, from its first answer to the context's end.

    Raises as `start`, and AlreadyRunning when this folder's broker runs already.
    """
    folder = BrokerFolder.at(spec.data_dir)
    with contextlib.ExitStack() as launch:
        launch.enter_context(folder.launching())
        if (noted := _running(folder)) is not None:
            raise AlreadyRunning(
                f"{folder.path}: its broker already runs as process {noted.pid}; stop it with: "
                "fleetpulse broker stop"
            )
        listeners = _prepare(spec, folder, say)
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
            noted = BrokerProcess(process.pid, spec.address, listeners.internal)
            folder.write_process(noted)
            _await_answer(spec, listeners, folder, lambda: process.poll() is None, timeout_s)
            launch.close()
            yield RunningBroker(process, folder, noted)
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
    noted = _running(folder)
    if noted is None:
        return False
    _end(noted.pid, folder, timeout_s)
    folder.forget_process(noted.pid)
    return True


def status(
    data_dir: Path, tls: Tls | None = None, probe_timeout_s: float = _PROBE_TIMEOUT_S
) -> BrokerStatus:
    """Return whether the folder's broker runs, and whether it answers within `probe_timeout_s`.

    A secured broker is asked with the certificate of `tls`; without one it is enough that it
    accepts connections.
    """
    folder = BrokerFolder.at(data_dir)
    noted = _running(folder)
    if noted is None:
        return BrokerStatus(folder.path, folder.log_path, None, None, is_answering=False)
    if noted.internal and (tls is None or tls.certificate_file is None):
        host, _, port = noted.internal.rpartition(":")
        is_answering = accepts(host, int(port), probe_timeout_s)
    else:
        is_answering = _answers(_own_access(noted, tls), probe_timeout_s)
    return BrokerStatus(folder.path, folder.log_path, noted.pid, noted.address, is_answering)


class RunningBroker:
    """A broker that runs as a child of this process."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", folder: BrokerFolder, noted: BrokerProcess
    ) -> None:
        """Take over a broker that answers."""
        self._process = process
        self._folder = folder
        self._noted = noted

    def is_running(self) -> bool:
        """Return whether it still runs: False after it was stopped from outside.

        Raises FleetpulseError where it died.
        """
        return _still_runs(self._process, self._folder)

    def renew(self, spec: BrokerSpec) -> None:
        """Set users, permissions and certificate again; raises ServiceUnreachable."""
        _renew(spec, self._noted)


def _is_renewed(
    spec: BrokerSpec, noted: BrokerProcess, folder: BrokerFolder, say: Callable[[str], None]
) -> bool:
    """Renew a broker that runs; False where that needed its end."""
    try:
        _renew(spec, noted)
    except AccessDenied:
        access = _own_access(noted, spec.security.tls if spec.security else None)
        if access.tls is None or not shows_expired(*access.first, access.tls):
            raise
        say("the certificate that it shows has ended: stopping it, to start it with the new one")
        _end(noted.pid, folder, STOP_TIMEOUT_S)
        folder.forget_process(noted.pid)
        return False
    return True


def _renew(spec: BrokerSpec, noted: BrokerProcess) -> None:
    security = spec.security
    if security is None or noted.internal is None:
        return
    access = _own_access(noted, security.tls)
    reload_certificate(access, NODE_ID, SECURED_NAMES)
    set_users(access, security.passwords, security.names)
    set_grants(access, security.grants, security.names)


def _own_access(noted: BrokerProcess, tls: Tls | None) -> KafkaAccess:
    """Return how this machine itself reaches its broker."""
    return KafkaAccess(noted.internal, tls) if noted.internal else KafkaAccess(noted.address)


def _prepare(spec: BrokerSpec, folder: BrokerFolder, say: Callable[[str], None]) -> Listeners:
    check_address(spec.host, spec.port)
    listeners = Listeners(spec.address, free_port())
    if spec.security:
        listeners = replace(
            listeners,
            internal=f"127.0.0.1:{free_port()}",
            ca_file=spec.security.tls.ca_file,
            identity_file=spec.security.tls.certificate_file,
        )
    folder.write_settings(listeners)
    if not folder.is_formatted():
        say(f"formatting {folder.messages_path}")
        folder.format(spec.java, _class_path(spec))
    say(f"starting Kafka on {spec.address}")
    return listeners


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
    spec: BrokerSpec,
    listeners: Listeners,
    folder: BrokerFolder,
    is_alive: Callable[[], bool],
    timeout_s: float,
) -> None:
    noted = BrokerProcess(0, spec.address, listeners.internal)
    own = _own_access(noted, spec.security.tls if spec.security else None)
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if not is_alive():
            raise folder.failure("the broker ended while it started")
        # Asking before it listens would only make the client wait longer between its attempts.
        if accepts(spec.host, spec.port, _PROBE_TIMEOUT_S) and _answers(own, _PROBE_TIMEOUT_S):
            if spec.security:
                set_users(own, spec.security.passwords, spec.security.names)
                set_grants(own, spec.security.grants, spec.security.names)
            return
        time.sleep(_POLL_S)
    raise folder.failure(f"the broker did not answer within {timeout_s:g} s and was stopped")


def _answers(access: KafkaAccess, timeout_s: float) -> bool:
    client = access.client(AdminClient, {}, ClientErrors(access).note)
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


def _running(folder: BrokerFolder) -> BrokerProcess | None:
    noted = folder.read_process()
    return noted if noted and _is_broker(noted.pid, folder) else None


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

"""The folder of a broker: its settings, messages, log and process id, and how it is prepared.

The log is one file, rolled at 10 MB with three old ones kept. The folder is private to its owner
and group.
"""

import base64
import contextlib
import errno
import fcntl
import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from fleetpulse.domain.errors import (
    AlreadyRunning,
    DamagedState,
    DiskError,
    FleetpulseError,
    UsageError,
)

UMASK: Final = 0o027
_TAIL_LINES: Final = 8
_TAIL_BYTES: Final = 64 * 1024

_SERVER_PROPERTIES: Final = """\
# Made by fleetpulse at every start of the broker; changes here are lost.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
{listeners}log.dirs={messages}
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
log.retention.hours=168
offsets.topic.replication.factor=1
# Ten years: a live role that rests for more than the default week must not repeat a batch.
offsets.retention.minutes=5256000
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
# Kafka counts the age of what a producer sent last in event time. The default of a day would forget
# the producer of an old dataset at a restart, and take what it repeats for new; this is the most.
producer.id.expiration.ms=2147483647
# A killed broker may come back once its old session has ended; the default is 9 s.
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
# The default of 128 MB would be a quarter of the heap, for topics that are hardly ever compacted.
log.cleaner.dedupe.buffer.size=16777216
"""
# Clients see the address of the settings; all else listens on loopback alone.
_OPEN_LISTENERS: Final = """\
listeners=CLIENT://{address},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=CLIENT://{address}
inter.broker.listener.name=CLIENT
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT
"""
# A client shows a certificate of ours and logs in. The broker itself, and who sets its users, shows
# the certificate `broker` on INTERNAL: no password is needed before there are users.
_SECURED_LISTENERS: Final = """\
listeners=CLIENT://{address},INTERNAL://{internal},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=CLIENT://{address},INTERNAL://{internal}
inter.broker.listener.name=INTERNAL
listener.security.protocol.map=CLIENT:SASL_SSL,INTERNAL:SSL,CONTROLLER:SSL
listener.name.client.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.client.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=false
super.users=User:broker;User:admin
ssl.principal.mapping.rules=RULE:^CN=([^,]+)(,.*)?$/$1/
ssl.enabled.protocols=TLSv1.3
"""
_SECURED_LISTENER: Final = """\
listener.name.{name}.ssl.client.auth=required
listener.name.{name}.ssl.keystore.type=PEM
listener.name.{name}.ssl.keystore.location={identity}
listener.name.{name}.ssl.truststore.type=PEM
listener.name.{name}.ssl.truststore.location={ca}
"""
SECURED_NAMES: Final = ("CLIENT", "INTERNAL", "CONTROLLER")
_LOG4J_PROPERTIES: Final = """\
# Made by fleetpulse at every start of the broker; changes here are lost.
status=error
rootLogger.level=info
rootLogger.appenderRef.file.ref=file
appender.file.type=RollingFile
appender.file.name=file
appender.file.fileName={log}
appender.file.filePattern={log}.%i
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d{{yyyy-MM-dd'T'HH:mm:ss.SSSXXX}} %p %c{{1}} %m%n
appender.file.policies.type=Policies
appender.file.policies.size.type=SizeBasedTriggeringPolicy
appender.file.policies.size.size=10MB
appender.file.strategy.type=DefaultRolloverStrategy
appender.file.strategy.max=3
"""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Where a broker listens: for clients, for the controller, and, secured, for itself.

    `address` and `internal` are `host:port`; `internal`, `ca_file` and `identity_file` (PEM with
    key and certificate) are None for an open broker.
    """

    address: str
    controller_port: int
    internal: str | None = None
    ca_file: Path | None = None
    identity_file: Path | None = None

    def properties(self) -> str:
        """Return Kafka's settings for them."""
        if self.internal is None or self.ca_file is None or self.identity_file is None:
            return _OPEN_LISTENERS.format(
                address=self.address, controller_port=self.controller_port
            )
        shared = _SECURED_LISTENERS.format(
            address=self.address, internal=self.internal, controller_port=self.controller_port
        )
        identity, ca = _escaped(self.identity_file.absolute()), _escaped(self.ca_file.absolute())
        return shared + "".join(
            _SECURED_LISTENER.format(name=name.lower(), identity=identity, ca=ca)
            for name in SECURED_NAMES
        )


@dataclass(frozen=True, slots=True)
class BrokerProcess:
    """A broker's process as its folder notes it; `internal` is None for an open broker."""

    pid: int
    address: str
    internal: str | None = None


@dataclass(frozen=True, slots=True)
class BrokerFolder:
    """A broker's data folder; `path` is absolute and without symbolic links."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> "BrokerFolder":
        """Return the folder at `path`, which need not exist."""
        return cls(path.resolve())

    @property
    def log_path(self) -> Path:
        """Return the file with everything that the broker says."""
        return self.path / "broker.log"

    @property
    def settings_path(self) -> Path:
        """Return Kafka's generated settings; the broker's command line names this file."""
        return self.path / "server.properties"

    @property
    def log4j_path(self) -> Path:
        """Return the generated settings of the log."""
        return self.path / "log4j2.properties"

    @property
    def messages_path(self) -> Path:
        """Return the folder of the topics' messages."""
        return self.path / "messages"

    @property
    def process_path(self) -> Path:
        """Return the file with the broker's process id and address."""
        return self.path / "broker.pid"

    def is_formatted(self) -> bool:
        """Return whether Kafka has given the folder its cluster id, so that a broker can start."""
        return (self.messages_path / "meta.properties").exists()

    @contextlib.contextmanager
    def launching(self) -> Iterator[None]:
        """Keep other launches of this folder's broker out; makes the folder.

        Raises AlreadyRunning where another process is at it, and DiskError.
        """
        try:
            self.path.mkdir(mode=0o777 & ~UMASK, parents=True, exist_ok=True)
            descriptor = os.open(self.path / "broker.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as err:
            raise self.disk_error(err) from err
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as err:
                raise AlreadyRunning(
                    f"{self.path}: another process is just starting this broker; "
                    "see fleetpulse broker status"
                ) from err
            yield
        finally:
            os.close(descriptor)

    def write_settings(self, listeners: Listeners) -> None:
        """Write the settings of a broker that listens so; UsageError or DiskError where not."""
        if "," in str(self.path):
            raise UsageError(
                f"{self.path}: Kafka takes a comma for the end of a path; choose another folder "
                "with --data"
            )
        settings = _SERVER_PROPERTIES.format(
            controller_port=listeners.controller_port,
            listeners=listeners.properties(),
            messages=_escaped(self.messages_path),
        )
        try:
            self.messages_path.mkdir(exist_ok=True)
            self.settings_path.write_text(settings, encoding="ascii")
            self.log4j_path.write_text(
                _LOG4J_PROPERTIES.format(log=_escaped(self.log_path)), encoding="ascii"
            )
        except OSError as err:
            raise self.disk_error(err) from err

    def format(self, java: Path, class_path: str) -> None:
        """Give the folder a cluster id (about 0.7 s); FleetpulseError with Kafka's reason."""
        # 16 random bytes, URL-safe; one that starts with "-" would be taken for an option.
        cluster_id = "f" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
        command = [
            str(java),
            # Too short a run for the optimizing compiler.
            *("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"),
            f"-Dlog4j2.configurationFile={self.log4j_path.as_uri()}",
            *("-cp", class_path, "kafka.tools.StorageTool", "format", "--ignore-formatted"),
            *("--cluster-id", cluster_id, "--config", str(self.settings_path)),
        ]
        with self.output() as output:
            code = subprocess.run(  # noqa: S603  our own Java and arguments
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                umask=UMASK,
                check=False,
            ).returncode
        if code:
            raise self.failure(f"{self.messages_path} could not be formatted (exit {code})")

    @contextlib.contextmanager
    def output(self) -> Iterator[int]:
        """Give a descriptor that appends to the log, for what the Java machine itself says."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            descriptor = os.open(self.log_path, flags, 0o666 & ~UMASK)
        except OSError as err:
            raise self.disk_error(err) from err
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def write_process(self, process: BrokerProcess) -> None:
        """Note the broker's process; DiskError where that fails."""
        partial = self.process_path.with_suffix(".partial")
        try:
            partial.write_text(json.dumps(asdict(process)), encoding="utf-8")
            partial.replace(self.process_path)
        except OSError as err:
            raise self.disk_error(err) from err

    def read_process(self) -> BrokerProcess | None:
        """Return the noted process, or None; DamagedState where the note is unreadable."""
        try:
            content = json.loads(self.process_path.read_text(encoding="utf-8"))
            return BrokerProcess(
                int(content["pid"]), str(content["address"]), content.get("internal")
            )
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
            raise DamagedState(
                f"{self.process_path}: wanted the broker's process id and address, cannot read "
                f"it ({err}); if no broker runs, delete this file"
            ) from err

    def forget_process(self, pid: int) -> None:
        """Remove the note about a process that has ended."""
        noted = self.read_process()
        if noted and noted.pid == pid:
            self.process_path.unlink(missing_ok=True)

    def failure(self, what: str) -> FleetpulseError:
        """Return the error for a broker that failed, with the end of its log."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, self.log_path.stat().st_size - _TAIL_BYTES))
                tail = log.read().decode(errors="replace")
        except OSError as err:
            return self.disk_error(err)
        if os.strerror(errno.ENOSPC) in tail:
            return DiskError(f"{self.path}: {what}: the disk is full; make room, start it again")
        lines = "\n  ".join(tail.splitlines()[-_TAIL_LINES:])
        return FleetpulseError(f"{what}; its log, {self.log_path}, ends with:\n  {lines}")

    def disk_error(self, err: OSError) -> DiskError:
        """Return the error for a folder that cannot be written."""
        return DiskError(
            f"{self.path}: cannot keep the broker's data there ({err.strerror}); make room, or "
            "choose a folder that you may write with --data"
        )


def _escaped(path: Path) -> str:
    # Java reads a properties file as Latin-1, and a backslash in it starts an escape.
    units = str(path).replace("\\", "\\\\").encode("utf-16-be")
    codes = [int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2)]
    return "".join(chr(code) if code < 0x7F else f"\\u{code:04x}" for code in codes)  # noqa: PLR2004  ASCII

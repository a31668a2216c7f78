"""The whole pipeline on this machine: each role a process, started as a user would start it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Final

from fleetpulse.config import Settings
from fleetpulse.domain.errors import FleetpulseError
from fleetpulse.domain.metric import FAMILIES
from fleetpulse.edges.files import renewed_folder
from fleetpulse.edges.kafka.address import free_port
from fleetpulse.edges.process import Child

# Longer than the pauses of any source here (a live one sends every second).
_NO_SECURITY: Final = (
    "CA_FILE",
    "CERTIFICATE_FILE",
    "KEY_FILE",
    "USER",
    "PASSWORD_FILE",
    "USERS_DIR",
)
_IDLE: Final = "4s"
_POLL_S: Final = 0.1


class DemoStopped(FleetpulseError):
    """Somebody stopped the demo before its end."""

    exit_code = 130


@dataclass(slots=True)
class DemoReport:
    """What happened: results of the roles as they printed them, and seconds by stage."""

    output: Path
    produced: Mapping[str, Any] = field(default_factory=dict)
    consumed: Sequence[Mapping[str, Any]] = ()
    analyzed: Mapping[str, Any] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Stage:
    """How the demo starts its processes."""

    config: Path | None
    environment: Mapping[str, str]
    logs: Path
    hear: Callable[[str], None]
    stop: Event

    def start(self, *arguments: str) -> Child:
        """Start a command of ours with the demo's settings."""
        config = ["--config", str(self.config)] if self.config else []
        log = self.logs / f"{'-'.join(arguments[:1])}.log"
        return Child([*arguments, *config], self.environment, log, self.hear)

    def finish(self, *children: Child) -> list[dict[str, object]]:
        """Return the results of children when all have ended; DemoStopped if told to stop."""
        while any(child.is_running() for child in children):
            if self.stop.wait(_POLL_S):
                raise DemoStopped("stopped before the end; nothing is left running")
        return [child.result() for child in children]

    def run(self, *arguments: str) -> dict[str, object]:
        """Start one command and return its result."""
        with self.start(*arguments) as child:
            return self.finish(child)[0]


def demo(
    settings: Settings,
    *,
    config: Path | None,
    source: Sequence[str],
    output: Path,
    stop: Event,
    say: Callable[[str], None],
    hear: Callable[[str], None],
) -> DemoReport:
    """Run broker, topics, producer, consumers and Spark jobs; nothing is left running afterwards.

    `source` are the producer's options, `output` a folder that belongs to the demo (what an earlier
    one left is removed). `say` takes our own lines, `hear` those of the roles. Raises
    FleetpulseError where a role fails, where rows and rejects do not add up to the messages, or
    when stopped.
    """
    report = DemoReport(output)
    started_s = time.monotonic()
    renewed_folder(output)
    data = output / "broker"
    environment = {
        "FLEETPULSE__HOSTS__BROKER": "127.0.0.1",
        "FLEETPULSE__BROKER__PORT": str(free_port()),
        "FLEETPULSE__OUTPUT_DIR": str(output),
        # Nothing leaves this machine, and its own users are not those of the fleet.
        "FLEETPULSE__SECURITY__TLS": "false",
        **{f"FLEETPULSE__SECURITY__{key}": "null" for key in _NO_SECURITY},
    }
    stage = Stage(config, environment, output, hear, stop)
    with ExitStack() as running:
        with _timed(report, "broker", say):
            running.callback(_stop_broker, stage, data, report, say)
            stage.run("broker", "start", "--data", str(data))
            stage.run("topics", "create")
        with _timed(report, "producer and consumers", say):
            producer = running.enter_context(stage.start("producer", *source, "--json"))
            while not producer.has_spoken.wait(_POLL_S) and not stop.is_set():
                pass
            consumers = [
                running.enter_context(stage.start(name, "--until-idle", _IDLE, "--json"))
                for name in ("consumer1", "consumer2")
            ]
            report.produced, *report.consumed = stage.finish(producer, *consumers)
        with _timed(report, "spark jobs", say):
            report.analyzed = stage.run("spark-jobs", "--json")
    report.seconds = time.monotonic() - started_s
    _check(settings, report)
    return report


@contextmanager
def _timed(report: DemoReport, name: str, say: Callable[[str], None]) -> Iterator[None]:
    say(f"{name} ...")
    started_s = time.monotonic()
    yield
    report.stages[name] = time.monotonic() - started_s
    say(f"{name}: done in {report.stages[name]:.1f} s")


def _stop_broker(stage: Stage, data: Path, report: DemoReport, say: Callable[[str], None]) -> None:
    with _timed(report, "broker stop", say):
        stage.start("broker", "stop", "--data", str(data)).result()


def _check(settings: Settings, report: DemoReport) -> None:
    for family, consumed in zip(FAMILIES, report.consumed, strict=True):
        names = [settings.topics.name(topic) for topic in family.topics]
        sent = sum(report.produced["messages"].get(name, 0) for name in names)
        kept = sum(consumed["rows"].values()) + sum(consumed["rejects"].values())
        if kept != sent:
            raise FleetpulseError(
                f"{', '.join(names)}: {sent} messages were sent, but {kept} are in the files of "
                f"{report.output}; please report this with that folder"
            )

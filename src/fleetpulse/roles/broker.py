"""The broker of this machine, run from the pinned jars on the address in the settings."""

from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event
from typing import Final

from fleetpulse.config import Settings
from fleetpulse.domain.errors import UsageError
from fleetpulse.edges.kafka import broker
from fleetpulse.edges.kafka.broker import BrokerSpec
from fleetpulse.roles.setup import BROKER_JARS, ready_jars, ready_java

_POLL_S: Final = 0.5


def data_dir(settings: Settings, given: Path | None) -> Path:
    """Return the broker's folder: the given one, else `broker` below the output folder."""
    return given or settings.output_dir / "broker"


def start_broker(
    settings: Settings, data: Path, environ: Mapping[str, str], say: Callable[[str], None]
) -> bool:
    """Return True once the broker answers, False where it ran before; errors of its edge."""
    return broker.start(_spec(settings, data, environ, say), say)


def run_broker(
    settings: Settings,
    data: Path,
    environ: Mapping[str, str],
    stop: Event,
    say: Callable[[str], None],
) -> None:
    """Run the broker until `stop` is set or it is stopped from outside; errors of its edge."""
    spec = _spec(settings, data, environ, say)
    with broker.running(spec, say) as is_running:
        say(f"broker {spec.address} answers; stop it with Ctrl-C")
        while is_running() and not stop.wait(_POLL_S):
            pass


def _spec(
    settings: Settings, data: Path, environ: Mapping[str, str], say: Callable[[str], None]
) -> BrokerSpec:
    if settings.hosts.broker is None:
        raise UsageError(
            "no broker address: set hosts.broker to the address of this machine that clients reach"
        )
    java = ready_java(environ)
    jars = ready_jars(BROKER_JARS, environ, java, say)
    return BrokerSpec(settings.hosts.broker, settings.broker.port, data, java.executable, jars)

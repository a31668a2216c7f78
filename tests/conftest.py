"""What several kinds of tests share: one real broker, and what becomes of tests that cannot run.

On a build machine (CI or FLEETPULSE_CI is set) nothing is skipped: what lacks is a failure.
"""

import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fleetpulse.edges.kafka import broker
from fleetpulse.edges.kafka.address import free_port
from fleetpulse.edges.kafka.broker import BrokerSpec
from fleetpulse.roles.setup import BROKER_JARS, ready_jars, ready_java


@dataclass(frozen=True, slots=True)
class BrokerNode:
    """The real broker of a test session; it makes no topics by itself."""

    host: str
    port: int
    data_dir: Path

    @property
    def bootstrap(self) -> str:
        return f"{self.host}:{self.port}"


@pytest.fixture(scope="session")
def runnable() -> BrokerSpec:
    """A broker that can be run once host, port and folder are replaced."""
    java = ready_java(os.environ)
    jars = ready_jars(BROKER_JARS, os.environ, java, lambda _line: None)
    return BrokerSpec("127.0.0.1", 0, Path(), java.executable, jars)


@pytest.fixture(scope="session")
def broker_node(
    runnable: BrokerSpec, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BrokerNode]:
    """One broker for all tests that only need some broker; topics of a test have its own names."""
    data_dir = tmp_path_factory.mktemp("broker")
    spec = replace(runnable, port=free_port(), data_dir=data_dir)
    with broker.running(spec, lambda _line: None):
        yield BrokerNode(spec.host, spec.port, spec.data_dir)


@pytest.fixture(scope="session")
def broker_port(broker_node: BrokerNode) -> int:
    return broker_node.port


def is_build_machine() -> bool:
    return bool(os.environ.get("CI") or os.environ.get("FLEETPULSE_CI"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip on a build machine into a failure."""
    report = yield
    if report.skipped and is_build_machine() and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.name} was skipped on a build machine: {call.excinfo}"
    return report

"""What several kinds of tests share.

One real broker; the table of what was injected and what came of it, with FLEETPULSE_CHAOS=full for
the large numbers and FLEETPULSE_CHAOS_SEED for the seed of an earlier run; and what becomes of
tests that cannot run: on a build machine (CI or FLEETPULSE_CI is set) what lacks is a failure.
"""

import json
import os
import random
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from chaos_table import IS_FULL, Row, printed, write_results
from fleetpulse.edges.kafka import broker
from fleetpulse.edges.kafka.address import free_port
from fleetpulse.edges.kafka.broker import BrokerSpec
from fleetpulse.roles.setup import BROKER_JARS, ready_jars, ready_java

_TABLE = pytest.StashKey[list[Row]]()


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


@pytest.fixture(scope="session")
def amount() -> Callable[[int, int], int]:
    """Return the small number, or the large one of a full run."""
    return lambda small, full: full if IS_FULL else small


@pytest.fixture
def seed() -> int:
    given = os.environ.get("FLEETPULSE_CHAOS_SEED")
    return int(given) if given else random.SystemRandom().randrange(10**9)


@pytest.fixture
def row(request: pytest.FixtureRequest, seed: int) -> Iterator[Row]:
    """The line of the table that a test fills."""
    found = Row(request.node.nodeid, request.node.name, seed)
    request.config.stash.setdefault(_TABLE, []).append(found)
    sys.stdout.write(
        f"seed {seed}; again: FLEETPULSE_CHAOS_SEED={seed} python -m pytest '{found.test}'\n"
    )
    start_s = time.monotonic()
    yield found
    found.seconds = time.monotonic() - start_s
    sys.stdout.write(f"{json.dumps(asdict(found))}\n")


def is_build_machine() -> bool:
    return bool(os.environ.get("CI") or os.environ.get("FLEETPULSE_CI"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip on a build machine into a failure; note in the table what became of a test."""
    report = yield
    if report.skipped and is_build_machine() and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.name} was skipped on a build machine: {call.excinfo}"
    row = getattr(item, "funcargs", {}).get("row")
    if call.when == "call" and isinstance(row, Row):
        row.passed = report.passed
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rows = config.stash.get(_TABLE, [])
    if not rows:
        return
    terminalreporter.section(f"chaos: {'full' if IS_FULL else 'small'} numbers")
    for line in printed(rows):
        terminalreporter.line(line)
    if IS_FULL:
        write_results(rows)

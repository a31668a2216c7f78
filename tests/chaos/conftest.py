"""How much is injected, what a machine must be able to, and the table of what came of it.

FLEETPULSE_CHAOS=full takes the large numbers, FLEETPULSE_CHAOS_SEED the seed of an earlier run.
"""

import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from chaos_table import IS_FULL, Row, printed, write_results
from injectors import lack

_TABLE = pytest.StashKey[list[Row]]()


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


@pytest.fixture
def place(tmp_path: Path, row: Row) -> Iterator[Path]:
    """A folder that is kept where the test fails."""
    yield tmp_path
    if row.passed:
        shutil.rmtree(tmp_path, ignore_errors=True)
    else:
        sys.stdout.write(f"kept: {tmp_path}\n")


@pytest.fixture
def memory(place: Path, row: Row) -> Iterator[Path]:
    """A folder where a sync costs nothing: kills take no power away. Kept where the test fails."""
    shared = Path("/dev/shm")  # noqa: S108
    if not shared.is_dir():
        yield place
        return
    found = Path(mkdtemp(prefix="fleetpulse-chaos-", dir=shared))
    yield found
    if not row.passed:
        shutil.copytree(found, place / "memory")
    shutil.rmtree(found)


def _need(*tools: str) -> None:
    if what := lack(*tools):
        pytest.skip(f"this fault wants {what}")


@pytest.fixture(scope="session")
def tracing() -> None:
    """System calls can be watched and made to fail here."""
    _need("strace")


@pytest.fixture(scope="session")
def mounting() -> None:
    """Disks can be made and mounted here."""
    _need("mount", "umount", "findmnt", "mkfs.ext4", "e2fsck")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[assignment]
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

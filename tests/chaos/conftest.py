"""What a machine must be able to, and where a test has its files."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from injectors import lack

from chaos_table import Row


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

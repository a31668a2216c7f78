"""What the tests across hosts need of a machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fleet import DATASET, RECORD_FILES, WINDOW_FILES
from lab import Lab, LabError, faketime_library, open_lab

TOOLS = {"ip": "iproute2", "tc": "iproute2", "nft": "nftables"}


def lack() -> str | None:
    """Return what a plain user's machine lacks, which no package brings."""
    if sys.platform != "linux":
        return "Linux: only it has network namespaces"
    if os.geteuid():
        return "root: only root makes network namespaces"
    if unshare := shutil.which("unshare"):
        tried = subprocess.run(
            [unshare, "--net", "true"], capture_output=True, text=True, check=False
        )
        if tried.returncode:
            return f"leave to make network namespaces ({tried.stderr.strip()})"
    return None


def missing_packages() -> list[str]:
    found = {package for tool, package in TOOLS.items() if shutil.which(tool) is None}
    try:
        faketime_library()
    except LabError:
        found.add("faketime")
    return sorted(found)


@pytest.fixture(scope="session")
def able() -> None:
    """This machine can be several."""
    if what := lack():
        pytest.skip(f"tests across hosts want {what}")
    if packages := missing_packages():
        pytest.fail(f"tests across hosts want these packages installed: {' '.join(packages)}")


@pytest.fixture(scope="module")
def lab(able: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:  # noqa: ARG001
    """Hosts of a test module; faults heal at the end of their context."""
    with open_lab(tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest.fixture(scope="session")
def wanted(able: None, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:  # noqa: ARG001
    """The files of a run on a single machine, by name."""
    folder = tmp_path_factory.mktemp("single")
    with open_lab(folder) as one:
        host = one.producer
        host.run("demo", "--dataset", str(DATASET), "--output", str(host.output))
        names = [*WINDOW_FILES, *(name for names in RECORD_FILES.values() for name in names)]
        return {name: (host.output / name).read_bytes() for name in names}

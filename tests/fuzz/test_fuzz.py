"""Parsers under fuzzing, and what fuzzing found before."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fuzzing import END_S, HANG_S, HERE, SECONDS, SEEDS, START_S, Fuzzing, lack
from targets import MOST_BYTES, TARGETS, WORDS, expanded

from chaos_table import Row

# Fewer would mean that nothing was tried.
LEAST_TRIED = 100


@pytest.mark.timeout(END_S)
@pytest.mark.parametrize("name", TARGETS)
def test_no_bytes_break_a_promise(name: str, fuzzing: Fuzzing, row: Row) -> None:
    run = fuzzing.result(name)
    row.fault, row.injected = f"fuzzing: {name}", run.tried
    row.note = f"inputs in {SECONDS} s"
    assert run.code == 0, (
        f"repeat it with: python tests/fuzz/harness.py {name} "
        f"{' '.join(map(str, fuzzing.found(name)))}\n{run.output[-5000:]}"
    )
    assert run.tried >= LEAST_TRIED


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_before_holds(name: str) -> None:
    seeds = sorted((SEEDS / name).iterdir())
    assert len(seeds) > 10
    for seed in seeds:
        TARGETS[name](seed.read_bytes())


def test_a_target_that_breaks_its_promise_is_found(tmp_path: Path) -> None:
    if what := lack():
        pytest.skip(what)
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

"""The sink killed before every system call that changes a file, and again while it recovers."""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sink_bench import SinkBench, sink_server

from chaos_table import Row

BATCHES = 3
# A small run takes one in so many of the first kills, and of those in the recovery after each.
SMALL_STEPS = (5, 17)

Kill = tuple[str, int]


@pytest.fixture
def bench(place: Path, tracing: None, memory: Path) -> Iterator[SinkBench]:  # noqa: ARG001
    with sink_server(place / "errors") as server:
        yield SinkBench(server, memory / "a" / "output", memory / "acks", place)


def restore(bench: SinkBench, saved: Path | None) -> None:
    """Put everything back as it was saved, or to nothing."""
    shutil.rmtree(bench.folder.parent, ignore_errors=True)
    bench.acks.unlink(missing_ok=True)
    if saved is not None:
        shutil.copytree(saved / "a", bench.folder.parent)
        shutil.copy(saved / "acks", bench.acks)


def save(bench: SinkBench, where: Path) -> Path:
    shutil.rmtree(where, ignore_errors=True)
    bench.folder.parent.mkdir(exist_ok=True)
    shutil.copytree(bench.folder.parent, where / "a")
    bench.acks.touch()
    shutil.copy(bench.acks, where / "acks")
    return where


def all_kills(bench: SinkBench, saved: Path | None) -> list[Kill]:
    """Return every call that an undisturbed run from here makes, as a name and a number."""
    restore(bench, saved)
    run = bench.run(BATCHES, inject="getpid:retval=1")
    assert run.exit_code == 0
    assert run.traced
    return [(name, n) for name, count in run.traced.calls().items() for n in range(1, count + 1)]


def killed(bench: SinkBench, saved: Path | None, kill: Kill) -> None:
    """Run from here until the nth call of a name, and no further."""
    restore(bench, saved)
    name, number = kill
    run = bench.run(BATCHES, inject=f"{name}:signal=SIGKILL:when={number}")
    assert run.is_killed, f"not killed at {kill}"
    assert run.traced
    assert run.traced.is_killed()
    assert run.traced.calls()[name] == number


def check_after(bench: SinkBench) -> None:
    """Let it go on undisturbed, and see that each batch is there once."""
    assert bench.run(bench.acknowledged()).exit_code == 0
    bench.check(bench.acknowledged())
    assert bench.run(BATCHES).exit_code == 0
    assert bench.acknowledged() == BATCHES
    bench.check(BATCHES)


def test_killed_before_any_system_call_every_batch_is_there_once(
    bench: SinkBench, row: Row
) -> None:
    row.fault = "SIGKILL before every system call"
    kills = all_kills(bench, None)
    for kill in kills:
        killed(bench, None, kill)
        check_after(bench)
    row.injected = len(kills)


@pytest.mark.timeout(1800)
def test_killed_again_inside_recovery_every_batch_is_there_once(
    bench: SinkBench, row: Row, memory: Path, amount: Callable[[int, int], int]
) -> None:
    row.fault = "SIGKILL again in recovery"
    row.injected = 0
    rng = random.Random(row.seed)  # noqa: S311  no secret
    steps = [amount(small, 1) for small in SMALL_STEPS]

    def chosen(kills: list[Kill], step: int) -> list[Kill]:
        return kills[rng.randrange(step) :: step]

    for first in chosen(all_kills(bench, None), steps[0]):
        killed(bench, None, first)
        saved = save(bench, memory / "saved")
        for second in chosen(all_kills(bench, saved), steps[1]):
            killed(bench, saved, second)
            check_after(bench)
            row.injected += 1

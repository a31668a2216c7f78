"""consumer1 killed at any moment, ended by signals and stopped for long, on a real broker."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from consumer_case import ConsumerCase, end_in
from injectors import Traced, process_state, trace_options, wait_until

from chaos_table import Row

STEPS = 200
# Where a kill of the whole role may strike: what writes, syncs and opens.
CALLS = ("pwrite64", "fdatasync", "ftruncate", "write")
PROMPT_S = 5.0
END_WITHIN_S = 30.0


@pytest.fixture
def case(broker_port: int, place: Path, row: Row) -> ConsumerCase:
    found = ConsumerCase.on(broker_port, place, row)
    found.create()
    return found


@pytest.mark.timeout(1200)
def test_killed_at_random_moments_nothing_is_lost_or_twice(
    case: ConsumerCase, amount: Callable[[int, int], int]
) -> None:
    row, rng = case.row, case.rng
    row.fault, row.injected = "random SIGKILL", 0
    case.send_steps(0, STEPS)
    with case.load(STEPS):
        for number in range(amount(20, 200)):
            with case.running() as process:
                # In turn at any moment of the start, of a commit, and of the reading between.
                if number % 4 == 0:
                    time.sleep(rng.uniform(0, 1))
                else:
                    case.await_growth()
                    time.sleep(rng.uniform(0, 1.2 if number % 4 == 1 else 0.03))
                assert process.poll() is None, case.said()
                process.kill()
                assert process.wait() == -signal.SIGKILL
            row.injected += 1
    case.finish()
    case.check()


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("tracing")
def test_killed_at_chosen_system_calls_nothing_is_lost_or_twice(
    case: ConsumerCase, amount: Callable[[int, int], int]
) -> None:
    row, rng = case.row, case.rng
    row.fault, row.injected = "SIGKILL of the role at system calls", 0
    wanted = amount(4, 60)
    for number in range(3 * wanted):
        if row.injected == wanted:
            break
        case.send_steps(number * 5, 5)
        call, when = rng.choice(CALLS), rng.randrange(1, 6)
        log = case.fleet.folder / "trace"
        inject = f"{call}:signal=SIGKILL:when={when}"
        with case.running(
            "--until-idle",
            "300ms",
            around=trace_options(log, ",".join(CALLS), inject, (case.output, *files(case))),
        ) as process:
            code = process.wait(60)
            was_killed = Traced(log, process).is_killed()
            assert (code == 0) != was_killed, case.said()
        row.injected += was_killed
    assert row.injected == wanted
    case.finish()
    case.check()


def files(case: ConsumerCase) -> list[Path]:
    """Return the files that the consumer writes."""
    names = ["cpu_data.csv", "mem_data.csv", "rejects.consumer1.jsonl", "consumer1.lock"]
    state = ["consumer1.state.db", "consumer1.state.db-wal"]
    return [case.output / name for name in (*names, *state)]


def test_a_signal_to_end_is_obeyed_within_seconds_and_leaves_no_tail(case: ConsumerCase) -> None:
    row = case.row
    row.fault, row.injected = "SIGTERM, SIGINT in a batch", 0
    case.send_steps(0, STEPS)
    with case.load(STEPS, every_s=0.002):
        for kind in (signal.SIGTERM, signal.SIGINT):
            with case.running() as process:
                case.await_growth()
                time.sleep(case.rng.uniform(0, 1))
                process.send_signal(kind)
                code, seconds = end_in(process, END_WITHIN_S)
                assert (code, seconds < PROMPT_S) == (0, True), case.said()
            assert case.size_bytes() == case.committed()
            row.injected += 1
    case.finish()
    assert "cut" not in case.said()
    case.check()


@pytest.mark.timeout(300)
def test_stopped_for_long_it_keeps_its_lock_and_goes_on(
    case: ConsumerCase, amount: Callable[[int, int], int]
) -> None:
    row = case.row
    row.fault, row.injected = "SIGSTOP, second instance", 0
    with case.load(), case.running() as process:
        case.await_growth()
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: process_state(process.pid) == "T", "it did not stop")
        start_s = time.monotonic()
        before = contents(case)
        assert case.run() == 75
        assert f"process {process.pid}" in case.said()
        assert contents(case) == before
        # Longer than the client waits for any answer (60 s).
        time.sleep(max(0.0, amount(5, 75) - (time.monotonic() - start_s)))
        assert process_state(process.pid) == "T"
        process.send_signal(signal.SIGCONT)
        row.injected += 1
        case.await_growth("it did not go on")
    case.finish()
    case.check()


def contents(case: ConsumerCase) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in case.output.iterdir()}

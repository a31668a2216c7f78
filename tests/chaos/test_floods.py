"""More than a consumer likes: a long backlog, and a flood of bad messages of every kind."""

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from consumer_case import REJECTS_FILE, TOPICS, ConsumerCase
from injectors import trace_options
from oracle import BAD, START_MS, Sent

from chaos_table import Row
from fleetpulse.domain.clock import iso_text
from fleetpulse.domain.metric import CPU

# What a consumer may take, whatever waits for it.
MOST_MEMORY_MB = 200
# One in so many of the bad messages is as long as 64 KiB or more.
LONG_EVERY = 200
BATCH = 20_000
SHORT = [(value, kind) for value, kind in BAD.items() if len(value) < 1000]
LONG = [(value, kind) for value, kind in BAD.items() if len(value) >= 1000]


@pytest.fixture
def case(broker_port: int, place: Path, row: Row) -> ConsumerCase:
    found = ConsumerCase.on(broker_port, place, row)
    found.create()
    return found


def bad(rng: random.Random, count: int) -> Iterator[tuple[bytes, str]]:
    """Return bad messages and the class that each belongs to, no two alike."""
    for number in range(count):
        value, kind = rng.choice(LONG if number % LONG_EVERY == 0 else SHORT)
        if kind == "malformed" and len(value) < 1000:
            value = rng.randbytes(rng.randrange(1, 200)) + b"\xff"
        else:
            value = value.replace(b'"bad"', b'"bad-%d"' % number)
        yield value, kind


@pytest.mark.timeout(1800)
def test_each_of_a_flood_of_bad_messages_is_rejected_once_with_its_class(
    case: ConsumerCase, amount: Callable[[int, int], int]
) -> None:
    row = case.row
    row.fault = "bad messages"
    row.injected = amount(20_000, 1_000_000)
    classes: Counter[str] = Counter()
    pending: list[Sent] = []
    for value, kind in bad(case.rng, row.injected):
        classes[kind] += 1
        pending.append(Sent(CPU, value))
        if len(pending) >= BATCH:
            case.send(pending)
            pending.clear()
    case.send([*pending, *case.fleet.steps(0, 1, TOPICS)])
    memory_mb = end_and_memory_mb(case)
    case.check()
    assert row.rejects == classes
    row.note = f"{memory_mb} MB"
    assert memory_mb < MOST_MEMORY_MB


def test_a_flood_of_bad_messages_pauses_a_consumer_with_limits(
    broker_port: int, place: Path, row: Row
) -> None:
    row.fault, row.injected = "flood of rejects pauses", 1
    limits = {"max_in_a_row": 1000, "max_ratio": 1.0}
    case = ConsumerCase.on(broker_port, place, row, rejects=limits)
    case.create()
    case.send(Sent(CPU, value) for value, _ in bad(case.rng, 1500))
    assert case.run() == 1
    assert "paused: 1000 rejects in a row" in case.said()
    assert (case.output / REJECTS_FILE).read_bytes().count(b"\n") == 1000
    # The next start goes on behind them.
    case.finish()
    case.check()


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("tracing")
def test_a_long_backlog_takes_bounded_memory_and_is_not_read_again(
    case: ConsumerCase, amount: Callable[[int, int], int]
) -> None:
    row = case.row
    row.fault, row.injected = "backlog", amount(300_000, 5_000_000)
    for first in range(0, row.injected, BATCH):
        case.send(samples(first, min(first + BATCH, row.injected)))
    memory_mb = end_and_memory_mb(case)
    assert memory_mb < MOST_MEMORY_MB

    # The next start reads its end alone.
    path, log = case.path(CPU), case.fleet.folder / "trace"
    start_s = time.monotonic()
    assert case.run(around=trace_options(log, "read,pread64,readv", None, (path,))) == 0
    seconds = time.monotonic() - start_s
    counts = re.findall(r"= (\d+)$", log.read_text(), re.MULTILINE)
    assert sum(map(int, counts)) <= 64 * 1024
    case.check()
    row.note = f"{memory_mb} MB; a start and an end with all of it there: {seconds:.1f} s, traced"


def samples(first: int, end: int) -> Iterator[Sent]:
    for number in range(first, end):
        stamp = iso_text(START_MS + number * 10)
        yield Sent(
            CPU,
            b'{"ts":"%s","server_id":"server_%d","cpu_pct":%d.%02d}'
            % (stamp.encode(), number % 7, number % 100, number % 89),
        )


def end_and_memory_mb(case: ConsumerCase) -> int:
    """Run it until it is caught up; return the most memory that it took, in MB."""
    most_kb = 0
    with case.running("--until-idle", "2s") as process:
        # What the system notes of an ended process counts that of its parent, too.
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            if found := re.search(r"VmHWM:\s+(\d+)", status.read_text()):
                most_kb = int(found.group(1))
            time.sleep(0.05)
        assert process.returncode == 0, case.said()
    return most_kb // 1024

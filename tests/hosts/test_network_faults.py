"""Networks that fail while the roles run: they survive it, and every row arrives exactly once.

The producer has read its whole dataset by the time a fault ends, and the consumers have a part of
it: the rest must arrive soon after. How long that took is noted in the table.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import faults
from fleet import PORT, Consumer, Fleet, await_rows, check_rows
from lab import Host, Lab, awaited
from relay import Relay, relayed

from chaos_table import Row

# The dataset is half an hour long: three seconds of sending.
SPEED = "600x"
# Longer than that.
LASTS_S = 5.0

Injector = Callable[[Host], AbstractContextManager[Any]]
FAULTS: dict[str, Injector] = {
    "partition": faults.cut_off,
    "one-way-in": faults.deaf,
    "one-way-out": faults.mute,
    "loss": lambda host: faults.lossy(host, 30),
    "resets": lambda host: faults.resetting(host, PORT),
    "flapping": lambda host: faults.flapping(host, 0.7, 0.3),
    "black-hole": lambda host: faults.black_hole(host, 576),
    "narrow": lambda host: faults.narrow(host, 32),
    "latency": lambda host: relayed(Relay(host, PORT, delay_s=0.3)),
    "half-closed": lambda host: relayed(Relay(host, PORT, half_close_s=1.0)),
}


@pytest.fixture(scope="module")
def fleet(lab: Lab) -> Iterator[Fleet]:
    made = Fleet.secured_on(lab)
    with made.serving():
        yield made


@dataclass
class Episodes:
    """One kind of fault, as often as is asked for, each time with topics of its own."""

    fleet: Fleet
    wanted: Mapping[str, bytes]
    row: Row
    times: int

    def run(self, kind: str, injector: Injector, meanwhile: Callable[[Fleet], object]) -> None:
        """Inject while rows are on their way, and see that each of them arrives once."""
        self.row.fault, self.row.injected = f"network: {kind}", 0
        slowest_s = 0.0
        for number in range(self.times):
            mine = self.fleet.tagged(f"{kind}-{number}")
            healing_s = self._run_one(mine, injector, meanwhile)
            slowest_s = max(slowest_s, healing_s)
            self.row.injected += 1
        self.row.note = f"all rows within {slowest_s:.1f} s of its end"

    def _run_one(
        self, mine: Fleet, injector: Injector, meanwhile: Callable[[Fleet], object]
    ) -> float:
        with mine.consuming() as consumers:
            producer = mine.produce("--speed", SPEED)
            awaited(lambda: all(one.has_begun() for one in consumers), "the first rows arrived")
            with injector(mine.lab.broker) as fault:
                assert not any(one.has(self.wanted) for one in consumers)
                meanwhile(mine)
                assert fault.hits() > 0
            healed_s = time.monotonic()
            await_rows(consumers, self.wanted)
            healing_s = time.monotonic() - healed_s
            producer.finish()
        check_rows(consumers, self.wanted)
        self._count(consumers)
        return healing_s

    def _count(self, consumers: Sequence[Consumer]) -> None:
        names = [name for one in consumers for name in one.paths()]
        count = sum(self.wanted[name].count(b"\n") - 1 for name in names)
        self.row.produced = self.row.acknowledged = self.row.rows = (self.row.rows or 0) + count


@pytest.fixture
def episodes(
    fleet: Fleet, wanted: Mapping[str, bytes], row: Row, amount: Callable[[int, int], int]
) -> Episodes:
    return Episodes(fleet, wanted, row, amount(1, 3))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", FAULTS)
def test_roles_survive_it_and_every_row_arrives_once(episodes: Episodes, kind: str) -> None:
    episodes.run(kind, FAULTS[kind], lambda _: Event().wait(LASTS_S))


@pytest.mark.timeout(600)
def test_a_broker_that_comes_back_unheard_is_found_again(episodes: Episodes) -> None:
    # Its old connections are gone, and nobody is told.
    episodes.run("half-open", faults.silent_ends, Fleet.restart_broker)


def test_a_wrong_clock_of_the_broker_changes_no_row(
    fleet: Fleet, wanted: Mapping[str, bytes]
) -> None:
    fleet.restart_broker(clock="+3d")
    log = (fleet.lab.broker.folder / "broker" / "broker.log").read_text().splitlines()
    assert datetime.fromisoformat(log[-1].split()[0]) > datetime.now(UTC) + timedelta(days=2)
    mine = fleet.tagged("clock")
    with mine.consuming() as consumers:
        mine.produce().finish()
        await_rows(consumers, wanted)
    check_rows(consumers, wanted)

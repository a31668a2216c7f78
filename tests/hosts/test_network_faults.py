"""Networks that fail while the roles run: they survive it, and every row arrives exactly once.

The producer has read its whole dataset by the time a fault ends, and the consumers have a part of
it: the rest must arrive soon after. How long that took is printed (`pytest -rP`).
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import faults
from fleet import PORT, Fleet, await_rows, check_rows
from lab import Host, Lab, awaited

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
}


@pytest.fixture(scope="module")
def fleet(lab: Lab) -> Iterator[Fleet]:
    made = Fleet.secured_on(lab)
    with made.serving():
        yield made


@pytest.mark.parametrize("kind", FAULTS)
def test_roles_survive_it_and_every_row_arrives_once(
    fleet: Fleet, wanted: Mapping[str, bytes], kind: str
) -> None:
    mine = fleet.tagged(kind)
    with mine.consuming() as consumers:
        producer = mine.produce("--speed", SPEED)
        awaited(lambda: all(one.has_begun() for one in consumers), "the first rows arrived")
        with FAULTS[kind](mine.lab.broker) as fault:
            assert not any(consumer.has(wanted) for consumer in consumers)
            Event().wait(LASTS_S)
            assert fault.hits() > 0
        healed_s = time.monotonic()
        await_rows(consumers, wanted)
        print(f"{kind}: all rows {time.monotonic() - healed_s:.1f} s after its end")  # noqa: T201
        producer.finish()
    check_rows(consumers, wanted)


def test_a_broker_that_comes_back_unheard_is_found_again(
    fleet: Fleet, wanted: Mapping[str, bytes]
) -> None:
    mine = fleet.tagged("half-open")
    with mine.consuming() as consumers:
        producer = mine.produce("--speed", SPEED)
        awaited(lambda: all(one.has_begun() for one in consumers), "the first rows arrived")
        # Its old connections are gone, and nobody is told.
        with faults.silent_ends(mine.lab.broker) as fault:
            mine.restart_broker()
            assert fault.hits() > 0
        healed_s = time.monotonic()
        await_rows(consumers, wanted)
        print(f"half-open: all rows {time.monotonic() - healed_s:.1f} s after its end")  # noqa: T201
        producer.finish()
    check_rows(consumers, wanted)


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

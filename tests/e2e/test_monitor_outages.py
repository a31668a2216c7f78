"""monitor where the broker goes away, and where it is held up itself: nothing is lost by either."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from oracle import Fleet, Heard, awaited

from fleetpulse.domain.aggregate import WindowRow
from fleetpulse.domain.metric import FAMILIES
from fleetpulse.edges.kafka import broker
from fleetpulse.edges.kafka.address import free_port
from fleetpulse.roles.broker import start_broker

STOP_S = 5.0
IDLE_CLOSE_S = 6


@dataclass
class OwnBroker:
    """A broker that a test may kill, and a fleet on it."""

    fleet: Fleet
    data: Path
    killed_s: float = 0.0

    def start(self) -> None:
        start_broker(self.fleet.settings, self.data, dict(os.environ), lambda _: None)

    def kill(self) -> None:
        pid = broker.status(self.data).pid
        assert pid
        os.kill(pid, signal.SIGKILL)
        self.killed_s = time.monotonic()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OwnBroker]:
    fleet = Fleet.on(free_port(), tmp_path, window={"idle_close_s": IDLE_CLOSE_S})
    found = OwnBroker(fleet, tmp_path / "broker")
    found.start()
    try:
        fleet.create()
        yield found
    finally:
        broker.stop(found.data)


def test_an_outage_of_the_broker_closes_nothing_and_loses_nothing(own: OwnBroker) -> None:
    fleet, heard = own.fleet, Heard()
    fleet.send(fleet.steps(0, 20))
    with fleet.watching(heard):
        awaited(lambda: fleet.has_all_closed(fleet.expected()), "windows did not close")
        own.kill()
        awaited(lambda: any("broker lost" in line for line in fleet.said), "no outage")
        # Longer than silence may last.
        awaited(lambda: time.monotonic() > own.killed_s + IDLE_CLOSE_S + 1, "time stood still")
        own.start()
        fleet.send(fleet.steps(20, 20))
        awaited(lambda: fleet.has_all_closed(fleet.expected()), "it did not go on")
        awaited(lambda: any("broker is back" in line for line in fleet.said), "nothing was said")
    fleet.run(heard=heard)
    expected = fleet.expected()
    fleet.check(expected)
    assert Counter(heard.told) == Counter((row, False) for row in expected.alerting())


class Cutting(Heard):
    """Kills the broker when alerts are told: their windows are not in the topic yet."""

    def __init__(self, own: OwnBroker) -> None:
        super().__init__()
        self.own = own

    def alerts(self, rows: Iterable[WindowRow], values: Sequence[bytes], *, is_again: bool) -> None:
        super().alerts(rows, values, is_again=is_again)
        if self.told and not self.own.killed_s:
            self.own.kill()


def test_a_stop_while_the_broker_is_away_leaves_windows_for_the_next_start(own: OwnBroker) -> None:
    fleet, heard = own.fleet, Cutting(own)
    fleet.send(fleet.steps(0, 20))
    with fleet.watching(heard) as done:
        awaited(lambda: own.killed_s, "nothing was told")
        awaited(lambda: any("nothing is lost" in line for line in fleet.said), "nothing was said")
        fleet.stop.set()
        stop_s = time.monotonic()
        awaited(lambda: done or time.monotonic() > stop_s + STOP_S, "time stood still")
        assert done, "the stop was not heeded"
    own.start()
    fleet.run(heard=heard)
    expected = fleet.expected()
    fleet.check(expected)
    assert {row for row, _ in heard.told} == set(expected.alerting())


def test_a_process_that_was_held_up_takes_nobody_for_silent(
    broker_port: int, tmp_path: Path
) -> None:
    fleet = Fleet.on(broker_port, tmp_path, window={"idle_close_s": IDLE_CLOSE_S})
    fleet.create()
    fleet.send(fleet.steps(0, 12))
    command = fleet.command("--from-beginning", "--csv", "--no-topic", "--json")
    told = tmp_path / "told"
    with told.open("wb") as output, subprocess.Popen(command, stdout=output) as process:
        try:
            awaited(lambda: b"alert" in told.read_bytes(), "it read nothing")
            # By then it knows that there is no more to read.
            read_s = time.monotonic()
            awaited(lambda: time.monotonic() > read_s + 1, "time stood still")
            process.send_signal(signal.SIGSTOP)
            held_s = time.monotonic()
            # More than it takes at once.
            fleet.send(fleet.steps(12, 600))
            awaited(lambda: time.monotonic() > held_s + IDLE_CLOSE_S + 1, "time stood still")
            process.send_signal(signal.SIGCONT)
            expected = fleet.expected()
            awaited(lambda: fleet.has_all_closed(expected) or fleet.rejects(), "it did not go on")
            process.send_signal(signal.SIGTERM)
            assert process.wait(STOP_S) == 0
        finally:
            process.kill()
    fleet.run(is_published=False)
    fleet.check_rejects(expected)
    assert all(fleet.csv(family) == expected.text(family) for family in FAMILIES)

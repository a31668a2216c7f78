"""monitor on a real broker, killed at any moment, FLEETPULSE_MONITOR_KILLS times.

Messages come all the while. In turn a kill comes at any moment of the start, while rows are
written, right after a commit, after alerts were told (windows are on their way to their topic),
and at any moment while it reads.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from oracle import BAD, Fleet, Sent, awaited

from fleetpulse.codec.window_message import decode_window
from fleetpulse.domain.closing import ClosedBy, ClosedWindow
from fleetpulse.domain.metric import CPU, FAMILIES

KILLS = int(os.environ.get("FLEETPULSE_MONITOR_KILLS", "10"))
STEP_S = 0.04
FIRST_STEPS = 60
END_S = 120.0


@dataclass
class Runs:
    """The runs of a monitor on one fleet; what each of them told is in a file of its own."""

    fleet: Fleet
    outputs: list[Path] = field(default_factory=list)
    unread: int = 0

    @contextmanager
    def started(self, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
        path = self.fleet.folder / f"told.{len(self.outputs)}"
        self.outputs.append(path)
        command = self.fleet.command("--from-beginning", "--csv", "--json", *arguments)
        with path.open("wb") as told, path.with_suffix(".errors").open("wb") as errors:
            process = subprocess.Popen(command, stdout=told, stderr=errors)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def kill(self, number: int) -> None:
        """Start, and kill at a moment that is chosen by the number of the kill."""
        fleet, rng = self.fleet, self.fleet.rng
        with self.started() as process:
            path = self.outputs[-1]

            def told_bytes() -> int:
                return path.stat().st_size

            def is_over() -> bool:
                return process.poll() is not None

            def changed(what: Callable[[], object], why: str, then_s: float) -> None:
                before = what()
                awaited(lambda: what() != before or is_over(), why, every_s=0.0005)
                time.sleep(rng.uniform(0, then_s))

            if number % 5 == 0:
                time.sleep(rng.uniform(0, 2))
            else:
                awaited(lambda: told_bytes() or is_over(), "it read nothing")
                time.sleep(rng.uniform(0, 0.5))
            if number % 5 == 1:
                changed(lambda: csv_bytes(fleet), "no row was written", 0.005)
            elif number % 5 == 2:
                changed(lambda: state_change(fleet), "nothing was committed", 0.001)
            elif number % 5 == 3:
                changed(told_bytes, "nothing was told", 0.3)
            assert not is_over(), path.with_suffix(".errors").read_text()
        self.unread += not path.stat().st_size

    def finish(self) -> None:
        """Start once more and read to the end."""
        with self.started("--until-idle", "1s") as process:
            assert process.wait(END_S) == 0, self.outputs[-1].with_suffix(".errors").read_text()
        events = [json.loads(line) for line in self.outputs[-1].read_bytes().splitlines()]
        assert events[-1]["event"] == "end"
        assert events[-1]["is_caught_up"]

    def told(self) -> list[tuple[ClosedWindow, bool]]:
        """Return the alerts of all runs in their order, and whether each says `again`."""
        found = []
        for path in self.outputs:
            # What a kill cut off has not been told.
            for line in path.read_bytes().rpartition(b"\n")[0].splitlines():
                event = json.loads(line)
                if event["event"] == "alert":
                    window = decode_window(line)
                    assert isinstance(window, ClosedWindow)
                    found.append((window, event["again"]))
        return found


def csv_bytes(fleet: Fleet) -> int:
    return sum(
        path.stat().st_size for path in map(fleet.settings.windows_path, FAMILIES) if path.exists()
    )


def state_change(fleet: Fleet) -> int:
    """Return when the state was written last: SQLite writes its log first."""
    return (fleet.settings.output_dir / "monitor.state.db-wal").stat().st_mtime_ns


@contextmanager
def sending(fleet: Fleet) -> Iterator[None]:
    """Send steps all the while; now and then something that is no sample."""
    stop = Event()
    failed: list[BaseException] = []

    def send() -> None:
        bad = [*BAD, None]
        try:
            for step in range(FIRST_STEPS, 10**6):
                more = [Sent(CPU, rng.choice(bad))] if step % 5 == 0 else []
                fleet.send([*fleet.steps(step, 1), *more])
                if stop.wait(STEP_S):
                    return
        except BaseException as err:  # noqa: BLE001  shown by the test
            failed.append(err)

    rng = random.Random(fleet.rng.random())  # noqa: S311  made-up data
    thread = Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not failed, failed


@pytest.fixture
def fleet(broker_port: int, tmp_path: Path) -> Fleet:
    seed = int(os.environ.get("FLEETPULSE_MONITOR_SEED", random.SystemRandom().randrange(10**9)))
    sys.stdout.write(f"seed {seed}, kills {KILLS}\n")
    # What comes is bad on purpose.
    limits = {"max_in_a_row": 10**6, "max_ratio": 1.0}
    found = Fleet.on(broker_port, tmp_path, seed, topics={"partitions": 2}, rejects=limits)
    found.create()
    return found


@pytest.mark.timeout(60 + 10 * KILLS)
def test_killed_monitor_loses_and_repeats_nothing(fleet: Fleet) -> None:
    runs = Runs(fleet)
    fleet.send(fleet.steps(0, FIRST_STEPS))
    with sending(fleet):
        for number in range(KILLS):
            runs.kill(number)
    runs.finish()

    # Every row, published window and reject is there once, as the reference has it.
    expected = fleet.expected()
    fleet.check(expected)
    causes = {one.row: one.closed_by for one in fleet.windows()}
    assert causes == {row: expected.cause(row, ClosedBy.END) for row in causes}

    # The same bytes as without a kill.
    apart = fleet.but(
        output_dir=fleet.folder / "apart", topics={"windows": f"{fleet.settings.topics.windows}-2"}
    )
    apart.run()
    for family in FAMILIES:
        assert apart.csv(family) == fleet.csv(family)
    assert sorted(map(repr, apart.windows())) == sorted(map(repr, fleet.windows()))

    # Every alert is told, and whoever hears it twice hears that it is told again.
    told = runs.told()
    seen = set()
    for window, is_again in told:
        assert is_again or window.row not in seen, window
        seen.add(window.row)
    assert seen == set(expected.alerting())
    again = sum(is_again for _, is_again in told)
    sys.stdout.write(
        f"{KILLS} kills ({runs.unread} before the first message), {len(expected.samples):,} "
        f"samples, {len(causes):,} windows, {len(seen):,} alerts ({again:,} told again), "
        f"{len(expected.refused):,} rejects: 0 lost, 0 repeated\n"
    )

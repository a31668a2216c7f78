"""Power taken from the disk under the sink: what was reported as committed is there afterwards."""

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from injectors import Disk, ext4_disk, wait_until
from sink_bench import SinkBench, sink_server

from chaos_table import Row

# A folder of its own for so many cuts: the first of them hits files that are only just made.
CUTS_A_FOLDER = 5
# Never reached: only the cut ends a run.
ENDLESS = 10**9
# Rows are multiplied, so that a commit is several pages long.
SCALE = 40


@pytest.fixture
def disk(place: Path, mounting: None) -> Iterator[Disk]:  # noqa: ARG001
    with ext4_disk(place) as found:
        yield found


def reported(bench: SinkBench) -> int:
    return bench.acks.read_bytes().count(b"\n") if bench.acks.exists() else 0


@pytest.mark.timeout(600)
def test_power_loss_takes_no_commit_that_was_reported(
    disk: Disk, place: Path, row: Row, amount: Callable[[int, int], int]
) -> None:
    row.fault = "power loss"
    rng = random.Random(row.seed)  # noqa: S311  no secret
    commits = 0
    with sink_server(place / "errors") as server:
        for number in range(amount(5, 100)):
            series = number // CUTS_A_FOLDER
            folder = disk.place / f"series{series}" / "output"
            acks = place / f"acks{series}"
            bench = SinkBench(server, folder, acks, place, SCALE, most_unreported=ENDLESS)
            with bench.started(ENDLESS):
                # Sometimes before its first commit, files and folders being made.
                awaited = reported(bench) + rng.randrange(1, 5)
                wait_until(lambda: reported(bench) >= awaited, "no commit")  # noqa: B023
                time.sleep(rng.uniform(0, 0.1))
                # What is reported while the power goes may be wrong: no program lives to tell it.
                sure = bench.acks.read_bytes()
                disk.cut_power()
            acks.write_bytes(sure)
            disk.turn_on()
            # What the cut itself made of the run is no matter.
            os.truncate(place / "errors", 0)
            # It opens, holds what was reported, and goes on.
            assert bench.run(bench.acknowledged() + 1).exit_code == 0, (
                place / "errors"
            ).read_text()
            bench.check(bench.acknowledged())
            if number % CUTS_A_FOLDER == CUTS_A_FOLDER - 1:
                commits += bench.acknowledged()
                # A fast machine fills the disk.
                shutil.rmtree(folder.parent)
    row.injected, row.acknowledged = disk.cuts, commits
    row.note = "acknowledged counts commits"

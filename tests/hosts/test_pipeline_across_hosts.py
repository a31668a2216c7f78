"""The whole pipeline on four machines: its files equal those of one machine, byte by byte."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fleet import DATASET, WINDOW_FILES, Fleet, await_rows, check_rows
from lab import Lab

SAMPLES = len(DATASET.read_bytes().splitlines()) - 1


@pytest.fixture(scope="module")
def fleet(lab: Lab) -> Iterator[Fleet]:
    made = Fleet.on(lab)
    with made.serving():
        yield made


def test_a_dataset_goes_through_four_hosts_to_the_same_files_as_on_one(
    fleet: Fleet, wanted: Mapping[str, bytes]
) -> None:
    lab = fleet.lab
    lab.broker.run("topics", "create")
    with fleet.consuming() as consumers:
        result = fleet.produce().finish()
        assert result["samples"] == SAMPLES
        await_rows(consumers, wanted)
        # One on Spark, one on the embedded engine, beside the consumers that still run.
        jobs = [
            lab.consumer1.start("spark-job1"),
            lab.consumer2.start("analyze", "net-disk"),
        ]
        for job in jobs:
            job.finish(within_s=120)
    check_rows(consumers, wanted)
    for consumer, name in zip(consumers, WINDOW_FILES, strict=True):
        assert (consumer.output / name).read_bytes() == wanted[name]

"""Several consumers share the partitions of a topic, each with files of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

PROJECT = Path(__file__).parents[2]
DATASET = PROJECT / "data/sample_data.csv"


class Bench:
    """Commands on four topics of four partitions."""

    def __init__(self, port: int, folder: Path) -> None:
        tag = uuid4().hex[:8]
        self.folder = folder
        self.environment = {
            **os.environ,
            "FLEETPULSE__BROKER__PORT": str(port),
            "FLEETPULSE__TOPICS__PARTITIONS": "4",
            "FLEETPULSE__TOPICS__POSITIONS": f"{tag}-positions",
            **{
                f"FLEETPULSE__TOPICS__{key.upper()}": f"{tag}-{key}"
                for key in ("cpu", "mem", "net", "disk")
            },
        }

    def run(self, output: str, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "main.py", *arguments],
            cwd=PROJECT,
            env={**self.environment, "FLEETPULSE__OUTPUT_DIR": str(self.folder / output)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stderr

    def consume(self, output: str, *arguments: str) -> dict[str, int]:
        text = self.run(output, "consumer1", "--until-idle", "2s", "--json", *arguments)
        rows: dict[str, int] = json.loads(text)["total_rows"]
        return rows


@pytest.fixture(scope="module")
def bench(broker_port: int, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    found = Bench(broker_port, tmp_path_factory.mktemp("shares"))
    found.run("sent", "topics", "create")
    found.run("sent", "producer", "--dataset", str(DATASET))
    return found


def test_two_halves_hold_what_the_whole_holds_and_give_the_same_windows(bench: Bench) -> None:
    whole = bench.consume("whole")
    low, high = (bench.consume("shared", "--partitions", one) for one in ("0-1", "2-3"))
    assert sorted(low) == ["cpu_data.p0-1.csv", "mem_data.p0-1.csv"]
    assert sorted(high) == ["cpu_data.p2-3.csv", "mem_data.p2-3.csv"]
    assert all(low.values())
    assert all(high.values())
    lines = {}
    for output in ("whole", "shared"):
        files = sorted((bench.folder / output).glob("cpu_data*.csv"))
        lines[output] = sorted(line for one in files for line in one.read_text().split("\n")[1:-1])
    assert lines["shared"] == lines["whole"]
    assert len(lines["whole"]) == whole["cpu_data.csv"] == 7200
    for output in ("whole", "shared"):
        bench.run(output, "analyze", "cpu-mem")
    windows = [(bench.folder / one / "CPU_MEM.csv").read_bytes() for one in ("whole", "shared")]
    assert windows[0] == windows[1]
    by_spark = str(bench.folder / "spark.csv")
    bench.run("shared", "analyze", "cpu-mem", "--engine", "spark", "--out", by_spark)
    assert Path(by_spark).read_bytes() == windows[0]


def test_a_partition_that_another_consumer_keeps_is_refused(bench: Bench) -> None:
    bench.consume("taken", "--partitions", "1-2")
    for given in (("--partitions", "2-3"), ("--partitions", "0-1"), ()):
        told = bench.run("taken", "consumer1", "--until-idle", "1s", *given, code=2)
        assert "consumer1.p1-2.state.db: it keeps" in told
    assert sorted(one.name for one in (bench.folder / "taken").glob("*.csv")) == [
        "cpu_data.p1-2.csv",
        "mem_data.p1-2.csv",
    ]
    # The rest is free, and the first one goes on.
    bench.consume("taken", "--partitions", "0")
    bench.consume("taken", "--partitions", "3")
    bench.consume("taken", "--partitions", "1-2")


def test_partitions_are_a_number_or_a_range(bench: Bench) -> None:
    for wrong in ("3-1", "x", "-1", "1,2", ""):
        told = bench.run("none", "consumer1", "--partitions", wrong, code=2)
        assert "wanted partitions such as 0-3 or 2" in told or "requires an argument" in told

"""Measures the pipeline on this machine: `bench/run.py [NAME ...]`, all of it in about ten minutes.

Each benchmark makes its own broker, topics and data in a temporary folder, runs the product's own
commands with default settings, contestants in turns, and removes and stops everything. It prints
minimum, median and maximum and writes `bench/results/NAME.json`. Only numbers of one run on a quiet
machine should be compared. The exit code tells that commands worked, not that goals were met.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pipeline import batch, consumer, demo, producer, spark
from pipeline.command import CommandFailed
from pipeline.place import Place
from pipeline.report import Measure, Report, load, show, write

_RESULTS: Final = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """How to measure one thing, and how to read what comes out."""

    measure: Callable[[Place], tuple[dict[str, int], list[Measure]]]
    notes: Sequence[str]


_BENCHMARKS: Final = {
    "producer": Benchmark(producer.measure, producer.NOTES),
    "consumer": Benchmark(consumer.measure, consumer.NOTES),
    "batch": Benchmark(batch.measure, batch.notes()),
    "spark": Benchmark(spark.measure, spark.NOTES),
    "demo": Benchmark(demo.measure, demo.NOTES),
}


def main() -> int:
    """Run the chosen benchmarks; 1 where a command failed or did something else than its work."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"{', '.join(_BENCHMARKS)} (all)")
    parser.add_argument("--runs", type=int, default=3, help="of each contestant (3)")
    parser.add_argument("--results", type=Path, default=_RESULTS, help="folder of the JSON files")
    given = parser.parse_args()
    if unknown := set(given.names) - set(_BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {[*_BENCHMARKS]}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="fleetpulse-bench-") as folder:
        place = Place.at(Path(folder), given.runs)
        for name in given.names or _BENCHMARKS:
            print(f"{name} ...", flush=True)
            try:
                report = _report(name, place.renewed())
            except CommandFailed as err:
                print(f"{name}: {err}", file=sys.stderr)
                return 1
            except KeyboardInterrupt:
                print(f"{name}: stopped; nothing is left running", file=sys.stderr)
                return 130
            show(report)
            write(report, given.results)
    return 0


def _report(name: str, place: Place) -> Report:
    one = _BENCHMARKS[name]
    started, load_before = datetime.now(UTC), load()
    sizes, measures = one.measure(place)
    return Report(name, sizes, measures, one.notes, place.commands, (load_before, load()), started)


if __name__ == "__main__":
    sys.exit(main())

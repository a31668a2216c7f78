"""Results: what was measured against which goal, on which machine; printed, and written as JSON."""

import json
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psutil

from fleetpulse.edges.jars.lock import LOCK_PATH
from fleetpulse.roles.setup import BROKER_JARS, ready_java

_PACKAGES: Final = ("fleetpulse", "confluent-kafka", "pyspark")


@dataclass(frozen=True, slots=True)
class Goal:
    """What the median should be: over one number, or under another."""

    over: float | None = None
    under: float | None = None

    def is_met(self, median: float) -> bool:
        """Tell whether a median meets it; the limit itself does not."""
        return (self.over is None or median > self.over) and (
            self.under is None or median < self.under
        )

    def __str__(self) -> str:
        """Return it as people write it."""
        return f"> {self.over:,g}" if self.over is not None else f"< {self.under:,g}"


@dataclass(frozen=True, slots=True)
class Measure:
    """One quantity of one contestant: the values of its runs, in their order."""

    contestant: str
    quantity: str
    unit: str
    values: Sequence[float]
    goal: Goal | None = None

    @property
    def median(self) -> float:
        """The middle of the values."""
        return statistics.median(self.values)

    def verdict(self) -> str:
        """Return whether the goal is met, empty without one."""
        if self.goal is None:
            return ""
        return f"{self.goal}: {'met' if self.goal.is_met(self.median) else 'MISSED'}"

    def as_json(self) -> dict[str, Any]:
        """Return it for the results file."""
        return {
            **asdict(self),
            "goal": str(self.goal) if self.goal else None,
            "values": [_rounded(value) for value in self.values],
            "min": _rounded(min(self.values)),
            "median": _rounded(self.median),
            "max": _rounded(max(self.values)),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What a benchmark found; `sizes` say how much work it was, `notes` how to read the numbers."""

    name: str
    sizes: Mapping[str, int]
    measures: Sequence[Measure]
    notes: Sequence[str]
    commands: Mapping[str, str]
    loads: tuple[float, float]
    started: datetime
    ended: datetime = field(default_factory=lambda: datetime.now(UTC))


def load() -> float:
    """Return how many processes wanted to run, on the average of the last minute."""
    return round(os.getloadavg()[0], 2)


def show(report: Report) -> None:
    """Print the table of a report."""
    seconds = (report.ended - report.started).total_seconds()
    sizes = ", ".join(f"{size:,} {name}" for name, size in report.sizes.items())
    print(f"\n{report.name}: {sizes} ({seconds:.0f} s, load before {report.loads[0]:g})")
    row = "  {:<24} {:<30} {:>11} {:>11} {:>11}  {}"
    print(row.format("contestant", "quantity", "min", "median", "max", "goal"))
    for one in report.measures:
        numbers = (min(one.values), one.median, max(one.values))
        quantity = f"{one.quantity} [{one.unit}]" if one.unit else one.quantity
        print(row.format(one.contestant, quantity, *map(_text, numbers), one.verdict()).rstrip())
    for note in report.notes:
        print(f"  {note}")
    sys.stdout.flush()


def write(report: Report, folder: Path) -> Path:
    """Write `<name>.json` with everything that is needed to judge and repeat the run."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.name}.json"
    content = {
        "name": report.name,
        "started": f"{report.started:%Y-%m-%dT%H:%M:%SZ}",
        "seconds": round((report.ended - report.started).total_seconds(), 1),
        "machine": _machine(),
        "load_before": report.loads[0],
        "load_after": report.loads[1],
        "sizes": dict(report.sizes),
        "commands": dict(report.commands),
        "notes": list(report.notes),
        "measures": [one.as_json() for one in report.measures],
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def _machine() -> dict[str, Any]:
    java = ready_java(os.environ)
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "java": f"{java.major} ({java.origin})",
        "kafka": _kafka_version(),
        **{name: version(name) for name in _PACKAGES},
    }


def _cpu_model() -> str:
    # Only Linux tells by a file; elsewhere the name of the architecture must do.
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def _kafka_version() -> str:
    jars = [line.split() for line in LOCK_PATH.read_text(encoding="utf-8").splitlines()]
    return next(
        jar[1].rpartition(":")[2]
        for jar in jars
        if jar[:1] == [BROKER_JARS] and ":kafka-clients:" in jar[1]
    )


def _rounded(value: float) -> float:
    return float(f"{value:.4g}") if abs(value) < 1000 else float(round(value))  # noqa: PLR2004


def _text(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004

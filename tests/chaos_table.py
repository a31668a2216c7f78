"""The table that tests of faults end with: what was injected, and what came of it."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "bench" / "results" / "chaos.json"
IS_FULL = os.environ.get("FLEETPULSE_CHAOS") == "full"


@dataclass
class Row:
    """What a test injected and what came of it; None where a number means nothing there."""

    test: str
    fault: str
    seed: int
    injected: int | None = None
    produced: int | None = None
    acknowledged: int | None = None
    rows: int | None = None
    rejects: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    duplicated: int = 0
    torn: int = 0
    seconds: float = 0.0
    note: str = ""
    passed: bool = False

    def cells(self) -> list[str]:
        numbers = (self.injected, self.produced, self.acknowledged, self.rows)
        ends = (sum(self.rejects.values()), self.lost, self.duplicated, self.torn)
        shown = ["-" if n is None else f"{n:,}" for n in (*numbers, *ends)]
        return [self.fault, *shown, f"{self.seconds:.0f}", "ok" if self.passed else "FAILED"]


HEADINGS = "fault,injected,produced,acknowledged,rows,rejects,lost,duplicated,torn,seconds,"


def printed(rows: Sequence[Row]) -> list[str]:
    """Return the lines of the table."""
    lines = [HEADINGS.split(","), *(row.cells() for row in rows)]
    notes = ["", *(row.note for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join([name.ljust(widths[0]), *map(str.rjust, cells, widths[1:]), note]).rstrip()
        for (name, *cells), note in zip(lines, notes, strict=True)
    ]


def write_results(rows: Sequence[Row]) -> None:
    machine = {"cpus": os.cpu_count(), "system": platform.platform()}
    found = {"machine": machine, "rows": [asdict(row) for row in rows]}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")

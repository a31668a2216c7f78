"""The demo on the sample data, seconds by stage; everything it needs is installed before."""

import re
from pathlib import Path
from typing import Final

from pipeline.command import Ended
from pipeline.place import Place
from pipeline.report import Goal, Measure

_SAMPLE: Final = Path(__file__).parents[2] / "data" / "sample_data.csv"
_STAGE: Final = re.compile(r"demo: (.+): done in ([0-9.]+) s")
NOTES: Final = (
    "This is the command that `make demo` runs once it has found that nothing is to be installed.",
)


def measure(place: Place) -> tuple[dict[str, int], list[Measure]]:
    """Return sizes and measures."""
    # A copy, so that the command that is noted has no path of this machine in it.
    (place.folder / _SAMPLE.name).write_bytes(_SAMPLE.read_bytes())
    rows = len(_SAMPLE.read_bytes().splitlines()) - 1
    ended = [
        place.run("demo", "demo", "--dataset", _SAMPLE.name, "--output", "demo")
        for _ in range(place.runs)
    ]
    stages = [_stages(one) for one in ended]
    return {"rows": rows, "messages": 4 * rows}, [
        Measure("demo", "wall", "s", [one.wall_s for one in ended], Goal(under=60)),
        *(Measure("demo", name, "s", [one[name] for one in stages]) for name in stages[0]),
        Measure("demo", "CPU, broker left out", "s", [one.cpu_s for one in ended]),
        Measure("demo", "peak RSS, broker left out", "MB", [one.rss_peak_mb for one in ended]),
    ]


def _stages(ended: Ended) -> dict[str, float]:
    found = (_STAGE.search(line) for _, line in ended.events)
    return {match[1]: float(match[2]) for match in found if match}

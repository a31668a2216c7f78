"""The Spark jobs: two hours of twenty servers, and once a million rows."""

import re
from typing import Any, Final

from pipeline.command import CommandFailed, Ended
from pipeline.place import Fleet, Place, cut, expect
from pipeline.report import Goal, Measure

FLEET: Final = Fleet(servers=20, interval_s=5, rows=28_800)
LARGE: Final = Fleet(servers=100, interval_s=1, rows=1_000_000)
_METRICS: Final = {
    "cpu": ("cpu_pct",),
    "mem": ("mem_pct",),
    "net": ("net_in", "net_out"),
    "disk": ("disk_io",),
}
_JOBS: Final = {"spark-job1": ("cpu", "mem"), "spark-job2": ("net", "disk")}
_ROWS_OF_SMALL: Final = 14_400
NOTES: Final = (
    "wall: of the process, with the start of Python and Java.",
    "intake: until both files are read and checked; windows: Spark's work and writing.",
    "Memory is that of Python and Java together.",
)


def measure(place: Place) -> tuple[dict[str, int], list[Measure]]:
    """Return sizes and measures; the jobs take turns."""
    small = _inputs(place, FLEET)
    found: dict[str, list[Ended]] = {name: [] for name in _JOBS}
    for _ in range(place.runs):
        for name, ended in found.items():
            ended.append(_run(place, name, name, small))
            expect(_fields(ended[-1])["rows"], _ROWS_OF_SMALL, f"{name}: windows")
    large = _inputs(place, LARGE)
    measures = [one for name, ended in found.items() for one in _measures(name, ended)]
    for name in _JOBS:
        title = f"{name}, large"
        once = _run(place, name, title, large)
        samples = list(_fields(once)["samples"].values())
        expect(samples, [LARGE.rows] * 2, f"{title}: samples")
        measures += _split(title, [once])
    return {"rows a topic": FLEET.rows, "rows a topic, large": LARGE.rows}, measures


def _inputs(place: Place, fleet: Fleet) -> dict[str, str]:
    dataset = place.dataset(fleet)
    files = {}
    for topic, metrics in _METRICS.items():
        files[topic] = f"{topic}-{fleet.rows}.csv"
        cut(place, dataset, ("ts", "server_id", *metrics), files[topic])
    return files


def _run(place: Place, job: str, name: str, files: dict[str, str]) -> Ended:
    options = [part for topic in _JOBS[job] for part in (f"--{topic}", files[topic])]
    return place.run(name, job, *options, "--out", f"{job}.csv", "--json")


def _fields(ended: Ended) -> dict[str, Any]:
    (fields,) = ended.result().values()
    return dict(fields)


def _measures(name: str, ended: list[Ended]) -> list[Measure]:
    first, *rest = _split(name, ended)
    return [Measure(name, first.quantity, first.unit, first.values, Goal(under=20)), *rest]


def _split(name: str, ended: list[Ended]) -> list[Measure]:
    return [
        Measure(name, "wall", "s", [one.wall_s for one in ended]),
        Measure(name, "intake", "s", [_intake_s(one) for one in ended]),
        Measure(name, "start of Spark", "s", [_start_s(one) for one in ended]),
        Measure(name, "windows", "s", [_fields(one)["seconds"] for one in ended]),
        Measure(name, "CPU", "s", [one.cpu_s for one in ended]),
        Measure(name, "peak RSS", "MB", [one.rss_peak_mb for one in ended]),
    ]


def _intake_s(ended: Ended) -> float:
    instant_s, _ = ended.event(" samples from ")
    return instant_s - ended.started_s


def _start_s(ended: Ended) -> float:
    _, line = ended.event("Spark started in ")
    found = re.search(r"Spark started in ([0-9.]+) s", line)
    if found is None:
        raise CommandFailed(f"no seconds in {line!r}")
    return float(found[1])

"""`analyze` on a million rows of CPU and of memory, against Polars and DuckDB on the same files."""

import re
from typing import Final

from peers.install import REQUIREMENTS, missing_python

from pipeline.command import CommandFailed, Ended
from pipeline.place import Fleet, Place, cut, expect
from pipeline.report import Goal, Measure

FLEET: Final = Fleet(servers=100, interval_s=1, rows=1_000_000)
TINY: Final = Fleet(servers=1, interval_s=1, rows=60)
_WINDOWS: Final = 100_000
_OURS: Final = "analyze"
_SCAN: Final = "polars scan"
# Each makes the whole file, as we do.
_SYSTEMS: Final = {"polars": "polars_windows.py", "duckdb": "duckdb_windows.py"}
_METRICS: Final = {"cpu": "cpu_pct", "mem": "mem_pct"}


def notes() -> list[str]:
    """Return how to read the numbers, and which contestants are not there."""
    found = [
        "All figures are of whole processes, with their start, on files that are in memory.",
        "polars scan: each file is read once and one column added up; no instant is parsed.",
        "polars, duckdb: the windows and the file, with exact sums; their bytes are checked.",
        "tiny: 60 rows a file, so the time that a start takes.",
        "/ scan: by the scan of the same round.",
    ]
    if missing := missing_python():
        return [*found, f"polars, duckdb: {missing}"]
    pins = dict(re.findall(r"(?m)^(polars|duckdb)==(\S+)", REQUIREMENTS.read_text("utf-8")))
    return [*found, ", ".join(f"{name} {version}" for name, version in sorted(pins.items()))]


def measure(place: Place) -> tuple[dict[str, int], list[Measure]]:
    """Return sizes and measures; the contestants take turns."""
    files, tiny = _inputs(place, FLEET), _inputs(place, TINY)
    ours: list[Ended] = []
    starts: list[Ended] = []
    others: dict[str, list[Ended]] = {}
    for _ in range(place.runs):
        ours.append(_analyze(place, _OURS, files))
        (fields,) = ours[-1].result().values()
        expect(fields["rows"], _WINDOWS, "analyze: windows")
        starts.append(_analyze(place, f"{_OURS}, tiny", tiny))
        if missing_python():
            continue
        columns = [word for name in files for word in (files[name], _METRICS[name])]
        scan = place.run_peer(_SCAN, "polars_scan.py", *columns)
        others.setdefault(_SCAN, []).append(scan)
        for name, program in _SYSTEMS.items():
            done = place.run_peer(name, program, *files.values(), f"{name}.csv")
            others.setdefault(name, []).append(done)
            _expect_same(place, f"{name}.csv")
    measures = [
        *_own(_OURS, ours),
        Measure(f"{_OURS}, tiny", "wall", "s", [one.wall_s for one in starts], Goal(under=0.5)),
        *(one for name, ended in others.items() for one in _own(name, ended)),
    ]
    if scans := others.pop(_SCAN, None):
        measures += _against(_OURS, ours, scans, Goal(under=2))
        for name, ended in others.items():
            measures += _against(name, ended, scans, None)
    return {"rows a topic": FLEET.rows, "windows": _WINDOWS}, measures


def _inputs(place: Place, fleet: Fleet) -> dict[str, str]:
    dataset = place.dataset(fleet)
    files = {}
    for topic, metric in _METRICS.items():
        files[topic] = f"{topic}-{fleet.rows}.csv"
        cut(place, dataset, ("ts", "server_id", metric), files[topic])
    return files


def _analyze(place: Place, name: str, files: dict[str, str]) -> Ended:
    options = [part for topic, file in files.items() for part in (f"--{topic}", file)]
    out = f"{name.replace(', ', '-')}.csv"
    return place.run(name, "analyze", "cpu-mem", *options, "--out", out, "--json")


def _expect_same(place: Place, name: str) -> None:
    if (place.folder / name).read_bytes() != (place.folder / f"{_OURS}.csv").read_bytes():
        raise CommandFailed(f"{name} differs from {_OURS}.csv")


def _own(contestant: str, ended: list[Ended]) -> list[Measure]:
    return [
        Measure(contestant, "wall", "s", [one.wall_s for one in ended]),
        Measure(contestant, "CPU", "s", [one.cpu_s for one in ended]),
        Measure(contestant, "peak RSS", "MB", [one.rss_peak_mb for one in ended]),
    ]


def _against(
    contestant: str, ended: list[Ended], scans: list[Ended], goal: Goal | None
) -> list[Measure]:
    pairs = list(zip(ended, scans, strict=True))
    walls = [one.wall_s / scan.wall_s for one, scan in pairs]
    costs = [one.cpu_s / scan.cpu_s for one, scan in pairs]
    return [
        Measure(contestant, "wall / scan", "", walls, goal),
        Measure(contestant, "CPU / scan", "", costs),
    ]

"""The whole pipeline as a newcomer starts it: results, and nothing left behind."""

import datetime as dt
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from fleetpulse.codec.table import read_table
from fleetpulse.codec.windows import TimeFormat, format_windows
from fleetpulse.config import Settings
from fleetpulse.domain.aggregate import fold
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.metric import FAMILIES, METRICS
from fleetpulse.edges.files import read_chunks

TWO_HOURS = ["--servers", "20", "--interval", "5s", "--duration", "2h", "--seed", "11"]


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start a command of ours, its event lines on a pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "fleetpulse", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def left_running(folder: Path) -> list[list[str]]:
    """Return the commands of processes that were started for this folder."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        if process.pid == os.getpid():
            continue
        try:
            is_ours = any(str(folder) in value for value in process.environ().values())
        except psutil.Error:
            continue
        if is_ours or any(str(folder) in part for part in process.info["cmdline"] or []):
            found.append(process.info["cmdline"])
    return found


def reference(dataset: Path, family_index: int) -> bytes:
    """Return the output file that the reference interpreter makes of a dataset."""
    settings, family = Settings(), FAMILIES[family_index]
    times = TimeReader(dt.UTC, dt.date(2025, 10, 5))
    rows = read_table(read_chunks(dataset), METRICS, times, str(dataset))
    samples = [row.sample for _, row in rows if row.sample is not None]
    windows = fold(samples, settings.window.spec(), settings.rule_set(family), settings.arithmetic)
    lines = format_windows(family, windows, 0, TimeFormat.AUTO, dt.UTC)
    return "".join(lines).encode()


def test_demo_of_two_hours_equals_the_reference_byte_by_byte(tmp_path: Path) -> None:
    dataset, output = tmp_path / "two_hours.csv", tmp_path / "run"
    files = ["--out", str(dataset), "--incidents", str(tmp_path / "i.csv")]
    with start("simulate", *TWO_HOURS, *files, "--start", "2025-10-05T20:00:00Z") as simulate:
        assert simulate.wait() == 0
    with start("demo", "--dataset", str(dataset), "--output", str(output), "--no-ui") as demo:
        printed, events = demo.communicate()
    assert demo.returncode == 0, events
    for index, name in enumerate(("CPU_MEM.csv", "NET_DISK.csv")):
        written = (output / name).read_bytes()
        assert written.count(b"\n") == 14_401
        assert written == reference(dataset, index)
    for text in ("topic-disk", "28,800", "14,400", "Sustained load alert", "Worst windows"):
        assert text in printed
    assert left_running(output) == []


def test_demo_that_is_interrupted_leaves_nothing_running(tmp_path: Path) -> None:
    output = tmp_path / "run"
    with start("demo", "--live", "60s", "--output", str(output)) as demo:
        assert demo.stderr is not None
        lines = iter(demo.stderr.readline, "")
        seen = next((line for line in lines if "consumer2: topic-net" in line), None)
        demo.send_signal(signal.SIGINT)
        _, rest = demo.communicate()
    assert seen, rest
    assert demo.returncode == 130
    assert "Traceback" not in rest
    assert left_running(output) == []

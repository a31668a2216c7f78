"""What the embedded engine refuses to hold."""

import threading
from pathlib import Path

import pytest

from fleetpulse.config import Settings
from fleetpulse.domain.errors import FleetpulseError
from fleetpulse.domain.metric import CPU_MEM
from fleetpulse.roles.analyze import analyze
from fleetpulse.roles.analyze_embedded import EmbeddedInterpreter
from fleetpulse.roles.job import Job


def fleet(path: Path, servers: int) -> Path:
    """Each server sends once, and none at the time of another: a cell for each pair of them."""
    rows = [
        f"2025-10-05T{minute // 60:02}:{minute % 60:02}:00Z,server_{minute},1\n"
        for minute in range(servers)
    ]
    path.write_text("ts,server_id,cpu_pct\n" + "".join(rows))
    return path


def test_inputs_that_take_more_memory_are_refused_and_leave_the_output(tmp_path: Path) -> None:
    path = fleet(tmp_path / "cpu_data.csv", 500)
    out = tmp_path / "CPU_MEM.csv"
    out.write_text("of an earlier run\n")
    settings = Settings()
    job = Job("analyze-cpu-mem", CPU_MEM, (path, path), out)
    interpreter = EmbeddedInterpreter(settings, most_bytes=500 * 500 * 2 * 16)

    with pytest.raises(
        FleetpulseError, match=r"cpu_data\.csv: as many servers .*; use --engine spark"
    ):
        analyze(settings, [job], interpreter, threading.Event(), lambda _: None)

    assert out.read_text() == "of an earlier run\n"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["CPU_MEM.csv", "cpu_data.csv"]

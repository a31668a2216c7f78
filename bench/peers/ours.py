"""The product's own live commands, with a settings file that names the benchmark's broker."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from peers.start import Run, Start

# The silence after which a command knows that the backlog is drained; it is not counted.
MONITOR_IDLE_S: Final = 1.0
STREAM_IDLE_S: Final = 2.0


def monitor(run: Run) -> Start:
    """Return how the embedded engine is started."""
    return _start("monitor", run, MONITOR_IDLE_S)


def monitor_files(run: Run) -> Start:
    """Return how the embedded engine is started for files alone, as the peers write them."""
    start = monitor(run)
    return replace(start, command=[*start.command, "--no-topic"])


def spark_stream(run: Run) -> Start:
    """Return how the product's live windows on Spark are started."""
    return _start("spark-stream", run, STREAM_IDLE_S)


def missing_command(name: str) -> str:
    """Return why a command of the product cannot run, or ""."""
    asked = subprocess.run(
        [sys.executable, "-m", "fleetpulse", name, "--help"], capture_output=True, check=False
    )
    return "" if asked.returncode == 0 else f"this version has no command {name}"


def _start(name: str, run: Run, idle_s: float) -> Start:
    command = [sys.executable, "-m", "fleetpulse", name, "--config", str(_settings(run))]
    command += ["--from-beginning", "--csv", "--json"]
    if run.messages:
        command += ["--until-idle", f"{idle_s:g}s"]
    return Start(command)


def _settings(run: Run) -> Path:
    """Write the settings of a run: only what must differ from the defaults."""
    host, _, port = run.bootstrap.rpartition(":")
    cpu, mem, net, disk = run.topics
    found = {
        "hosts": {"broker": host},
        "broker": {"port": int(port)},
        "topics": {
            "cpu": cpu,
            "mem": mem,
            "net": net,
            "disk": disk,
            "windows": run.windows_topic,
        },
        "time": {"output": "iso"},
        "output_dir": str(run.out),
    }
    if not run.messages:
        # As the peers: the first windows close after seconds instead of half a minute.
        found["window"] = {"leading": "keep"}
    path = run.out / "config.yaml"
    # JSON is YAML.
    path.write_text(json.dumps(found), encoding="utf-8")
    return path

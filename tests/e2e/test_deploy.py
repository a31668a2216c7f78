"""The printed units, run by hand: their command, variables, umask and folders, and nothing else."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from fleetpulse.edges.jars.cache import cache_dir
from fleetpulse.edges.kafka.address import free_port

WAIT_S = 60.0
SAMPLES = 60


def awaited(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Machine:
    """A folder that stands for the root of a machine which docs/deploy.md has prepared."""

    root: Path

    def prepare(self, port: int) -> None:
        app, etc = self.root / "opt/fleetpulse", self.root / "etc/fleetpulse"
        for folder in (app, etc, self.data):
            folder.mkdir(parents=True)
        (app / ".venv").symlink_to(sys.prefix)
        (app / ".cache").symlink_to(cache_dir(os.environ))
        (etc / "config.yaml").write_text(f"broker: {{port: {port}}}\n")

    @property
    def data(self) -> Path:
        return self.root / "var/lib/fleetpulse"

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        config = str(self.root / "etc/fleetpulse/config.yaml")
        return subprocess.run(
            [sys.executable, "-m", "fleetpulse", *arguments, "--config", config],
            env={**os.environ, "FLEETPULSE__OUTPUT_DIR": str(self.data)},
            capture_output=True,
            text=True,
            check=False,
            timeout=WAIT_S,
        )

    @contextmanager
    def service(self, role: str, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
        keys = self.unit(role, *arguments)
        variables = dict(shlex.split(value)[0].split("=", 1) for value in keys["Environment"])
        process = subprocess.Popen(
            shlex.split(keys["ExecStart"][0]),
            cwd=keys["WorkingDirectory"][0],
            # What systemd gives besides: no home folder, as the user has none.
            env={**variables, "PATH": os.defpath, "HOME": str(self.root / "nowhere")},
            umask=int(keys["UMask"][0], 8),
            stdin=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(WAIT_S)

    def unit(self, role: str, *arguments: str) -> dict[str, list[str]]:
        command = ["deploy", "systemd", "--role", role, "--", *arguments]
        printed = subprocess.run(
            [sys.executable, "-m", "fleetpulse", *command],
            capture_output=True,
            text=True,
            check=True,
            timeout=WAIT_S,
        ).stdout
        for folder in ("/opt/fleetpulse", "/etc/fleetpulse", "/var/lib/fleetpulse"):
            printed = printed.replace(folder, f"{self.root}{folder}")
        keys: dict[str, list[str]] = {}
        for line in printed.splitlines():
            if line and line[0] not in "#[":
                key, _, value = line.partition("=")
                keys.setdefault(key, []).append(value)
        return keys


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    found = Machine(tmp_path)
    found.prepare(free_port())
    return found


def test_services_carry_samples_from_the_producer_to_the_files_and_end_in_order(
    machine: Machine,
) -> None:
    files = [machine.data / name for name in ("cpu_data.csv", "mem_data.csv")]
    with ExitStack() as services:
        broker = services.enter_context(machine.service("broker"))
        awaited(lambda: machine.command("broker", "status").returncode == 0)
        java = psutil.Process(broker.pid).children()
        assert machine.command("topics", "create").returncode == 0
        consumer = services.enter_context(machine.service("consumer1"))
        simulated = ("--simulate", "--speed", "max", "--limit", str(SAMPLES))
        with machine.service("producer", *simulated) as producer:
            assert producer.wait(WAIT_S) == 0
        awaited(
            lambda: all(
                file.exists() and len(file.read_text().splitlines()) == SAMPLES + 1
                for file in files
            )
        )
        for process in (consumer, broker):
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT_S) == 0
    assert len(java) == 1
    assert not java[0].is_running()


def test_wrong_settings_end_a_service_with_a_code_that_does_not_start_it_again(
    machine: Machine,
) -> None:
    (machine.root / "etc/fleetpulse/config.yaml").write_text("hosts: {borker: 10.147.17.1}\n")
    with machine.service("consumer2") as consumer:
        assert consumer.wait(WAIT_S) == 2
    assert "2" in machine.unit("consumer2")["RestartPreventExitStatus"][0].split()


def test_an_option_that_a_unit_cannot_keep_is_refused() -> None:
    command = ["deploy", "systemd", "--role", "broker", "--user", "root"]
    done = subprocess.run(
        [sys.executable, "-m", "fleetpulse", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "wanted a user of its own" in done.stderr

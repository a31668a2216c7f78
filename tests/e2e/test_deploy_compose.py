"""The compose file: what shuts its containers in, and its commands, run by hand as they stand."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from fleetpulse.domain.role import Role
from fleetpulse.edges.kafka.address import free_port
from fleetpulse.roles.deploy import JOBS

ROOT: Final = Path(__file__).parents[2]
COMPOSE: Final = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
SERVICES: Final[Mapping[str, Mapping[str, Any]]] = COMPOSE["services"]
LOCKS: Final = ("requirements-build.txt", "requirements-core.txt", "requirements.txt")
WAIT_S = 60.0


def awaited(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def test_each_role_is_a_service_and_the_topics_come_before_those_who_need_them() -> None:
    assert set(SERVICES) == {*map(str, Role), "topics-init"}
    waiting = {
        name for name, service in SERVICES.items() if "topics-init" in service.get("depends_on", {})
    }
    assert waiting == set(SERVICES) - {"broker", "topics-init", *map(str, JOBS)}
    assert list(SERVICES["topics-init"]["depends_on"]) == ["broker"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_shut_in(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "pids_limit", "tmpfs", "stop_grace_period", "restart"} <= service.keys()
    assert not {"ports", "privileged", "user", "cap_add", "devices"} & service.keys()


def test_no_container_reaches_beyond_the_others() -> None:
    assert COMPOSE["networks"]["fleet"]["internal"] is True
    subnet = COMPOSE["networks"]["fleet"]["ipam"]["config"][0]["subnet"]
    for name, service in SERVICES.items():
        if name in JOBS:
            assert service["network_mode"] == "none"
        else:
            assert service["networks"] == ["fleet"]
            assert service["environment"]["FLEETPULSE__OVERLAY__NETWORK"] == subnet


def test_the_images_hold_only_what_the_locks_name() -> None:
    lines = (ROOT / "deploy/Dockerfile").read_text().replace("\\\n", " ").splitlines()
    installs = [
        step
        for line in lines
        if line.startswith("RUN")
        for step in line.split("&&")
        if "pip" in step
    ]
    hashed = [step for step in installs if "--require-hashes" in step]
    assert [step.split()[-1] for step in hashed] == list(LOCKS)
    (own,) = (step for step in installs if step not in hashed)
    assert "--no-index --no-deps --no-build-isolation ." in own
    users = [line for line in lines if line.startswith("USER")]
    assert users == ["USER fleetpulse", "USER fleetpulse"]


class Host:
    """This machine in place of the containers: their commands, on loopback, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PATH": f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}",
            "FLEETPULSE__OUTPUT_DIR": str(folder),
            "FLEETPULSE__HOSTS__BROKER": "127.0.0.1",
            "FLEETPULSE__BROKER__PORT": str(free_port()),
        }

    def is_healthy(self, name: str) -> bool:
        kind, *words = SERVICES[name]["healthcheck"]["test"]
        if kind == "CMD-SHELL":
            words = ["/bin/sh", "-c", words[0].replace("$$", "$")]
        return subprocess.run(words, env=self.environment, check=False).returncode == 0

    def run(self, name: str) -> int:
        command = ["fleetpulse", *SERVICES[name]["command"]]
        return subprocess.run(command, env=self.environment, check=False, timeout=WAIT_S).returncode

    @contextmanager
    def container(self, name: str) -> Iterator[None]:
        command = ["fleetpulse", *SERVICES[name]["command"]]
        process = subprocess.Popen(command, env=self.environment, cwd=self.folder)
        try:
            yield
            process.terminate()
            assert process.wait(WAIT_S) == 0
        finally:
            process.kill()
            process.wait()


def test_the_commands_carry_samples_and_health_tells_whether_the_broker_is_there(
    tmp_path: Path,
) -> None:
    host = Host(tmp_path)
    assert not host.is_healthy("broker")
    with ExitStack() as containers:
        containers.enter_context(host.container("broker"))
        awaited(lambda: host.is_healthy("broker"))
        assert host.run("topics-init") == 0
        for name in ("consumer1", "consumer2", "monitor", "producer"):
            containers.enter_context(host.container(name))
        for file in ("cpu_data.csv", "net_data.csv"):
            awaited(lambda path=tmp_path / file: path.exists() and path.stat().st_size > 100)
        for name in ("consumer1", "consumer2", "monitor", "producer"):
            # The first minutes of a container do not count.
            awaited(lambda name=name: host.is_healthy(name))
    assert not host.is_healthy("consumer1")

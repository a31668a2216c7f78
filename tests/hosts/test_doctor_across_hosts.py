"""`doctor` on a machine of several: each fault between them fails the check that is named for it.

No other check fails: an operator must not have to guess. What only follows is skipped.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

import faults
from fleet import PORT, Fleet
from lab import LAN_INTERFACE, OVERLAY_INTERFACE, Host, Lab, open_lab

# Exit codes of `doctor`, and of a role that no broker answers.
WARNED, FAILED = 1, 2
UNREACHABLE = 69


def diagnosed(host: Host, role: str, *arguments: str) -> dict[str, list[str]]:
    """Return the names of the checks by their outcome."""
    doctor = host.start("doctor", "--role", role, "--json", *arguments)
    code = doctor.process.wait(90)
    assert doctor.out.stat().st_size, doctor.said()
    found: dict[str, list[str]] = {}
    for check in json.loads(doctor.out.read_text())["checks"]:
        found.setdefault(check["outcome"], []).append(check["name"])
    print(doctor.out.read_text())  # noqa: T201  what a failed test wants to know
    assert code == (FAILED if "fail" in found else WARNED if "warn" in found else 0)
    return found


@pytest.fixture(scope="module")
def fleet(lab: Lab) -> Iterator[Fleet]:
    made = Fleet.secured_on(lab)
    with made.serving():
        lab.broker.run("topics", "create")
        yield made


@pytest.mark.parametrize("role", ["broker", "producer", "consumer1"])
def test_nothing_fails_where_all_is_well(fleet: Fleet, role: str) -> None:
    found = diagnosed(fleet.lab.hosts[role], role)
    # There is no ZeroTier service in the lab: the addresses alone speak for it.
    assert (found.get("fail"), found.get("warn")) == (None, ["zerotier"])


Injector = Callable[[Lab], AbstractContextManager[Any]]
FAULTS: dict[str, tuple[Injector, str]] = {
    "partition": (lambda lab: faults.cut_off(lab.broker), "connect"),
    "nothing comes back": (lambda lab: faults.deaf(lab.consumer1), "connect"),
    "blocked port": (lambda lab: faults.blocked(lab.broker, PORT), "connect"),
    "resets": (lambda lab: faults.resetting(lab.broker, PORT), "connect"),
    "lost packets": (lambda lab: faults.lossy(lab.broker, 30), "connect"),
    "own link down": (lambda lab: faults.link_down(lab.consumer1), "overlay"),
    "flapping link": (lambda lab: faults.flapping(lab.broker, 0.3, 0.3), "connect"),
    "black hole": (lambda lab: faults.black_hole(lab.broker, 1000), "mtu"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_of_the_network_fails_its_own_check(fleet: Fleet, kind: str) -> None:
    inject, wanted = FAULTS[kind]
    with inject(fleet.lab):
        found = diagnosed(fleet.lab.consumer1, "consumer1")
    assert found["fail"] == [wanted]


def test_a_small_mtu_is_warned_of(fleet: Fleet) -> None:
    with faults.small_mtu(fleet.lab.consumer1, 900):
        found = diagnosed(fleet.lab.consumer1, "consumer1")
    assert "fail" not in found
    assert found["warn"] == ["zerotier", "mtu"]


@pytest.mark.parametrize(("name", "wanted"), [("password", "login"), ("identity.pem", "tls")])
def test_the_secret_of_another_authority_fails_its_own_check(
    fleet: Fleet, tmp_path: Path, name: str, wanted: str
) -> None:
    host = fleet.lab.consumer1
    folder = changed(fleet, tmp_path)
    forged = tmp_path / "forged"
    host.run("security", "init", "--folder", str(forged))
    shutil.copy(forged / "consumer1" / name, folder / name)
    assert diagnosed(host, "consumer1", *given(folder))["fail"] == [wanted]


def test_a_broker_of_another_authority_fails_the_check_of_the_connection(
    fleet: Fleet, tmp_path: Path
) -> None:
    host = fleet.lab.consumer1
    forged = tmp_path / "forged"
    host.run("security", "init", "--folder", str(forged))
    assert diagnosed(host, "consumer1", *given(forged / "consumer1"))["fail"] == ["tls"]


def test_another_role_than_that_of_the_certificate_fails_the_check_of_permissions(
    fleet: Fleet,
) -> None:
    assert diagnosed(fleet.lab.consumer1, "consumer2")["fail"] == ["permission"]


def test_a_missing_topic_fails_its_own_check(fleet: Fleet) -> None:
    other = Fleet(fleet.lab, {**fleet.parts, "topics": {"cpu": "never-made"}}, fleet.security)
    try:
        other.settle()
        other.broker("start")
        assert diagnosed(fleet.lab.consumer1, "consumer1")["fail"] == ["topics"]
    finally:
        Fleet(fleet.lab, {**fleet.parts, "topics": {}}, fleet.security).settle()
        fleet.broker("start")


def test_a_wrong_name_of_the_broker_fails_its_own_check(fleet: Fleet, tmp_path: Path) -> None:
    hosts = {**fleet.parts["hosts"], "broker": "broker.invalid"}
    folder = changed(fleet, tmp_path, hosts=hosts)
    assert diagnosed(fleet.lab.consumer1, "consumer1", *given(folder))["fail"] == ["resolve"]


def test_a_wrong_clock_of_the_broker_and_its_end_fail_their_own_checks(fleet: Fleet) -> None:
    fleet.restart_broker(clock="+3d")
    assert diagnosed(fleet.lab.consumer1, "consumer1")["fail"] == ["clock"]
    fleet.broker("stop")
    try:
        assert diagnosed(fleet.lab.consumer1, "consumer1")["fail"] == ["connect"]
    finally:
        fleet.broker("start")


def changed(fleet: Fleet, tmp_path: Path, **parts: object) -> Path:
    """Return a copy of consumer1's settings and secrets with other parts in it."""
    folder = tmp_path / "config"
    shutil.copytree(fleet.lab.consumer1.config.parent, folder)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **parts}))
    return folder


def given(folder: Path) -> tuple[str, str]:
    return "--config", str(folder / "config.yaml")


@pytest.fixture(scope="module")
def misplaced(able: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:  # noqa: ARG001
    """An open fleet whose broker listens on its local network, not on the overlay."""
    with open_lab(tmp_path_factory.mktemp("misplaced")) as lab:
        fleet = Fleet.open_on(lab)
        own = yaml.safe_load(lab.broker.config.read_text())
        own["hosts"]["broker"] = lab.broker.lan_address
        own["security"] = {"allow_plaintext": True}
        lab.broker.config.write_text(yaml.safe_dump(own))
        with fleet.serving():
            lab.broker.run("topics", "create")
            yield fleet


def test_a_broker_on_the_wrong_interface_is_named_at_both_ends(misplaced: Fleet) -> None:
    lab = misplaced.lab
    assert diagnosed(lab.consumer1, "consumer1")["fail"] == ["connect"]
    assert diagnosed(lab.broker, "broker")["fail"] == ["overlay"]


def test_a_broker_that_sends_its_clients_elsewhere_is_named_by_doctor_and_roles(
    misplaced: Fleet,
) -> None:
    lab = misplaced.lab
    # Who asks on the overlay is answered, and sent to the local network.
    translation = (
        "table ip elsewhere { chain incoming { type nat hook prerouting priority dstnat;\n"
        f'iifname "{OVERLAY_INTERFACE}" tcp dport {PORT} dnat to {lab.broker.lan_address}\n}}\n}}\n'
    )
    lab.broker.tool("nft", "-f", "-", given=translation)
    assert diagnosed(lab.consumer1, "consumer1")["fail"] == ["advertised"]
    lab.consumer1.tool("ip", "link", "set", LAN_INTERFACE, "down")
    role = lab.consumer1.start("consumer1", "--connect-timeout", "3s")
    assert role.process.wait(30) == UNREACHABLE
    assert f"tells its clients to use {lab.broker.lan_address}:{PORT}" in role.said()

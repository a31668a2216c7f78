"""`doctor` and this machine's ZeroTier service: what is wrong there is one line, `zerotier`."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import zerotier_fake
from zerotier_fake import MEMBER_ID, NETWORK_ID, FakeZeroTier, waiting

from fleetpulse.domain.role import Role
from fleetpulse.roles.checks.verdict import Finding, Outcome
from fleetpulse.roles.doctor import doctor

TOKEN = "canary-token-of-zerotier-1"  # noqa: S105  that of the fake
# On no network of this machine, so that the way there begins with the VPN.
BROKER = "10.147.20.1"


@dataclass(frozen=True)
class Machine:
    """A machine with a service and a token file."""

    port: int
    token_file: Path
    output: Path

    def examined(self, **variables: object) -> dict[str, Finding]:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("FLEETPULSE__")}
        settings = {
            "hosts__broker": BROKER,
            "zerotier__port": self.port,
            "zerotier__token_file": self.token_file,
            "output_dir": self.output,
        }
        environ |= {f"FLEETPULSE__{k.upper()}": str(v) for k, v in (settings | variables).items()}
        found = doctor(Role.CONSUMER1, None, environ, lambda _one: None)
        assert not any(TOKEN in one.verdict.text for one in found)
        return {one.name: one for one in found}

    def fault(self, **variables: object) -> tuple[str, str]:
        """Return name and text of the one check that failed."""
        found = self.examined(**variables).values()
        ((name, text),) = [
            (one.name, one.verdict.text) for one in found if one.outcome is Outcome.FAIL
        ]
        return name, text


@pytest.fixture
def fake() -> Iterator[FakeZeroTier]:
    with zerotier_fake.running(TOKEN) as running:
        yield running


@pytest.fixture
def machine(fake: FakeZeroTier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.chdir(tmp_path)
    token_file = tmp_path / "authtoken.secret"
    token_file.write_text(TOKEN)
    token_file.chmod(0o600)
    return Machine(fake.port, token_file, tmp_path / "out")


def test_a_service_that_does_not_run(fake: FakeZeroTier, machine: Machine) -> None:
    fake.stop()
    name, text = machine.fault()
    assert name == "zerotier"
    assert text.startswith("no ZeroTier service runs on this machine")


def test_no_network(machine: Machine) -> None:
    name, text = machine.fault()
    assert name == "zerotier"
    assert "no network joined; join one with: fleetpulse network join" in text


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("ACCESS_DENIED", f"access denied; authorise member {MEMBER_ID}"),
        ("NOT_FOUND", "its controller knows no such network"),
        ("REQUESTING_CONFIGURATION", "its controller 8056c2e21c has not answered yet"),
    ],
)
def test_a_network_that_does_not_let_us_in(
    fake: FakeZeroTier, machine: Machine, status: str, reason: str
) -> None:
    fake.networks[NETWORK_ID] = waiting(status)
    name, text = machine.fault()
    assert name == "zerotier"
    assert f"network {NETWORK_ID}: {reason}" in text


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"type": "PUBLIC"}, "is public: whoever knows its ID is in"),
        ({"allowDefault": True}, "allowDefault=0"),
        ({"allowGlobal": True}, "allowGlobal=0"),
        ({"assignedAddresses": []}, "authorised, but without an address"),
    ],
)
def test_a_network_that_exposes_this_machine_or_gives_it_no_address(
    fake: FakeZeroTier, machine: Machine, changed: dict[str, object], reason: str
) -> None:
    fake.networks[NETWORK_ID] = zerotier_fake.network() | changed
    name, text = machine.fault()
    assert name == "zerotier"
    assert reason in text


def test_a_token_file_that_others_may_read(machine: Machine) -> None:
    machine.token_file.chmod(0o644)
    name, text = machine.fault()
    assert name == "zerotier"
    assert "its mode 0644" in text


def test_a_token_that_the_service_does_not_take(fake: FakeZeroTier, machine: Machine) -> None:
    fake.token = TOKEN[::-1]
    name, text = machine.fault()
    assert name == "zerotier"
    assert "does not take the token (401)" in text


def test_an_address_that_the_system_does_not_have_is_overlay(
    fake: FakeZeroTier, machine: Machine
) -> None:
    fake.networks[NETWORK_ID] = zerotier_fake.network()
    found = machine.examined()
    assert found["zerotier"].outcome is Outcome.PASS
    assert "8056c2e21c000001 as 10.147.20.190, private" in found["zerotier"].verdict.text
    assert machine.fault()[0] == "overlay"


def test_another_network_that_waits_is_a_warning(fake: FakeZeroTier, machine: Machine) -> None:
    other = f"{NETWORK_ID[:-1]}2"
    fake.networks = {NETWORK_ID: zerotier_fake.network(), other: waiting("ACCESS_DENIED", other)}
    found = machine.examined()["zerotier"]
    assert found.outcome is Outcome.WARN
    assert f"network {other}: access denied" in found.verdict.text


def test_all_on_one_machine_needs_no_network(fake: FakeZeroTier, machine: Machine) -> None:
    assert machine.examined(hosts__broker="127.0.0.1")["zerotier"].outcome is Outcome.PASS
    fake.stop()
    found = machine.examined(hosts__broker="127.0.0.1")["zerotier"]
    assert (found.outcome, found.verdict.text) == (
        Outcome.PASS,
        "not needed: all on this machine",
    )


def test_another_vpn_needs_no_zerotier(fake: FakeZeroTier, machine: Machine) -> None:
    fake.stop()
    found = machine.examined(hosts__broker="127.0.0.9", overlay__network="127.0.0.0/8")
    assert found["zerotier"].outcome is Outcome.PASS

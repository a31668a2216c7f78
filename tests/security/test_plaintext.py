"""What would cross the network unprotected is refused, or warned about at every start."""

import socket
import sys
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from installation import WRONG_USE, Installation

from fleetpulse.edges.kafka.address import free_port

UNREACHABLE = 69
ROLES = [
    ("producer", "--simulate", "--limit", "1"),
    ("consumer1",),
    ("monitor",),
    ("topics", "create"),
]


def own_address() -> str:
    """Return an address of this machine that other machines may reach."""
    found = [
        one.address
        for addresses in psutil.net_if_addrs().values()
        for one in addresses
        if one.family is socket.AF_INET and not one.address.startswith("127.")
    ]
    assert found, "this test wants a machine with a network"
    return found[0]


@pytest.fixture
def open_settings(installation: Installation, tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(f"broker: {{port: {free_port()}}}\noutput_dir: {tmp_path / 'output'}\n")
    assert installation.root != tmp_path
    return path


@pytest.mark.parametrize("command", ROLES, ids=lambda command: command[0])
def test_a_password_is_not_sent_over_an_unencrypted_connection(
    installation: Installation, tmp_path: Path, command: tuple[str, ...]
) -> None:
    part = {"security__tls": "false", "security__user": "producer"}
    folder = installation.folder("producer")
    settings = tmp_path / "config.yaml"
    # Nobody listens on the port: who went on would say that nothing answers.
    settings.write_text(
        f"broker: {{port: {free_port()}}}\n"
        f"security: {{user: producer, password_file: {folder / 'password'}}}\n"
    )
    done = installation.plain(*command, "--config", str(settings), **part)
    assert done.code == WRONG_USE
    assert "user producer would log in over an unencrypted connection" in done.error


@pytest.mark.parametrize("command", ROLES, ids=lambda command: command[0])
def test_an_unprotected_connection_leaves_neither_machine_nor_vpn(
    installation: Installation, open_settings: Path, command: tuple[str, ...]
) -> None:
    address = own_address()
    done = installation.plain(*command, "--config", str(open_settings), hosts__broker=address)
    assert done.code == WRONG_USE
    assert f"hosts.broker {address} is neither this machine nor on its VPN" in done.error


def test_an_open_broker_is_not_started_for_a_network_that_is_no_vpn(
    installation: Installation, open_settings: Path, tmp_path: Path
) -> None:
    command = ("broker", "start", "--data", str(tmp_path / "broker"))
    done = installation.plain(*command, "--config", str(open_settings), hosts__broker=own_address())
    assert done.code == WRONG_USE
    assert "is neither this machine nor on its VPN" in done.error
    assert not (tmp_path / "broker").exists()


@pytest.mark.parametrize(
    "variables",
    [{"hosts__broker": "127.0.0.1"}, {"overlay__network": "0.0.0.0/0"}],
    ids=["this machine", "the VPN"],
)
def test_on_this_machine_and_on_the_vpn_it_is_tried(
    installation: Installation, open_settings: Path, variables: dict[str, str]
) -> None:
    command = ("consumer1", "--connect-timeout", "100ms", "--config", str(open_settings))
    done = installation.plain(*command, **{"hosts__broker": own_address(), **variables})
    assert done.code == UNREACHABLE
    assert "warning" not in done.err


# The last one waits for ten seconds.
@pytest.mark.parametrize("command", ROLES[:-1], ids=lambda command: command[0])
def test_who_allows_it_is_warned_at_every_start(
    installation: Installation, open_settings: Path, command: tuple[str, ...]
) -> None:
    done = installation.plain(
        *(*command, "--connect-timeout", "100ms", "--config", str(open_settings)),
        hosts__broker=own_address(),
        security__allow_plaintext="true",
    )
    assert done.code == UNREACHABLE
    (warning,) = [line for line in done.err.splitlines() if "warning:" in line]
    assert "is neither this machine nor on its VPN" in warning
    assert "(security.allow_plaintext)" in warning

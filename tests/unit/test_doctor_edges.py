"""What `doctor` asks of this machine: its ports, its folders, and its way to a listener."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from ipaddress import ip_address
from pathlib import Path

import pytest

from fleetpulse.domain.errors import ServiceUnreachable, UsageError
from fleetpulse.edges.kafka.address import free_port
from fleetpulse.edges.kafka.probe import Greeting, greet
from fleetpulse.edges.kafka.tls import Tls
from fleetpulse.edges.link import (
    Reach,
    addresses_of,
    attempts,
    link_to,
    loses_large_packets,
    reach,
)
from fleetpulse.edges.place import existing, prove_writable, room_at
from fleetpulse.edges.ports import open_ports

HOST = "127.0.0.1"
WRITE = """
import os, sys
from pathlib import Path
from fleetpulse.domain.errors import UsageError
from fleetpulse.edges.place import prove_writable
os.geteuid() or os.setresuid(65534, 65534, 65534)
try:
    prove_writable(Path(sys.argv[1]))
except UsageError as err:
    print(err)
"""


def test_an_open_port_is_seen_with_its_address_and_process() -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        (found,) = [one for one in open_ports() if one.port == port]
    assert (found.address, found.pid, found.place) == (
        ip_address(HOST),
        os.getpid(),
        f"{HOST}:{port}",
    )
    assert "pytest" in " ".join(found.command)


def test_a_listener_on_every_ipv6_address_is_seen_as_such() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6) as listener:
        port = listener.getsockname()[1]
        (found,) = [one for one in open_ports() if one.port == port]
    assert found.address.is_unspecified
    assert found.place == f"[::]:{port}"


def test_a_folder_that_will_be_made_counts_as_the_one_above_it(tmp_path: Path) -> None:
    assert existing(tmp_path / "a" / "b") == tmp_path
    assert room_at(tmp_path / "a" / "b").total_bytes == room_at(tmp_path).total_bytes > 0
    prove_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file: no folder"):
        prove_writable(tmp_path / "file" / "out")


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    own = tmp_path / "out"
    own.mkdir()
    own.chmod(0o555)
    said = subprocess.run(
        [sys.executable, "-c", WRITE, str(own)], capture_output=True, text=True, check=True, cwd="/"
    ).stdout
    assert said.startswith(f"{own}: this user may not write there")


def test_reaching_tells_acceptance_from_refusal() -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        assert reach(HOST, port, 5) is Reach.ACCEPTED
        assert [one.reach for one in attempts(HOST, port, 3, 0.0)] == [Reach.ACCEPTED] * 3
    assert reach(HOST, free_port(), 5) is Reach.REFUSED


def test_an_address_is_its_own_and_an_unknown_name_is_explained() -> None:
    assert addresses_of("10.1.2.3") == ("10.1.2.3",)
    with pytest.raises(ServiceUnreachable, match=r"no address is known for 'a\.\.b'"):
        addresses_of("a..b")


def test_the_way_on_one_machine_is_local() -> None:
    with socket.create_server((HOST, 0)) as listener:
        link = link_to(HOST, listener.getsockname()[1], 5)
    assert link.is_local
    assert link.mtu_bytes


def test_what_a_listener_takes_is_not_lost_and_what_it_cannot_take_is() -> None:
    with socket.create_server((HOST, 0)) as roomy, socket.socket() as narrow:
        assert not loses_large_packets(HOST, roomy.getsockname()[1], b"x" * 100, 5)
        # Its system takes the beginning, and nothing after it: as if large packets got lost.
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        narrow.bind((HOST, 0))
        narrow.listen()
        assert loses_large_packets(HOST, narrow.getsockname()[1], b"x" * 100, 0.5)


@pytest.mark.parametrize("tls", [None, Tls()])
def test_a_greeting_that_nobody_answers_is_silence(tls: Tls | None) -> None:
    with socket.create_server((HOST, 0)) as listener:
        assert greet(HOST, listener.getsockname()[1], tls, 0.3) is Greeting.SILENT


@pytest.mark.parametrize("tls", [None, Tls()])
@pytest.mark.parametrize(
    "answer", [b"", b"\x15\x03\x03\x00\x02\x02\x50", b"HTTP/1.1 400 Bad\r\n\r\n"]
)
def test_a_greeting_that_something_else_answers_is_foreign(tls: Tls | None, answer: bytes) -> None:
    with socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            near, _ = listener.accept()
            # Who asked may be gone before it has heard all.
            with near, contextlib.suppress(OSError):
                near.recv(1)
                near.sendall(answer)
                near.shutdown(socket.SHUT_WR)
                while near.recv(1 << 16):
                    pass

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        assert greet(HOST, listener.getsockname()[1], tls, 10) is Greeting.FOREIGN
        serving.join(10)

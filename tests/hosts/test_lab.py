"""The lab itself: hosts reach each other and nobody else, each fault does what its name says."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Thread

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from faults import (
    Fault,
    black_hole,
    blocked,
    cut_off,
    deaf,
    flapping,
    link_down,
    lossy,
    mute,
    narrow,
    packets,
    resetting,
    silent_ends,
    small_mtu,
)
from lab import (
    HOSTS,
    OVERLAY_INTERFACE,
    Host,
    Lab,
    awaited,
    clock_environment,
    open_lab,
    remove_stale,
    run_tool,
)
from relay import Relay, relayed

PORT = 7777
Cut = Callable[[Host], AbstractContextManager[Fault]]
LARGE = b"x" * 20_000
ESTABLISHED = "01"  # the state in /proc/net/tcp


@contextmanager
def echoing(host: Host, address: str) -> Iterator[None]:
    """Send back what comes to a port of a host."""
    with host.inside():
        server = socket.create_server((address, PORT))

    def answer(connection: socket.socket) -> None:
        try:
            with connection:
                while data := connection.recv(65_536):
                    connection.sendall(data)
        except OSError:
            return

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            Thread(target=answer, args=(connection,), daemon=True).start()

    thread = Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


def echo(connection: socket.socket, data: bytes = b"hello", timeout_s: float = 5.0) -> bool:
    """Tell whether all of it comes back in time; a reset raises."""
    connection.settimeout(timeout_s)
    try:
        connection.sendall(data)
        left = len(data)
        while left:
            received = len(connection.recv(65_536))
            if not received:
                return False
            left -= received
    except TimeoutError:
        return False
    return True


@pytest.fixture
def wire(lab: Lab) -> Iterator[socket.socket]:
    """A connection from producer to broker, which answers."""
    with (
        echoing(lab.broker, lab.broker.address),
        lab.producer.connect(lab.broker.address, PORT) as connection,
    ):
        assert echo(connection)
        yield connection


def is_answered(lab: Lab, data: bytes = b"hello", timeout_s: float = 5.0) -> bool:
    with lab.producer.connect(lab.broker.address, PORT) as connection:
        return echo(connection, data, timeout_s)


def test_hosts_reach_each_other_on_both_networks_and_the_machine_reaches_none(lab: Lab) -> None:
    with echoing(lab.broker, "0.0.0.0"):  # noqa: S104  inside the lab
        for host in lab.hosts.values():
            assert host.reaches(lab.broker.address, PORT)
            assert host.reaches(lab.broker.lan_address, PORT)
    own = psutil.net_if_addrs()
    assert not {OVERLAY_INTERFACE, lab.broker.port} & own.keys()
    addresses = {one.address for found in own.values() for one in found}
    assert not addresses & {host.address for host in lab.hosts.values()}


def test_loopback_belongs_to_one_host(lab: Lab) -> None:
    with echoing(lab.broker, "127.0.0.1"):
        assert lab.broker.reaches("127.0.0.1", PORT)
        assert not lab.producer.reaches("127.0.0.1", PORT)
        assert not lab.producer.reaches(lab.broker.address, PORT)
        assert lab.broker.listening() == {f"127.0.0.1:{PORT}"}
        assert lab.producer.listening() == set()


def test_a_command_on_a_host_is_there_and_stops_by_its_own_id(lab: Lab) -> None:
    script = (
        "import psutil, signal, sys; print(sorted(psutil.net_if_addrs()), flush=True);"
        "print('ready', file=sys.stderr, flush=True); signal.pause()"
    )
    role = lab.consumer1.start_command(sys.executable, "-c", script, name="waiting")
    role.await_said("ready")
    assert role.out.read_text() == "['lan0', 'lo', 'ztfleetlab']\n"
    assert role.stop() == -signal.SIGTERM
    assert not role.is_running()


@pytest.mark.parametrize("fault", [cut_off, deaf, mute])
@pytest.mark.parametrize("name", ["producer", "broker"])
def test_a_host_that_is_cut_off_gets_no_answer_until_it_heals(
    lab: Lab, wire: socket.socket, fault: Cut, name: str
) -> None:
    with fault(lab.hosts[name]) as found:
        assert not echo(wire, timeout_s=0.3)
        assert not lab.producer.reaches(lab.broker.address, PORT, 0.3)
        assert found.hits() > 0
    assert is_answered(lab)


def test_one_way_partitions_take_one_direction_alone(lab: Lab) -> None:
    with (
        echoing(lab.broker, lab.broker.address),
        packets(lab.broker, f"tcp dport {PORT}", "accept", outgoing=False) as arrived,
    ):
        with mute(lab.producer) as found:
            assert not lab.producer.reaches(lab.broker.address, PORT, 0.3)
            assert found.hits() > 0
        assert arrived.hits() == 0
        with deaf(lab.producer):
            assert not lab.producer.reaches(lab.broker.address, PORT, 0.3)
        assert arrived.hits() > 0


def test_a_lossy_link_loses_its_share(lab: Lab) -> None:
    sent = 2000
    with lab.broker.inside():
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with lab.producer.inside():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver, sender, lossy(lab.broker, 30) as found:
        receiver.bind((lab.broker.address, PORT))
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        receiver.setblocking(False)  # noqa: FBT003  the socket's own interface
        received = 0
        for _ in range(sent):
            sender.sendto(b"x", (lab.broker.address, PORT))
            try:
                received += bool(receiver.recv(1))
            except BlockingIOError:
                continue
        lost = sent - received
        # Five standard deviations of a fair 30 %.
        assert 500 < lost < 700
        assert found.hits() >= lost


def test_resets_end_what_is_open_and_refuse_what_is_new(lab: Lab, wire: socket.socket) -> None:
    with resetting(lab.broker, PORT) as found:
        with pytest.raises(ConnectionError):
            echo(wire)
        with pytest.raises(ConnectionRefusedError):
            lab.producer.connect(lab.broker.address, PORT)
        assert found.hits() >= 2
    assert is_answered(lab)


def test_a_blocked_port_answers_nothing_and_others_answer(lab: Lab, wire: socket.socket) -> None:
    with blocked(lab.broker, PORT) as found:
        with pytest.raises(TimeoutError):
            lab.producer.connect(lab.broker.address, PORT, 0.3)
        with pytest.raises(ConnectionRefusedError):
            lab.producer.connect(lab.broker.address, PORT + 1, 0.3)
        assert found.hits() > 0
    awaited(lambda: echo(wire), "the open connection goes on")


def test_an_end_that_nobody_hears_of_leaves_the_other_side_open(
    lab: Lab, wire: socket.socket
) -> None:
    with silent_ends(lab.producer) as found:
        with lab.producer.connect(lab.broker.address, PORT) as other:
            assert echo(other)
            _, port = other.getsockname()
        awaited(lambda: found.hits() > 0, "the end was dropped")
        assert echo(wire)
        known = [line.split() for line in lab.broker.tool("cat", "/proc/net/tcp").splitlines()]
        states = [state for _, _, remote, state, *_ in known if remote.endswith(f":{port:04X}")]
        assert states == [ESTABLISHED]


def test_a_black_hole_takes_large_packets_alone(lab: Lab) -> None:
    with echoing(lab.broker, lab.broker.address):
        with black_hole(lab.broker, 1000) as found:
            assert is_answered(lab)
            assert found.hits() == 0
            assert not is_answered(lab, LARGE, 0.5)
            assert found.hits() > 0
        assert is_answered(lab, LARGE)


def test_a_small_mtu_makes_small_segments(lab: Lab) -> None:
    with (
        echoing(lab.broker, lab.broker.address),
        small_mtu(lab.producer, 600),
        black_hole(lab.producer, 600 + 20_000) as found,
        lab.producer.connect(lab.broker.address, PORT) as connection,
    ):
        assert echo(connection, LARGE)
        # 40 bytes of headers, 12 of timestamps.
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= 560
        assert found.hits() == 0


def test_a_narrow_link_makes_packets_wait(lab: Lab, wire: socket.socket) -> None:
    with narrow(lab.producer, 1000) as found:
        assert echo(wire, LARGE)
        assert found.hits() > 0


def test_what_comes_late_comes_whole(lab: Lab, wire: socket.socket) -> None:
    with relayed(Relay(lab.broker, PORT, delay_s=0.2)) as found:
        with pytest.raises(ConnectionError):
            echo(wire)
        start_s = time.monotonic()
        assert is_answered(lab, LARGE)
        assert time.monotonic() - start_s >= 0.4
        assert found.hits() >= 2
    start_s = time.monotonic()
    assert is_answered(lab, LARGE)
    assert time.monotonic() - start_s < 0.4


def test_a_half_closed_connection_says_no_more_and_still_listens(lab: Lab) -> None:
    with (
        echoing(lab.broker, lab.broker.address),
        relayed(Relay(lab.broker, PORT, half_close_s=0.2)) as found,
        lab.producer.connect(lab.broker.address, PORT) as connection,
    ):
        assert echo(connection)
        assert found.hits() == 0
        assert connection.recv(1) == b""
        assert found.hits() == 1
        for _ in range(10):
            connection.sendall(LARGE)


def test_a_link_that_is_down_comes_back_with_its_address(lab: Lab, wire: socket.socket) -> None:
    with link_down(lab.producer), pytest.raises(OSError, match=r"unreachable|timed out"):
        lab.producer.connect(lab.broker.address, PORT, 0.3)
    awaited(lambda: lab.producer.reaches(lab.broker.address, PORT, 0.2), "the link is back")
    assert echo(wire)
    with flapping(lab.producer, 0.05, 0.05) as found:
        awaited(lambda: found.hits() >= 3, "the link went down three times")
    awaited(lambda: lab.producer.reaches(lab.broker.address, PORT, 0.2), "the link is back")


def test_a_skewed_clock_is_that_of_one_process(lab: Lab) -> None:
    script = "import time; print(time.time(), time.monotonic())"
    command = (sys.executable, "-c", script)
    role = lab.producer.start_command(*command, name="clock", extra=clock_environment("+3d"))
    role.finish()
    wall_s, monotonic_s = map(float, role.out.read_text().split())
    assert 3 * 86_400 - 60 < wall_s - time.time() <= 3 * 86_400
    assert abs(monotonic_s - time.monotonic()) < 60


ORPHAN = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from lab import open_lab
with open_lab(Path(sys.argv[2])) as lab:
    role = lab.broker.start_command("sleep", "1000", name="sleep")
    print(role.process.pid, lab.switch, flush=True)
    time.sleep(1000)
"""


def test_what_a_killed_run_left_is_removed_and_a_living_one_is_let_be(
    lab: Lab, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", ORPHAN, str(Path(__file__).parent), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid, switch = run.stdout.readline().split()
        assert remove_stale() == []
        assert switch in run_tool("ip", "netns", "list")
        run.kill()
        run.wait()
    assert len(remove_stale()) == len(HOSTS) + 1
    assert switch not in run_tool("ip", "netns", "list")
    awaited(lambda: not is_alive(int(pid)), "what ran in it has ended")
    assert lab.producer.namespace in run_tool("ip", "netns", "list")


def test_a_lab_leaves_nothing_though_its_test_fails(able: None, tmp_path: Path) -> None:  # noqa: ARG001
    before = run_tool("ip", "netns", "list")
    roles = []

    def fail() -> None:
        with open_lab(tmp_path) as made:
            roles.append(made.broker.start_command("sleep", "1000", name="sleep"))
            # As a broker does: it leaves the command that started it.
            orphaning = ("sh", "-c", "sleep 1000 & echo $!")
            roles.append(made.broker.start_command(*orphaning, name="orphan"))
            roles[-1].finish()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert run_tool("ip", "netns", "list") == before
    assert not roles[0].is_running()
    orphan = int(roles[1].out.read_text())
    awaited(lambda: not is_alive(orphan), "what outlived its parent has ended")


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

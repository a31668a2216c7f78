"""Machines of one overlay network, made of network namespaces of this machine.

Each host hangs on a switch, a namespace of its own, by two interfaces: one of the overlay, named
as ZeroTier names its own, and one of a local network. Among the interfaces of the machine itself
nothing appears. Names of namespaces tell whose they are, so that a later run removes what a killed
one left.
"""

import ctypes
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from fleetpulse.roles.setup import ready_java

ROOT = Path(__file__).parents[2]
WAIT_S = 30.0
STOP_S = 20.0

# The last number of each host's addresses.
HOSTS = {"broker": 1, "producer": 2, "consumer1": 3, "consumer2": 4, "hostile": 66}
OVERLAY = ipaddress.ip_network("10.147.17.0/24")
LAN = ipaddress.ip_network("192.168.44.0/24")
OVERLAY_INTERFACE = "ztfleetlab"
LAN_INTERFACE = "lan0"
OVERLAY_MTU_BYTES = 2800  # ZeroTier's own
LAN_MTU_BYTES = 1500

EXECUTE = ("ip", "netns", "exec")

_PREFIX = "fleetpulse"
_CLONE_NEWNET = 0x40000000
_LISTEN = "0A"  # the state in /proc/net/tcp
_FOLDERS_OF_FAKETIME = ("/usr/lib", "/usr/local/lib")
# What a role gets of the environment of the tests; settings come from its host's file alone.
_PASSED = ("HOME", "PATH", "LANG", "JAVA_HOME", "XDG_CACHE_HOME", "FLEETPULSE_CACHE")

_libc = ctypes.CDLL(None, use_errno=True)
_labs = count(1)


class LabError(Exception):
    """A command that builds or changes the lab failed."""


def run_tool(*command: str, given: str | None = None) -> str:
    """Run a system tool and return what it printed."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def awaited(condition: Callable[[], object], why: str, within_s: float = WAIT_S) -> float:
    """Wait until a condition holds and return the seconds that it took."""
    started_s = time.monotonic()
    while not condition():
        assert time.monotonic() - started_s < within_s, f"not within {within_s:g} s: {why}"
        time.sleep(0.02)
    return time.monotonic() - started_s


@dataclass
class Role:
    """A process on a host; what it prints goes to files in the host's folder."""

    name: str
    process: "subprocess.Popen[bytes]"
    out: Path
    log: Path

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def await_said(self, text: str, within_s: float = WAIT_S) -> None:
        self._await(lambda: text in self.said(), f"said {text!r}", within_s)

    def await_printed(self, within_s: float = WAIT_S) -> None:
        self._await(lambda: self.out.stat().st_size > 0, "printed something", within_s)

    def _await(self, condition: Callable[[], bool], what: str, within_s: float) -> None:
        def holds() -> bool:
            is_running = self.is_running()
            if condition():
                return True
            assert is_running, f"{self.name} ended:\n{self.said()}"
            return False

        awaited(holds, f"{self.name} {what}", within_s)

    def is_running(self) -> bool:
        return self.process.poll() is None

    def finish(self, within_s: float = WAIT_S) -> dict[str, Any]:
        """Wait for a good end and return the JSON object that it printed last, if any."""
        code = self.process.wait(within_s)
        assert code == 0, f"{self.name} ended with {code}:\n{self.said()}"
        lines = self.out.read_bytes().splitlines()
        return dict(json.loads(lines[-1])) if lines and lines[-1].startswith(b"{") else {}

    def stop(self) -> int:
        """End the process, in order where it hears, and return its exit code."""
        if self.is_running():
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait(STOP_S)


@dataclass
class Host:
    """One machine of the lab, with a folder of its own for settings and outputs."""

    name: str
    namespace: str
    port: str  # its interface's other end, on the switch
    address: str
    lan_address: str
    folder: Path
    roles: list[Role] = field(default_factory=list)

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def config(self) -> Path:
        """Return its settings file, where its commands look for one."""
        return self.folder / "config" / "config.yaml"

    def tool(self, *command: str, given: str | None = None) -> str:
        return run_tool(*EXECUTE, self.namespace, *command, given=given)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Let this thread, and the sockets and threads that it makes, be on the host."""
        with (
            Path("/proc/thread-self/ns/net").open("rb") as own,
            Path("/run/netns", self.namespace).open("rb") as there,
        ):
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(own.fileno())

    def connect(self, address: str, port: int, timeout_s: float = 5.0) -> socket.socket:
        with self.inside():
            return socket.create_connection((address, port), timeout_s)

    def reaches(self, address: str, port: int, timeout_s: float = 5.0) -> bool:
        try:
            self.connect(address, port, timeout_s).close()
        except OSError:
            return False
        return True

    def listening(self) -> set[str]:
        """Return `address:port` of all that listens here; an IPv6 address as /proc writes it."""
        found = set()
        with self.inside():
            for table in ("tcp", "tcp6"):
                for line in Path("/proc/thread-self/net", table).read_text().splitlines()[1:]:
                    _, local, _, state, *_ = line.split()
                    if state == _LISTEN:
                        address, port = local.split(":")
                        found.add(f"{_readable(address)}:{int(port, 16)}")
        return found

    def start(self, *arguments: str, clock: str | None = None) -> Role:
        """Start a command of ours here; `clock` is that of its Java processes, such as `+3d`."""
        extra = {} if clock is None else {"JAVA_HOME": str(self._java_with(clock))}
        command = (sys.executable, str(ROOT / "main.py"), *arguments)
        return self.start_command(*command, name=arguments[0], extra=extra)

    def start_command(
        self, *command: str, name: str, extra: Mapping[str, str] | None = None
    ) -> Role:
        environment = {key: os.environ[key] for key in _PASSED if key in os.environ}
        # The tree under test, wherever it is installed from.
        environment["PYTHONPATH"] = str(ROOT / "src")
        environment["TMPDIR"] = str(self.folder)
        environment |= extra or {}
        number = len(self.roles)
        out, log = (self.folder / f"{number:02d}-{name}.{kind}" for kind in ("out", "log"))
        with out.open("wb") as out_file, log.open("wb") as log_file:
            process = subprocess.Popen(
                [*EXECUTE, self.namespace, *command],
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=log_file,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
            )
        role = Role(f"{name} on {self.name}", process, out, log)
        self.roles.append(role)
        return role

    def _java_with(self, clock: str) -> Path:
        """Return a Java whose clock is wrong.

        Our own processes keep theirs: libfaketime does not know all the ways in which their Kafka
        client waits for an instant, so they would wait for days, or not at all.
        """
        home = self.folder / f"java{clock}"
        java = home / "bin" / "java"
        if not java.exists():
            java.parent.mkdir(parents=True)
            real = ready_java(os.environ)
            changed = " ".join(f"{key}={value}" for key, value in clock_environment(clock).items())
            java.write_text(f'#!/bin/sh\nexec env {changed} "{real.executable}" "$@"\n')
            # With it the folder counts as a Java of its own, not as a way to the real one.
            shutil.copy(real.home / "release", home)
            java.chmod(0o755)
        return home

    def run(
        self, *arguments: str, clock: str | None = None, within_s: float = 120.0
    ) -> dict[str, Any]:
        """Run a command of ours to its good end and return its result."""
        return self.start(*arguments, clock=clock).finish(within_s)


@dataclass
class Lab:
    """The hosts by name."""

    hosts: Mapping[str, Host]
    switch: str

    def __getattr__(self, name: str) -> Host:
        try:
            return self.hosts[name]
        except KeyError:
            raise AttributeError(name) from None


@contextmanager
def open_lab(folder: Path) -> Iterator[Lab]:
    """Make the hosts, with folders below `folder`, and leave nothing of them or on them behind."""
    remove_stale()
    prefix = f"{_PREFIX}-{os.getpid()}-{_start_of(os.getpid())}-{next(_labs)}"
    with ExitStack() as made:
        made.callback(_remove, lambda name: name.startswith(f"{prefix}-"))
        switch = f"{prefix}-switch"
        _make_switch(switch)
        hosts = {
            name: _make_host(f"{prefix}-{name}", name, number, switch, folder / name)
            for name, number in HOSTS.items()
        }
        for host in hosts.values():
            made.callback(_stop_all, host.roles)
        yield Lab(hosts, switch)


def remove_stale() -> list[str]:
    """Remove the namespaces of runs that have ended, with what runs in them; return their names."""

    def is_stale(name: str) -> bool:
        parts = name.split("-")
        if parts[0] != _PREFIX or len(parts) != 5 or not parts[1].isdigit():
            return False
        return _start_of(int(parts[1])) != parts[2]

    return _remove(is_stale)


def clock_environment(clock: str) -> dict[str, str]:
    """Return the variables that give a process another clock."""
    return {
        "LD_PRELOAD": str(faketime_library()),
        "FAKETIME": clock,
        # Waiting is none of a wrong clock's business: monotonic time goes on as it is.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    }


def faketime_library() -> Path:
    """Return the library that changes the clock of programs with several threads."""
    for folder in _FOLDERS_OF_FAKETIME:
        for path in sorted(Path(folder).glob("**/faketime/libfaketimeMT.so.1")):
            return path
    raise LabError("libfaketime is not there: install the package faketime")


def _make_switch(namespace: str) -> None:
    run_tool("ip", "netns", "add", namespace)
    for bridge in ("overlay", "lan"):
        run_tool("ip", "-n", namespace, "link", "add", bridge, "type", "bridge")
        run_tool("ip", "-n", namespace, "link", "set", bridge, "up")


def _make_host(namespace: str, name: str, number: int, switch: str, folder: Path) -> Host:
    folder.mkdir(parents=True)
    run_tool("ip", "netns", "add", namespace)
    run_tool("ip", "-n", namespace, "link", "set", "lo", "up")
    host = Host(name, namespace, f"o-{name}", str(OVERLAY[number]), str(LAN[number]), folder)
    for port, bridge, interface, address, mtu_bytes in (
        (host.port, "overlay", OVERLAY_INTERFACE, f"{host.address}/24", OVERLAY_MTU_BYTES),
        (f"l-{name}", "lan", LAN_INTERFACE, f"{host.lan_address}/24", LAN_MTU_BYTES),
    ):
        peer = ("peer", "name", interface, "mtu", str(mtu_bytes), "netns", namespace)
        mtu = ("mtu", str(mtu_bytes))
        run_tool("ip", "-n", switch, "link", "add", port, *mtu, "type", "veth", *peer)
        run_tool("ip", "-n", switch, "link", "set", port, "master", bridge, "up")
        run_tool("ip", "-n", namespace, "addr", "add", address, "dev", interface)
        run_tool("ip", "-n", namespace, "link", "set", interface, "up")
    return host


def _stop_all(roles: Sequence[Role]) -> None:
    for role in roles:
        if role.is_running():
            role.process.terminate()
    for role in roles:
        role.stop()


def _remove(is_ours: Callable[[str], bool]) -> list[str]:
    listed = run_tool("ip", "netns", "list").splitlines()
    names = [name for name in (line.split()[0] for line in listed if line) if is_ours(name)]
    for name in names:
        # A broker outlives the command that started it, and roles outlive killed tests.
        for pid in map(int, run_tool("ip", "netns", "pids", name).split()):
            if pid != os.getpid():
                _kill(pid)
    for name in names:
        run_tool("ip", "netns", "del", name)
    return names


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _start_of(pid: int) -> str:
    """Return when a process started, in ticks since the machine did; empty where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # Fields are counted behind the name, which may hold blanks and brackets.
    return stat.rpartition(")")[2].split()[19]


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _readable(address: str) -> str:
    if len(address) != 8:
        # Java listens on IPv4 through IPv6 sockets.
        if address.startswith("0000000000000000FFFF0000"):
            return _readable(address[24:])
        return address
    return str(ipaddress.ip_address(bytes.fromhex(address)[::-1]))

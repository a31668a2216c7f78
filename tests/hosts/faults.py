"""What goes wrong between machines, done to a host of the lab for as long as a context lasts.

Each fault counts what it did (`hits`), so a test can see that it happened. Packets are dropped,
refused and counted by nftables, in a table of the fault's own: faults add up and heal one by one.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from threading import Event, Thread

from lab import OVERLAY_INTERFACE, OVERLAY_MTU_BYTES, Host, run_tool

_tables = count(1)


@dataclass(frozen=True)
class Fault:
    """A table of nftables on a host."""

    host: Host
    table: str

    def hits(self) -> int:
        """Return the packets that it took so far."""
        listed = self.host.tool("nft", "-j", "list", "counter", "inet", self.table, "hits")
        entries = json.loads(listed)["nftables"]
        return sum(int(one["counter"]["packets"]) for one in entries if "counter" in one)


@contextmanager
def packets(
    host: Host, which: str, verdict: str, *, incoming: bool = True, outgoing: bool = True
) -> Iterator[Fault]:
    """Give a verdict of nftables on matching packets of the host's overlay interface."""
    fault = Fault(host, f"fault{next(_tables)}")
    chains = [
        f"chain {hook} {{ type filter hook {hook} priority -10; policy accept; "
        f'{side} "{OVERLAY_INTERFACE}" {which} counter name hits {verdict}; }}'
        for hook, side, is_wanted in (
            ("input", "iifname", incoming),
            ("output", "oifname", outgoing),
        )
        if is_wanted
    ]
    script = f"table inet {fault.table} {{ counter hits {{ }}\n" + "\n".join(chains) + "\n}\n"
    host.tool("nft", "-f", "-", given=script)
    try:
        yield fault
    finally:
        host.tool("nft", "delete", "table", "inet", fault.table)


@contextmanager
def cut_off(host: Host) -> Iterator[Fault]:
    """Let nothing through, in neither direction."""
    with packets(host, "", "drop") as fault:
        yield fault


@contextmanager
def deaf(host: Host) -> Iterator[Fault]:
    """Let nothing in; what the host sends arrives."""
    with packets(host, "", "drop", outgoing=False) as fault:
        yield fault


@contextmanager
def mute(host: Host) -> Iterator[Fault]:
    """Let nothing out; what others send arrives."""
    with packets(host, "", "drop", incoming=False) as fault:
        yield fault


@contextmanager
def lossy(host: Host, loss_pct: int) -> Iterator[Fault]:
    """Lose this share of the packets in each direction."""
    with packets(host, f"numgen random mod 100 < {loss_pct}", "drop") as fault:
        yield fault


@contextmanager
def resetting(host: Host, port: int) -> Iterator[Fault]:
    """Answer every packet to this port of the host with a reset."""
    with packets(host, f"tcp dport {port}", "reject with tcp reset", outgoing=False) as fault:
        yield fault


@contextmanager
def blocked(host: Host, port: int) -> Iterator[Fault]:
    """Drop what comes to this port of the host, as firewalls do."""
    with packets(host, f"tcp dport {port}", "drop", outgoing=False) as fault:
        yield fault


@contextmanager
def silent_ends(host: Host) -> Iterator[Fault]:
    """Let nobody hear of the end of a connection: the other side stays half open."""
    with packets(host, "tcp flags & (fin | rst) != 0", "drop") as fault:
        yield fault


@contextmanager
def black_hole(host: Host, size_bytes: int) -> Iterator[Fault]:
    """Drop larger packets and tell nobody, as a path with a small MTU and no ICMP does."""
    with packets(host, f"meta length > {size_bytes}", "drop") as fault:
        yield fault


@contextmanager
def small_mtu(host: Host, size_bytes: int) -> Iterator[None]:
    """Give the host's interface, and so its connections, a smaller MTU."""
    _set_mtu(host, size_bytes)
    try:
        yield
    finally:
        _set_mtu(host, OVERLAY_MTU_BYTES)


@dataclass(frozen=True)
class Shaped:
    """A queue that lets packets out at a rate."""

    host: Host

    def hits(self) -> int:
        """Return how often a packet had to wait or was dropped."""
        shown = run_tool("tc", "-n", self.host.namespace, "-s", "-j", "qdisc", "show")
        return sum(
            int(one["overlimits"]) + int(one["drops"])
            for one in json.loads(shown)
            if one["kind"] == "tbf"
        )


@contextmanager
def narrow(host: Host, rate_kbit: int) -> Iterator[Shaped]:
    """Let the host send no faster than this."""
    device = ("dev", OVERLAY_INTERFACE, "root")
    shape = ("tbf", "rate", f"{rate_kbit}kbit", "burst", "8kb", "latency", "200ms")
    run_tool("tc", "-n", host.namespace, "qdisc", "add", *device, *shape)
    try:
        yield Shaped(host)
    finally:
        run_tool("tc", "-n", host.namespace, "qdisc", "del", *device)


@dataclass
class Flapping:
    """A link that goes down and up."""

    downs: int = 0

    def hits(self) -> int:
        return self.downs


@contextmanager
def flapping(host: Host, down_s: float, up_s: float) -> Iterator[Flapping]:
    """Take the host's interface down and up again and again; it is up at the end."""
    found, end = Flapping(), Event()

    def flap() -> None:
        while not end.is_set():
            _set_link(host, "down")
            found.downs += 1
            end.wait(down_s)
            _set_link(host, "up")
            end.wait(up_s)

    thread = Thread(target=flap)
    thread.start()
    try:
        yield found
    finally:
        end.set()
        thread.join()


@contextmanager
def link_down(host: Host) -> Iterator[None]:
    """Take the host's interface down; routes over it are gone meanwhile."""
    _set_link(host, "down")
    try:
        yield
    finally:
        _set_link(host, "up")


def _set_link(host: Host, state: str) -> None:
    run_tool("ip", "-n", host.namespace, "link", "set", OVERLAY_INTERFACE, state)


def _set_mtu(host: Host, size_bytes: int) -> None:
    run_tool("ip", "-n", host.namespace, "link", "set", OVERLAY_INTERFACE, "mtu", str(size_bytes))

"""The way to the broker: ZeroTier, addresses, names, connections, and the size of packets."""

from collections.abc import Container, Sequence
from typing import Final

from fleetpulse.domain.errors import AccessDenied, FleetpulseError, ServiceUnreachable
from fleetpulse.domain.role import Role
from fleetpulse.edges.kafka.probe import PLAIN_OPENING, TLS_OPENING, Greeting, greet
from fleetpulse.edges.link import (
    ATTEMPT_S,
    Attempt,
    Link,
    Reach,
    addresses_of,
    attempts,
    is_up,
    link_to,
    loses_large_packets,
    small_segments,
)
from fleetpulse.edges.overlay import Address, LocalAddress, is_overlay, overlay_networks
from fleetpulse.edges.ports import open_ports
from fleetpulse.edges.zerotier.answer import Membership
from fleetpulse.roles.access import tls_of
from fleetpulse.roles.checks.case import Case, address_of, is_loopback, own_addresses
from fleetpulse.roles.checks.ground import locate
from fleetpulse.roles.checks.verdict import Verdict, failed, passed, warned
from fleetpulse.roles.network import dangers, hindrance, zerotier_of

_ATTEMPTS: Final = 12
_EVERY_S: Final = 0.1
_REPEATED_S: Final = 0.9
_MANY: Final = 0.25
_GREETING_S: Final = 1.1
_LARGE_S: Final = 1.2
# IPv6 asks it of every link (RFC 8200), and every VPN of use carries it.
_LEAST_MTU_BYTES: Final = 1280


def zerotier(case: Case) -> Verdict:
    """Ask this machine's ZeroTier service for its networks; other VPNs need none."""
    service = zerotier_of(case.settings)
    try:
        node, networks = service.node(), service.networks()
    except AccessDenied as err:
        return _unasked(case, err) or failed(str(err))
    except ServiceUnreachable as err:
        return _unneeded(case) or _unasked(case, err) or failed(str(err))
    return judge_networks(networks, node.member_id, is_needed=not case.is_at_home)


def judge_networks(networks: Sequence[Membership], member_id: str, *, is_needed: bool) -> Verdict:
    """Return what is to be said of the networks that a machine joined."""
    if found := [danger for one in networks for danger in dangers(one)]:
        return failed("; ".join(found))
    names = {one.network_id: hindrance(one, member_id) for one in networks}
    reasons = [f"network {name}: {why}" for name, why in names.items() if why is not None]
    usable = [one for one in networks if names[one.network_id] is None]
    if usable:
        shown = ", ".join(
            f"{one.network_id} as {' and '.join(str(ip.ip) for ip in one.addresses)}"
            for one in usable
        )
        text = f"joined and authorised: {shown}, private"
        return warned("; ".join([text, *reasons])) if reasons else passed(text)
    if not is_needed:
        return passed("not needed: all on this machine")
    if reasons:
        return failed("; ".join(reasons))
    return failed("no network joined; join one with: fleetpulse network join NETWORK_ID")


def _unneeded(case: Case) -> Verdict | None:
    """Return the verdict of a machine that may do without ZeroTier; None: it may not."""
    if case.is_at_home:
        return passed("not needed: all on this machine")
    network = case.settings.overlay.network
    if network is not None and (own := case.overlay()):
        return passed(
            f"not needed: this machine is {own[0].address} on {own[0].interface}, in {network}"
        )
    return None


def _unasked(case: Case, err: FleetpulseError) -> Verdict | None:
    """Return the verdict where the service does not answer us, but addresses show its work."""
    if case.is_at_home:
        return passed(f"not needed: all on this machine ({_first_part(err)})")
    if own := case.overlay():
        return warned(
            f"this machine is {own[0].address} on {own[0].interface}, but its network's settings "
            f"cannot be seen: {err}"
        )
    host = address_of(case.settings.hosts.broker or "")
    lan = [one.subnet for one in own_addresses()]
    if host is not None and case.settings.overlay.network is None and is_overlay(host, lan):
        return warned(
            f"no VPN here: the broker {host} is on the local network; four machines apart need "
            "one (fleetpulse network join NETWORK_ID)"
        )
    return None


def resolve(case: Case) -> Verdict:
    """Find the addresses of hosts.broker."""
    host, _ = case.bootstrap
    locate(case)
    found, _ = case.bootstrap
    try:
        case.addresses = addresses_of(found)
    except ServiceUnreachable as err:
        return failed(f"{err}; correct hosts.broker, or write the broker's overlay address there")
    places = ", ".join(case.addresses)
    return passed(places if host in case.addresses else f"{host} is {places}")


def overlay(case: Case) -> Verdict:
    """Find this machine's address on the VPN, and see that the settings' hosts fit to it."""
    everything = own_addresses()
    mine = {one.address for one in everything}
    if case.is_at_home:
        return _at_home(case, mine)
    host = case.settings.hosts.broker
    there = [one for text in case.addresses if (one := address_of(text)) is not None]
    is_here = any(one in mine for one in there)
    if case.role is Role.BROKER and not is_here:
        return failed(
            f"hosts.broker {host} is no address of this machine; run fleetpulse broker config "
            "--advertise-overlay, or the broker on the machine that has it"
        )
    network = case.settings.overlay.network
    own = case.overlay()
    if own:
        return _on_overlay(case, mine, own, there, is_here=is_here)
    lan = [one.subnet for one in everything]
    if network is None and all(is_overlay(one, lan) for one in there):
        return warned(f"no VPN: {host} is reached over the local network")
    place = f"in overlay.network {network}" if network else "on a ZeroTier network"
    return failed(f"this machine has no address {place}; start the VPN and join the network")


def _at_home(case: Case, mine: Container[Address]) -> Verdict:
    part = case.settings.hosts
    others = [
        f"hosts.{name} {host}"
        for name, host in part
        if host and not is_loopback(host) and address_of(host) not in mine
    ]
    if others:
        return warned(
            f"hosts.broker is {part.broker}, which no other machine reaches, and there is "
            f"{others[0]}; fleetpulse broker config --advertise-overlay writes the right one"
        )
    return passed(f"not needed: the broker is on this machine ({part.broker})")


def _on_overlay(
    case: Case,
    mine: Container[Address],
    own: Sequence[LocalAddress],
    there: Sequence[Address],
    *,
    is_here: bool,
) -> Verdict:
    network = case.settings.overlay.network
    networks = overlay_networks(network, lambda: own)
    place = ", ".join(f"{one.address} ({one.interface})" for one in own)
    if beyond := [one for one in there if not is_overlay(one, networks)]:
        text = (
            f"hosts.broker {beyond[0]} is not on the overlay, where this machine is {place}; run "
            "fleetpulse broker config --advertise-overlay on the broker's machine"
        )
        return failed(text) if is_here else warned(text)
    down = [one.interface for one in own if not is_up(one.interface)]
    if down:
        return failed(f"{down[0]} of the overlay is down ({place}); bring the VPN up again")
    host = None if case.role is None else getattr(case.settings.hosts, case.role.value, None)
    given = address_of(host) if host else None
    if given is not None and not given.is_loopback and given not in mine:
        return warned(f"this machine is {place}, but hosts.{case.role} is {given}; correct it")
    return passed(f"this machine is {place}")


def connect(case: Case) -> Verdict:
    """Open TCP connections to the broker."""
    host, port = case.bootstrap
    found = attempts(host, port, 1 if case.is_at_home else _ATTEMPTS, _EVERY_S)
    verdict = judge_attempts(f"{host}:{port}", found)
    is_refused = all(one.reach is Reach.REFUSED for one in found)
    if is_refused and (elsewhere := _heard_elsewhere(case, port)):
        return failed(
            f"{host}:{port} refuses: the broker listens on {elsewhere} instead; on this "
            "machine run fleetpulse broker config, then broker stop and broker start"
        )
    return verdict


def judge_attempts(place: str, found: Sequence[Attempt]) -> Verdict:
    """Return what is to be said of a place where connecting ended like this."""
    accepted = [one.seconds for one in found if one.reach is Reach.ACCEPTED]
    if accepted:
        return _judge_times(place, min(accepted), found)
    reaches = [one.reach for one in found]
    if Reach.REFUSED in reaches:
        return failed(
            f"{place} refuses: no broker listens there, on this address and port; on its machine "
            "see fleetpulse broker status and broker config, and start it with: fleetpulse broker "
            "start"
        )
    if Reach.NO_ROUTE in reaches:
        return failed(
            f"{place}: there is no way to this address from here; see that the VPN is up on both "
            "machines (fleetpulse network status), and that hosts.broker is right"
        )
    return failed(
        f"{place}: no answer within {ATTEMPT_S:g} s; let a firewall on the broker's machine accept "
        f"TCP port {place.rpartition(':')[2]} on its overlay address, see that the machine is up, "
        "and that hosts.broker is right"
    )


def _judge_times(place: str, fastest_s: float, found: Sequence[Attempt]) -> Verdict:
    # A system repeats the first packet of a connection after a second (RFC 6298).
    repeated = sum(
        one.reach is not Reach.ACCEPTED or one.seconds > fastest_s + _REPEATED_S for one in found
    )
    text = f"{place} accepts, after {fastest_s * 1000:.1f} ms"
    if not repeated:
        return passed(text)
    lost = (
        f"{text}, but {repeated} of {len(found)} connections not at the first try: packets get "
        "lost, or the link goes up and down; see how the VPN connects both machines (fleetpulse "
        "network peers: relayed?), then Wi-Fi, cables, and what else fills the line"
    )
    return failed(lost) if repeated >= _MANY * len(found) else warned(lost)


def _first_part(err: FleetpulseError) -> str:
    return str(err).partition(";")[0]


def _heard_elsewhere(case: Case, port: int) -> str:
    """Return where else on this machine the broker's port is open, if it should be here."""
    mine = {one.address for one in own_addresses()}
    if not any(address_of(one) in mine for one in case.addresses):
        return ""
    return ", ".join(one.place for one in open_ports() if one.port == port)


def mtu(case: Case) -> Verdict:
    """See that full packets get through, not only the small ones of a connection's start."""
    host, port = case.bootstrap
    tls = tls_of(case.settings)
    if greet(host, port, tls, _GREETING_S) is Greeting.SILENT:
        opening = TLS_OPENING if tls else PLAIN_OPENING
        if loses_large_packets(host, port, opening, _LARGE_S) or _needs_small_packets(case):
            return failed(
                f"{host}:{port}: small packets arrive, large ones vanish (small MTU on the way); "
                "lower the MTU of the VPN's interface on both machines, say to "
                f"{_LEAST_MTU_BYTES}, and let ICMP through the firewalls"
            )
        return passed("cannot be seen: nothing answers, which the next line is about")
    link = link_to(host, port, ATTEMPT_S)
    if link.is_local:
        return passed("not needed: the broker is on this machine")
    return judge_link(link)


def _needs_small_packets(case: Case) -> bool:
    """Tell whether a greeting is answered in small packets, and again not in full ones."""
    host, port = case.bootstrap
    tls = tls_of(case.settings)
    return (
        greet(host, port, tls, _GREETING_S, small_segments) is not Greeting.SILENT
        # Once more: it may have been slow the first time.
        and greet(host, port, tls, _GREETING_S) is Greeting.SILENT
    )


def judge_link(link: Link) -> Verdict:
    """Return what is to be said of a way that carries large packets."""
    mtu_bytes, packet_bytes, interface = link.mtu_bytes, link.packet_bytes, link.interface
    if mtu_bytes is None or packet_bytes is None:
        return passed("large packets get through")
    text = f"packets of {min(packet_bytes, mtu_bytes)} bytes ({interface}: MTU {mtu_bytes})"
    if min(packet_bytes, mtu_bytes) < _LEAST_MTU_BYTES:
        return warned(
            f"small MTU: {text}, wanted {_LEAST_MTU_BYTES} or more; raise it on the interface of "
            "the VPN at both ends (ZeroTier's own is 2800)"
        )
    if packet_bytes < mtu_bytes:
        return warned(
            f"small MTU: {text}; the other end has a smaller one: give both the same, or large "
            "messages may stall"
        )
    return passed(f"{text} get through")

"""This machine on its ZeroTier networks: what hinders it, what endangers it, joining, leaving."""

import time
from collections.abc import Callable
from typing import Final

from fleetpulse.config import Settings
from fleetpulse.domain.errors import FleetpulseError, ServiceUnreachable, UsageError
from fleetpulse.edges.zerotier.addressing import network_id_of
from fleetpulse.edges.zerotier.answer import Membership
from fleetpulse.edges.zerotier.service import ZeroTier

_POLL_S: Final = 0.5
_OK: Final = "OK"
# What no waiting mends.
_FINAL: Final = ("NOT_FOUND", "PORT_ERROR", "CLIENT_TOO_OLD")


def zerotier_of(settings: Settings) -> ZeroTier:
    """Return the service of this machine, as the settings describe it; nothing is asked yet."""
    return ZeroTier(settings.zerotier.port, settings.zerotier.token_file)


def network_id(text: str) -> str:
    """Return a network's id in lower case; UsageError where the text is none."""
    found = network_id_of(text)
    if found is None:
        raise UsageError(
            f"found {text!r}, wanted a network ID: 16 hexadecimal digits such as 8056c2e21c000001, "
            "shown by the network's controller"
        )
    return found


def hindrance(membership: Membership, member_id: str) -> str | None:
    """Return why a network does not carry this machine's traffic, and the next step; None: it does.

    `member_id` is this machine's.
    """
    name = membership.network_id
    if membership.status != _OK:
        return _status(membership, member_id)
    if not membership.allow_managed:
        return (
            "this machine does not take the network's addresses (allowManaged is off); "
            f"do: sudo zerotier-cli set {name} allowManaged=1"
        )
    if not membership.addresses:
        return (
            f"authorised, but without an address: give member {member_id} one in the controller of "
            f"network {name}, or let it assign them (an IPv4 range and its route)"
        )
    return None


def dangers(membership: Membership) -> tuple[str, ...]:
    """Return what about a network exposes this machine, each with the next step; empty: nothing."""
    name = membership.network_id
    found = []
    if membership.is_public:
        found.append(
            f"network {name} is public: whoever knows its ID is in; make it private in its "
            "controller"
        )
    if membership.allow_default:
        found.append(
            f"network {name} may take over this machine's default route; "
            f"do: sudo zerotier-cli set {name} allowDefault=0"
        )
    if membership.allow_global:
        found.append(
            f"network {name} may set addresses and routes of the Internet; "
            f"do: sudo zerotier-cli set {name} allowGlobal=0"
        )
    return tuple(found)


def join(
    service: ZeroTier, name: str, timeout_s: float, say: Callable[[str], None]
) -> tuple[Membership, str]:
    """Join a network and wait until it carries traffic; return it and this machine's member id.

    `say` is told what is waited for, and whose turn it is. Raises ServiceUnreachable when the
    controller did not let this machine in within `timeout_s` (it stays joined), UsageError where
    there is no such network (it does not), FleetpulseError where ZeroTier cannot make its device
    or is too old, and the errors of the edge.
    """
    member_id = service.node().member_id
    was_joined = service.network(name) is not None
    service.join(name)
    deadline_s = time.monotonic() + timeout_s
    told = None
    while True:
        membership = service.network(name)
        if membership is None:
            reason = "the service has not taken it up yet, or somebody made it leave again"
        else:
            found = hindrance(membership, member_id)
            if found is None:
                return membership, member_id
            if membership.status in _FINAL:
                raise _refusal(service, membership, found, was_joined=was_joined)
            reason = found
        if time.monotonic() >= deadline_s:
            raise ServiceUnreachable(
                f"network {name} after {timeout_s:g} s: {reason}; this machine stays joined, and "
                "`fleetpulse network status` shows how it goes on"
            )
        if reason != told:
            told = reason
            say(f"waiting for network {name}: {reason}")
        time.sleep(min(_POLL_S, max(0.0, deadline_s - time.monotonic())))


def _refusal(
    service: ZeroTier, membership: Membership, reason: str, *, was_joined: bool
) -> FleetpulseError:
    if membership.status != "NOT_FOUND":
        return FleetpulseError(f"network {membership.network_id}: {reason}")
    if not was_joined:
        service.leave(membership.network_id)
    return UsageError(f"network {membership.network_id}: {reason}")


def _status(membership: Membership, member_id: str) -> str:
    name = membership.network_id
    reasons = {
        "REQUESTING_CONFIGURATION": (
            f"its controller {name[:10]} has not answered yet; check that this machine reaches the "
            "Internet with UDP (port 9993), and that the controller runs"
        ),
        "ACCESS_DENIED": (
            f"access denied; authorise member {member_id} in the network's controller "
            "(my.zerotier.com, or your own)"
        ),
        "NOT_FOUND": "its controller knows no such network; check the ID",
        "PORT_ERROR": (
            "ZeroTier cannot make its network device; check that the service runs as root and, on "
            "Linux, that /dev/net/tun is there"
        ),
        "CLIENT_TOO_OLD": "this machine's ZeroTier is too old for it; update ZeroTier",
        "AUTHENTICATION_REQUIRED": (
            "it wants a sign-in in the browser; `zerotier-cli listnetworks` shows where"
        ),
    }
    return reasons.get(
        membership.status, f"its state is {membership.status}; see `zerotier-cli listnetworks`"
    )

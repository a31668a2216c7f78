"""The ZeroTier service of this machine: what it knows, and what it can be asked to do."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fleetpulse.edges.zerotier.answer import (
    Member,
    Membership,
    Node,
    Peer,
    read_member,
    read_member_ids,
    read_membership,
    read_memberships,
    read_node,
    read_peers,
)
from fleetpulse.edges.zerotier.exchange import Method, ask, unexpected
from fleetpulse.edges.zerotier.token_file import read_token, token_paths

_Facts = TypeVar("_Facts")


@dataclass(frozen=True, slots=True)
class ZeroTier:
    """Asks the service on 127.0.0.1; each method is one or more questions, none is kept open.

    `token_file` is None for the usual places. Every method raises ServiceUnreachable where the
    service does not run, is late or answers what it should not, AccessDenied where the token may
    not be read or is refused, and UsageError where its file is open to others. The token is read
    at each question and dropped after it.
    """

    port: int = 9993
    token_file: Path | None = None
    timeout_s: float = 5.0

    def node(self) -> Node:
        """Return this machine's member id, version and connection."""
        return self._known("GET", "/status", read_node)

    def networks(self) -> tuple[Membership, ...]:
        """Return the networks that this machine joined, by id."""
        return self._known("GET", "/network", read_memberships)

    def network(self, network_id: str) -> Membership | None:
        """Return one of them, None where this machine did not join it."""
        return self._asked("GET", f"/network/{network_id}", read_membership)

    def join(self, network_id: str) -> None:
        """Join a network; its controller decides later, so look at `network` for its answer."""
        self._known("POST", f"/network/{network_id}", lambda _answer: None)

    def leave(self, network_id: str) -> None:
        """Leave a network; nothing happens where this machine is not in it."""
        self._asked("DELETE", f"/network/{network_id}", lambda _answer: None)

    def peers(self) -> tuple[Peer, ...]:
        """Return the machines that this one talks to: members before roots, by id."""
        return self._known("GET", "/peer", read_peers)

    def members(self, network_id: str) -> tuple[Member, ...] | None:
        """Return a network's members by id, None where this machine is not its controller."""
        path = f"/controller/network/{network_id}/member"
        ids = self._asked("GET", path, read_member_ids)
        if ids is None:
            return None
        found = [self._asked("GET", f"{path}/{one}", read_member) for one in ids]
        # A member may be deleted between the two questions.
        return tuple(one for one in found if one is not None)

    def _known(self, method: Method, path: str, read: Callable[[object], _Facts]) -> _Facts:
        found = self._answer(method, path)
        if found is None:
            raise unexpected(self.port, path, "found nothing there")
        return self._facts(path, found, read)

    def _asked(self, method: Method, path: str, read: Callable[[object], _Facts]) -> _Facts | None:
        found = self._answer(method, path)
        return None if found is None else self._facts(path, found, read)

    def _answer(self, method: Method, path: str) -> object:
        token = read_token(token_paths(self.token_file))
        return ask(self.port, token, method, path, self.timeout_s)

    def _facts(self, path: str, found: object, read: Callable[[object], _Facts]) -> _Facts:
        try:
            return read(found)
        except ValueError as err:
            raise unexpected(self.port, path, str(err)) from None

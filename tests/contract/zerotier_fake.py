"""A ZeroTier service made of its published API description, without a network behind it.

Paths, fields, types and examples are those of the OpenAPI file "ZeroTierOne Service API" 0.1.0;
status codes, and what POST and DELETE do, are those of ZeroTierOne's service/OneService.cpp and
controller/EmbeddedNetworkController.cpp.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

MEMBER_ID = "0deadbeef1"
NETWORK_ID = "8056c2e21c000001"
HOSTED_ID = "0deadbeef1000001"

Json = dict[str, Any]


def network(network_id: str = NETWORK_ID, **changed: object) -> Json:
    """A joined network as the service describes it once its controller let us in."""
    return {
        "allowDNS": False,
        "allowDefault": False,
        "allowGlobal": False,
        "allowManaged": True,
        "assignedAddresses": ["10.147.20.190/24"],
        "bridge": False,
        "broadcastEnabled": True,
        "dhcp": False,
        "dns": {"domain": "", "servers": []},
        "id": network_id,
        "mac": "e6:d2:2b:e6:68:73",
        "mtu": 2800,
        "multicastSubscriptions": [{"adi": 0, "mac": "34:34:ff:da:6e:ff"}],
        "name": "clever_krum",
        "netconfRevision": 123,
        "nwid": network_id,
        "portDeviceName": "ztnnhrtimp",
        "portError": 0,
        "routes": [{"flags": 0, "metric": 0, "target": "10.147.20.0/24", "via": None}],
        "status": "OK",
        "type": "PRIVATE",
    } | changed


def waiting(status: str, network_id: str = NETWORK_ID) -> Json:
    """A joined network before, or without, the controller's leave."""
    return network(
        network_id, status=status, assignedAddresses=[], name="", netconfRevision=0, routes=[]
    )


def path(address: str = "195.181.173.159/9993", **changed: object) -> Json:
    return {
        "active": True,
        "address": address,
        "expired": False,
        "lastReceive": 1618955164580,
        "lastSend": 1618955164596,
        "localPort": 9993,
        "localSocket": 94362352,
        "preferred": True,
        "trustedPathId": 0,
    } | changed


def peer(address: str = "992fcf1db7", **changed: object) -> Json:
    return {
        "address": address,
        "isBonded": False,
        "latency": 40,
        "paths": [path()],
        "role": "LEAF",
        "tunneled": False,
        "version": "1.6.4",
        "versionMajor": 1,
        "versionMinor": 6,
        "versionRev": 4,
    } | changed


def member(address: str, name: str, *ips: str, authorized: bool = True) -> Json:
    return {
        "activeBridge": False,
        "address": address,
        "authorized": authorized,
        "id": address,
        "identity": f"{address}:0:0279558f1a731cb2",
        "ipAssignments": list(ips),
        "name": name,
        "noAutoAssignIps": False,
        "nwid": HOSTED_ID,
        "revision": 1,
        "vMajor": 1,
        "vMinor": 6,
        "vProto": 5,
        "vRev": 5,
    }


def status() -> Json:
    return {
        "address": MEMBER_ID,
        "clock": 1618948931097,
        "config": {
            "settings": {
                "allowTcpFallbackRelay": True,
                "portMappingEnabled": True,
                "primaryPort": 9993,
            }
        },
        "online": True,
        "planetWorldId": 149604618,
        "planetWorldTimestamp": 1618339625163,
        "publicIdentity": f"{MEMBER_ID}:0:690b44091ec50a44eb7f7769354b49ab",
        "tcpFallbackActive": False,
        "version": "1.6.4",
        "versionBuild": 0,
        "versionMajor": 1,
        "versionMinor": 6,
        "versionRev": 4,
    }


@dataclass(slots=True)
class Asked:
    """A request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class FakeZeroTier:
    """The state of the service; tests set what it finds and look at what it was asked.

    `joining` is what a network that is joined goes through, one state each time it is asked for;
    the last one stays, and an empty one is not found. `raw` is sent instead of every answer, byte
    by byte as it is given. `stop` ends the service, as if it had never run.
    """

    token: str
    port: int = 0
    status: Json = field(default_factory=status)
    networks: dict[str, Json] = field(default_factory=dict)
    joining: list[Json] = field(default_factory=lambda: [network()])
    peers: list[Json] = field(default_factory=list)
    members: dict[str, dict[str, Json]] = field(default_factory=dict)
    raw: Iterator[bytes] | None = None
    replaced: dict[str, object] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    on_request: Callable[[], None] = lambda: None
    stop: Callable[[], None] = lambda: None
    _pending: dict[str, list[Json]] = field(default_factory=dict)

    def answer(self, request: Asked) -> tuple[int, object]:
        """What the service answers: a status and a JSON value."""
        self.asked.append(request)
        self.on_request()
        if request.headers.get("x-zt1-auth") != self.token:
            return 401, {}
        if request.path in self.replaced:
            return 200, self.replaced[request.path]
        if found := re.fullmatch(r"/network/([0-9a-fA-F]{16})", request.path):
            return self._network(request.method, found[1])
        if found := re.fullmatch(
            r"/controller/network/(\w{16})/member(?:/(\w{10}))?", request.path
        ):
            return self._members(found[1], found[2])
        if request.method != "GET":
            return 404, {}
        whole: dict[str, object] = {
            "/status": self.status,
            "/network": list(self.networks.values()),
            "/peer": self.peers,
        }
        return (200, whole[request.path]) if request.path in whole else (404, {})

    def _network(self, method: str, network_id: str) -> tuple[int, object]:
        if method == "DELETE":
            self._pending.pop(network_id, None)
            return 200, {"result": True} if self.networks.pop(network_id, None) else {}
        if method == "POST" and network_id not in self.networks:
            states = [one and one | {"id": network_id, "nwid": network_id} for one in self.joining]
            self._pending[network_id] = states
            self.networks[network_id] = states[0]
        elif method == "GET" and (states := self._pending.get(network_id, [])):
            self.networks[network_id] = states.pop(0)
        found = self.networks.get(network_id)
        return (200, found) if found or method == "POST" else (404, {})

    def _members(self, network_id: str, member_id: str | None) -> tuple[int, object]:
        known = self.members.get(network_id)
        if known is None:
            return 404, {}
        if member_id is None:
            return 200, {one: found["revision"] for one, found in known.items()}
        return (200, known[member_id]) if member_id in known else (404, {})


class _Handler(BaseHTTPRequestHandler):
    fake: ClassVar[FakeZeroTier]

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        code, found = self.fake.answer(Asked(self.command, self.path, headers, body))
        if self.fake.raw is not None:
            for chunk in self.fake.raw:
                self.wfile.write(chunk)
            return
        answer = json.dumps(found).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_DELETE = do_GET  # noqa: N815  names that http.server looks for

    def log_message(self, *_arguments: object) -> None:
        """Nothing: the tests look at `asked`."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_arguments: object) -> None:
        """Nothing: a client that hangs up on an endless answer is what the tests want."""


@contextmanager
def running(token: str) -> Iterator[FakeZeroTier]:
    """A service that listens on a free port of 127.0.0.1 and takes this token."""
    fake = FakeZeroTier(token)
    handler = type("Handler", (_Handler,), {"fake": fake})
    server = _Server(("127.0.0.1", 0), handler)
    fake.port = server.server_address[1]
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()

    def stop() -> None:
        server.shutdown()
        serving.join()
        server.server_close()

    fake.stop = stop
    try:
        yield fake
    finally:
        stop()

"""What we expect of a ZeroTier service, asked of a fake and, where there is one, of a real one.

The first class runs against a real service, too, when FLEETPULSE_TEST_ZEROTIER_PORT names its port
and FLEETPULSE_TEST_ZEROTIER_TOKEN_FILE its token file. It joins a network that only this machine
could have made, and leaves it.
"""

import os
import secrets
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import zerotier_fake
from zerotier_fake import HOSTED_ID, MEMBER_ID, NETWORK_ID, FakeZeroTier, waiting

from fleetpulse.domain.errors import AccessDenied, FleetpulseError, ServiceUnreachable, UsageError
from fleetpulse.edges.zerotier.addressing import member_id_of
from fleetpulse.edges.zerotier.answer import Member, Membership, Node, Peer
from fleetpulse.edges.zerotier.service import ZeroTier

CANARY = "canary0token0never0shown"
REAL_PORT = os.environ.get("FLEETPULSE_TEST_ZEROTIER_PORT")
REAL_TOKEN_FILE = os.environ.get("FLEETPULSE_TEST_ZEROTIER_TOKEN_FILE")
SERVICES = ["fake", *(["real"] if REAL_PORT and REAL_TOKEN_FILE else [])]


@pytest.fixture
def fake() -> Iterator[FakeZeroTier]:
    with zerotier_fake.running(CANARY) as running:
        yield running


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "authtoken.secret"
    path.write_text(f"{CANARY}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def service(fake: FakeZeroTier, token_file: Path) -> ZeroTier:
    return ZeroTier(fake.port, token_file)


@pytest.fixture(params=SERVICES)
def any_service(request: pytest.FixtureRequest) -> ZeroTier:
    if request.param == "fake":
        found: ZeroTier = request.getfixturevalue("service")
        return found
    assert REAL_PORT
    assert REAL_TOKEN_FILE
    return ZeroTier(int(REAL_PORT), Path(REAL_TOKEN_FILE))


def failure(error: type[FleetpulseError], ask: Callable[[], object]) -> str:
    """The message of the error, once no trace of it shows the token."""
    with pytest.raises(error) as caught:
        ask()
    assert type(caught.value) is error
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestEveryService:
    def test_node_has_an_id_and_a_version(self, any_service: ZeroTier) -> None:
        node = any_service.node()
        assert member_id_of(node.member_id) == node.member_id
        assert node.version.split(".")[0] == "1"

    def test_network_is_there_between_join_and_leave(self, any_service: ZeroTier) -> None:
        # The first ten digits name the controller: with our own, nobody else is asked.
        network_id = any_service.node().member_id + secrets.token_hex(3)
        assert any_service.network(network_id) is None
        any_service.join(network_id)
        try:
            joined = any_service.network(network_id)
            assert joined is not None
            assert joined.network_id == network_id
            assert joined.status in {"OK", "REQUESTING_CONFIGURATION", "NOT_FOUND", "ACCESS_DENIED"}
            assert network_id in [one.network_id for one in any_service.networks()]
            any_service.join(network_id)
            assert [one.network_id for one in any_service.networks()].count(network_id) == 1
        finally:
            any_service.leave(network_id)
        assert any_service.network(network_id) is None
        any_service.leave(network_id)

    def test_peers_have_ids_and_roles(self, any_service: ZeroTier) -> None:
        for one in any_service.peers():
            assert member_id_of(one.member_id) == one.member_id
            assert one.role in {"LEAF", "MOON", "PLANET"}

    def test_members_of_a_network_of_another_controller_are_not_known(
        self, any_service: ZeroTier
    ) -> None:
        assert any_service.members("ffffffffff000001") is None

    def test_wrong_token_is_refused_and_not_shown(
        self, any_service: ZeroTier, tmp_path: Path
    ) -> None:
        wrong = tmp_path / "wrong.secret"
        wrong.write_text(f"{CANARY}-but-another")
        wrong.chmod(0o600)
        message = failure(AccessDenied, ZeroTier(any_service.port, wrong).node)
        assert "does not take the token (401)" in message
        assert "zerotier.token_file" in message


class TestFacts:
    def test_node_is_read(self, fake: FakeZeroTier, service: ZeroTier) -> None:
        assert service.node() == Node(MEMBER_ID, "1.6.4", is_online=True, is_tcp_relayed=False)
        fake.status |= {"online": False, "tcpFallbackActive": True}
        assert service.node() == Node(MEMBER_ID, "1.6.4", is_online=False, is_tcp_relayed=True)

    def test_membership_is_read(self, fake: FakeZeroTier, service: ZeroTier) -> None:
        addresses = ["10.147.20.190/24", "fd80:56c2:e21c:0:199:930d:eadb:eef1/88"]
        fake.networks[NETWORK_ID] = zerotier_fake.network(
            assignedAddresses=addresses, allowManaged=False, allowGlobal=True, allowDefault=True
        )
        assert service.network(NETWORK_ID) == Membership(
            NETWORK_ID,
            "clever_krum",
            "OK",
            is_public=False,
            addresses=(ip_interface(addresses[0]), ip_interface(addresses[1])),
            device="ztnnhrtimp",
            mtu_bytes=2800,
            allow_managed=False,
            allow_global=True,
            allow_default=True,
        )

    def test_networks_come_by_id(self, fake: FakeZeroTier, service: ZeroTier) -> None:
        for one in (NETWORK_ID, HOSTED_ID):
            fake.networks[one] = waiting("ACCESS_DENIED", one)
        found = service.networks()
        assert [one.network_id for one in found] == [HOSTED_ID, NETWORK_ID]
        assert {one.status for one in found} == {"ACCESS_DENIED"}

    @pytest.mark.parametrize("kind", ["PUBLIC", "", "private"])
    def test_network_is_public_unless_it_calls_itself_private(
        self, fake: FakeZeroTier, service: ZeroTier, kind: str
    ) -> None:
        fake.networks[NETWORK_ID] = zerotier_fake.network(type=kind)
        found = service.network(NETWORK_ID)
        assert found is not None
        assert found.is_public

    @pytest.mark.parametrize(
        ("paths", "expected"),
        [
            ([zerotier_fake.path()], "195.181.173.159/9993"),
            ([zerotier_fake.path("2001:db8::1/21000")], "2001:db8::1/21000"),
            ([], None),
            ([zerotier_fake.path(active=False, expired=True)], None),
            ([zerotier_fake.path(expired=True)], None),
            ([zerotier_fake.path(active=False)], None),
            (
                [
                    zerotier_fake.path("192.0.2.1/1", preferred=False),
                    zerotier_fake.path("192.0.2.2/2"),
                ],
                "192.0.2.2/2",
            ),
        ],
    )
    def test_peer_is_direct_by_its_preferred_active_path(
        self, fake: FakeZeroTier, service: ZeroTier, paths: list[object], expected: str | None
    ) -> None:
        fake.peers = [zerotier_fake.peer(paths=paths)]
        assert service.peers() == (Peer("992fcf1db7", "LEAF", "1.6.4", 40, expected),)

    def test_what_is_not_known_of_a_peer_is_none(
        self, fake: FakeZeroTier, service: ZeroTier
    ) -> None:
        fake.peers = [zerotier_fake.peer(latency=-1, version="-1.-1.-1", paths=[], tunneled=True)]
        assert service.peers() == (Peer("992fcf1db7", "LEAF", None, None, None),)

    def test_members_come_before_roots(self, fake: FakeZeroTier, service: ZeroTier) -> None:
        fake.peers = [
            zerotier_fake.peer("0000000001", role="PLANET"),
            zerotier_fake.peer("0000000003"),
            zerotier_fake.peer("0000000002"),
        ]
        ids = [one.member_id for one in service.peers()]
        assert ids == ["0000000002", "0000000003", "0000000001"]

    def test_controller_knows_its_members(self, fake: FakeZeroTier, service: ZeroTier) -> None:
        fake.members[HOSTED_ID] = {
            "eb8d45c5c9": zerotier_fake.member("eb8d45c5c9", "broker", "10.147.20.1"),
            "03d516a9df": zerotier_fake.member("03d516a9df", "", authorized=False),
        }
        assert service.members(HOSTED_ID) == (
            Member("03d516a9df", "", is_authorized=False, addresses=()),
            Member(
                "eb8d45c5c9", "broker", is_authorized=True, addresses=(ip_address("10.147.20.1"),)
            ),
        )

    def test_names_that_a_terminal_would_obey_are_made_harmless(
        self, fake: FakeZeroTier, service: ZeroTier
    ) -> None:
        fake.networks[NETWORK_ID] = zerotier_fake.network(name="a\x1b]0;b\x07\r\nc" + "d" * 200)
        found = service.network(NETWORK_ID)
        assert found is not None
        assert found.name == "a?]0;b???c" + "d" * 70


class TestQuestions:
    def test_token_goes_in_the_header_only(self, fake: FakeZeroTier, service: ZeroTier) -> None:
        service.node()
        service.join(NETWORK_ID)
        service.leave(NETWORK_ID)
        assert [(one.method, one.path) for one in fake.asked] == [
            ("GET", "/status"),
            ("POST", f"/network/{NETWORK_ID}"),
            ("DELETE", f"/network/{NETWORK_ID}"),
        ]
        for one in fake.asked:
            assert one.headers.pop("x-zt1-auth") == CANARY
            assert CANARY not in f"{one}"

    def test_token_is_read_at_each_question(
        self, fake: FakeZeroTier, service: ZeroTier, token_file: Path
    ) -> None:
        service.node()
        fake.token = CANARY[::-1]
        failure(AccessDenied, service.node)
        token_file.write_text(CANARY[::-1])
        assert service.node().member_id == MEMBER_ID

    def test_service_shows_no_token(self, service: ZeroTier) -> None:
        service.node()
        assert CANARY not in f"{service!r}{service}"

    def test_no_proxy_of_the_environment_is_asked(
        self, fake: FakeZeroTier, service: ZeroTier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://192.0.2.1:3128")
        assert service.node().member_id == MEMBER_ID
        assert fake.asked[0].path == "/status"


def dripping(*first: bytes) -> Iterator[bytes]:
    """Bytes that never end, each in time for a client that only limits single reads."""
    yield from first
    pause = threading.Event()
    while True:
        pause.wait(0.02)
        yield b"1"


def endless(*first: bytes) -> Iterator[bytes]:
    yield from first
    while True:
        yield b"1" * 65536


def silent() -> Iterator[bytes]:
    threading.Event().wait(2)
    yield b""


OK = b"HTTP/1.1 200 OK\r\n"


class TestFailures:
    def test_service_that_does_not_run_is_named_with_how_to_start_it(
        self, token_file: Path
    ) -> None:
        with socket.socket() as taken:
            # Bound and not listening: nobody else gets the port, and nobody answers.
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            message = failure(ServiceUnreachable, ZeroTier(port, token_file).node)
        assert message.startswith(
            f"no ZeroTier service runs on this machine: nothing listens on 127.0.0.1:{port}; "
            "start it"
        )

    @pytest.mark.parametrize(
        "raw",
        [
            silent,
            dripping,
            lambda: dripping(OK),
            lambda: dripping(OK, b"Content-Length: 500000\r\n\r\n"),
            lambda: dripping(OK, b"Transfer-Encoding: chunked\r\n\r\n"),
        ],
    )
    def test_slow_answer_is_given_up(
        self, fake: FakeZeroTier, token_file: Path, raw: Callable[[], Iterator[bytes]]
    ) -> None:
        fake.raw = raw()
        message = failure(ServiceUnreachable, ZeroTier(fake.port, token_file, 0.3).node)
        assert "no whole answer within 0.3 s" in message

    @pytest.mark.parametrize(
        "head",
        [
            b"\r\n",
            b"Content-Length: 99999999999\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFF\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        ],
    )
    def test_huge_answer_is_given_up(
        self, fake: FakeZeroTier, service: ZeroTier, head: bytes
    ) -> None:
        fake.raw = endless(OK, head)
        assert "more than 1 MiB" in failure(ServiceUnreachable, service.node)

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"<html>" + CANARY.encode() + b"</html>",
            b"\xff\xfe",
            b"[" * 100_000,
            b'{"address": ' + b"9" * 10_000 + b"}",
        ],
    )
    def test_answer_that_is_no_json_is_named_and_not_shown(
        self, fake: FakeZeroTier, service: ZeroTier, body: bytes
    ) -> None:
        fake.raw = iter([OK, b"\r\n", body])
        message = failure(ServiceUnreachable, service.node)
        assert message.startswith(f"127.0.0.1:{fake.port}/status: no JSON")

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"SSH-2.0-" + CANARY.encode() + b"\r\n",
            b"HTTP/1.1 " + CANARY.encode() + b"\r\n\r\n",
            OK + b"Transfer-Encoding: chunked\r\n\r\n" + CANARY.encode() + b"\r\n",
            OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n",
            OK + b"X: " + CANARY.encode() * 10_000 + b"\r\n\r\n",
        ],
    )
    def test_what_is_no_http_is_named_and_not_shown(
        self, fake: FakeZeroTier, service: ZeroTier, raw: bytes
    ) -> None:
        fake.raw = iter([raw])
        message = failure(ServiceUnreachable, service.node)
        assert message.startswith(f"127.0.0.1:{fake.port}/status: no answer in HTTP")

    @pytest.mark.parametrize("code", [302, 500, 204])
    def test_other_status_is_named(self, fake: FakeZeroTier, service: ZeroTier, code: int) -> None:
        where = f"http://127.0.0.1:{fake.port}/peer"
        fake.raw = iter([f"HTTP/1.1 {code} X\r\nLocation: {where}\r\n\r\n".encode()])
        assert f"answered {code}, wanted 200" in failure(ServiceUnreachable, service.node)
        assert len(fake.asked) == 1

    @pytest.mark.parametrize(
        ("answer", "what"),
        [
            (None, "found nothing there"),
            ([], "wanted an object"),
            ({}, "address is missing"),
            ({"address": 5}, "address is no str"),
            ({"address": CANARY}, "address is no member id"),
            ({"address": MEMBER_ID, "version": [CANARY]}, "version is no str"),
            ({"address": MEMBER_ID, "version": "1.6.4", "online": 1}, "online is no bool"),
        ],
    )
    def test_field_that_is_not_as_published_is_named(
        self, fake: FakeZeroTier, service: ZeroTier, answer: object, what: str
    ) -> None:
        fake.replaced["/status"] = answer
        message = failure(ServiceUnreachable, service.node)
        assert message.startswith(f"127.0.0.1:{fake.port}/status: {what}; ")

    @pytest.mark.parametrize(
        ("path", "answer", "what"),
        [
            ("/network", {}, "wanted a list of networks"),
            ("/network", [5], "wanted an object"),
            ("/network", [zerotier_fake.network("../../status")], "id is no network id"),
            ("/network", [zerotier_fake.network(status=None)], "status is missing"),
            ("/network", [zerotier_fake.network(mtu=True)], "mtu is no int"),
            ("/network", [zerotier_fake.network(assignedAddresses={})], "assignedAddresses is no"),
            ("/network", [zerotier_fake.network(assignedAddresses=[7])], "an address is no text"),
            (
                "/network",
                [zerotier_fake.network(assignedAddresses=[CANARY])],
                "an address is no IP",
            ),
            ("/peer", {}, "wanted a list of peers"),
            ("/peer", [zerotier_fake.peer(paths=[zerotier_fake.path(CANARY)])], "a path's address"),
            ("/peer", [zerotier_fake.peer(latency="40")], "latency is no int"),
        ],
    )
    def test_other_answers_are_checked_as_well(
        self, fake: FakeZeroTier, service: ZeroTier, path: str, answer: object, what: str
    ) -> None:
        fake.replaced[path] = answer
        ask = service.peers if path == "/peer" else service.networks
        message = failure(ServiceUnreachable, ask)
        assert message.startswith(f"127.0.0.1:{fake.port}{path}: {what}")

    def test_member_that_is_no_id_is_not_asked_for(
        self, fake: FakeZeroTier, service: ZeroTier
    ) -> None:
        path = f"/controller/network/{HOSTED_ID}/member"
        fake.replaced[path] = {"../../../x": 1}
        failure(ServiceUnreachable, lambda: service.members(HOSTED_ID))
        assert [one.path for one in fake.asked] == [path]

    def test_nothing_is_sent_while_the_token_file_is_open_to_others(
        self, fake: FakeZeroTier, service: ZeroTier, token_file: Path
    ) -> None:
        token_file.chmod(0o644)
        message = failure(UsageError, service.node)
        assert message.startswith(f"{token_file}: its mode 0644 lets every user")
        assert f"chmod o= '{token_file}'" in message
        assert fake.asked == []

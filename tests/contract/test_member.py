"""Hosts that name a ZeroTier member, with the addresses of a machine and the service it asks."""

import sys
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import zerotier_fake
from zerotier_fake import HOSTED_ID, MEMBER_ID, NETWORK_ID, FakeZeroTier, member

from fleetpulse.config import Settings, load
from fleetpulse.domain.errors import (
    AccessDenied,
    FleetpulseError,
    ServiceUnreachable,
    UsageError,
)
from fleetpulse.edges.overlay import Address
from fleetpulse.edges.zerotier.addressing import rfc4193_address, six_plane_address
from fleetpulse.edges.zerotier.service import ZeroTier
from fleetpulse.roles.member import find_member, located, resolve_member

BROKER = "eb8d45c5c9"
OTHER_NETWORK = "8056c2e21c000002"
IPV4 = ip_address("10.147.20.190")
RFC4193 = rfc4193_address(NETWORK_ID, MEMBER_ID)
SIX_PLANE = six_plane_address(NETWORK_ID, MEMBER_ID)


@pytest.fixture
def fake() -> Iterator[FakeZeroTier]:
    with zerotier_fake.running("token") as running:
        running.networks[NETWORK_ID] = zerotier_fake.network()
        yield running


@pytest.fixture
def service(fake: FakeZeroTier, tmp_path: Path) -> ZeroTier:
    token_file = tmp_path / "authtoken.secret"
    token_file.write_text("token")
    token_file.chmod(0o600)
    return ZeroTier(fake.port, token_file)


@pytest.fixture
def controller(fake: FakeZeroTier) -> FakeZeroTier:
    """This machine is the controller of a network with four members, and one of them."""
    fake.networks = {HOSTED_ID: zerotier_fake.network(HOSTED_ID)}
    fake.members[HOSTED_ID] = {
        MEMBER_ID: member(MEMBER_ID, "here", "10.147.20.190"),
        BROKER: member(BROKER, "Broker", "10.147.20.1"),
        "0000000001": member("0000000001", "", "10.147.20.2"),
        "0000000002": member("0000000002", "new", authorized=False),
    }
    return fake


def refusal(
    error: type[FleetpulseError],
    service: ZeroTier,
    asked: str,
    *own: Address,
    network: str | None = None,
) -> str:
    with pytest.raises(error) as caught:
        find_member(asked, own, service, None if network is None else ip_network(network))
    assert type(caught.value) is error
    return str(caught.value)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ([IPV4, RFC4193], rfc4193_address(NETWORK_ID, BROKER)),
        ([SIX_PLANE, IPV4], six_plane_address(NETWORK_ID, BROKER)),
        ([SIX_PLANE, RFC4193], rfc4193_address(NETWORK_ID, BROKER)),
    ],
)
def test_id_is_computed_from_an_own_address_without_asking(
    fake: FakeZeroTier, service: ZeroTier, own: list[Address], expected: Address
) -> None:
    assert find_member(BROKER, own, service, None) == expected
    assert find_member(BROKER.upper(), own, service, None) == expected
    assert fake.asked == []


def test_own_id_is_the_own_address(service: ZeroTier) -> None:
    assert find_member(MEMBER_ID, [IPV4, RFC4193], service, None) == RFC4193


def test_id_on_the_controller_is_the_same_address_as_elsewhere(
    controller: FakeZeroTier, service: ZeroTier
) -> None:
    own = rfc4193_address(HOSTED_ID, MEMBER_ID)
    found = find_member(BROKER, [IPV4, own], service, None)
    assert found == rfc4193_address(HOSTED_ID, BROKER)
    assert controller.asked == []


def test_id_in_two_networks_wants_one_named(service: ZeroTier) -> None:
    own = (RFC4193, six_plane_address(OTHER_NETWORK, MEMBER_ID))
    there = [rfc4193_address(NETWORK_ID, BROKER), six_plane_address(OTHER_NETWORK, BROKER)]
    message = refusal(UsageError, service, BROKER, *own)
    assert f"as {there[0]} or {there[1]}; set overlay.network" in message
    for address in there:
        network = ip_network(f"{address}/40", strict=False)
        assert find_member(BROKER, own, service, network) == address


def test_network_of_the_settings_keeps_computed_addresses_out(service: ZeroTier) -> None:
    message = refusal(UsageError, service, BROKER, IPV4, RFC4193, network="10.147.20.0/24")
    assert "turn RFC 4193 on in the network's controller, or write the address" in message


def test_name_is_known_to_the_controller(controller: FakeZeroTier, service: ZeroTier) -> None:
    for asked in ("Broker", "broker", BROKER):
        assert find_member(asked, [IPV4], service, None) == ip_address("10.147.20.1")
    assert controller.asked


def test_own_id_without_computed_addresses_is_asked_of_the_service(service: ZeroTier) -> None:
    assert find_member(MEMBER_ID, [IPV4], service, None) == IPV4


def test_ipv4_comes_before_ipv6(controller: FakeZeroTier, service: ZeroTier) -> None:
    controller.members[HOSTED_ID][BROKER]["ipAssignments"] = ["2001:db8::1", "10.147.20.1"]
    assert find_member("broker", [IPV4], service, None) == ip_address("10.147.20.1")
    network = ip_network("2001:db8::/32")
    assert find_member("broker", [IPV4], service, network) == ip_address("2001:db8::1")


def test_name_that_is_not_there_is_told_who_is(controller: FakeZeroTier, service: ZeroTier) -> None:
    expected = (
        f"no such member; there are: Broker ({BROKER}), here ({MEMBER_ID}), new (0000000002), "
        "0000000001"
    )
    assert refusal(UsageError, service, "brokr", IPV4) == expected
    assert refusal(UsageError, service, "ffffffffff", IPV4) == expected
    controller.members[HOSTED_ID] = {}
    assert refusal(UsageError, service, "brokr", IPV4) == "no such member; there are: none"


def test_name_of_two_members_names_them(controller: FakeZeroTier, service: ZeroTier) -> None:
    controller.members[HOSTED_ID]["0000000001"]["name"] = "broker"
    message = refusal(UsageError, service, "broker", IPV4)
    assert message == f"2 members are named so (0000000001, {BROKER}); use the ID of one"


def test_member_that_is_not_let_in_is_told_so(controller: FakeZeroTier, service: ZeroTier) -> None:
    assert controller.members
    assert "member 0000000002 is not authorised" in refusal(UsageError, service, "new", IPV4)


def test_address_that_is_none_or_not_the_only_one_is_told(
    controller: FakeZeroTier, service: ZeroTier
) -> None:
    message = refusal(UsageError, service, "broker", IPV4, network="10.1.0.0/16")
    assert message.startswith("member broker has no address in overlay.network 10.1.0.0/16; ")
    controller.members[HOSTED_ID][BROKER]["ipAssignments"] = ["10.147.20.2", "10.147.20.1"]
    message = refusal(UsageError, service, "broker", IPV4)
    assert "has several addresses (10.147.20.1, 10.147.20.2); write the one" in message


def test_name_elsewhere_than_on_the_controller_is_refused(service: ZeroTier) -> None:
    message = refusal(UsageError, service, "broker", IPV4, RFC4193)
    assert message.startswith("names are known on the machine of the network's own controller only")
    assert "use the member's ID" in message


def test_machine_on_no_network_is_told_before_anything_is_asked(
    fake: FakeZeroTier, service: ZeroTier
) -> None:
    assert "fleetpulse network status" in refusal(ServiceUnreachable, service, BROKER)
    assert fake.asked == []


def test_errors_of_the_service_come_through(fake: FakeZeroTier, service: ZeroTier) -> None:
    fake.token = "t"  # noqa: S105  another than the file's
    assert "(401)" in refusal(AccessDenied, service, "broker", IPV4)


@pytest.mark.parametrize("host", ["127.0.0.1", "broker.lan", "fd80::1", None])
def test_other_hosts_stay_as_they_are(host: str | None, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"hosts: {{broker: {'null' if host is None else repr(host)}}}")
    settings = load(file, {}).settings
    assert located(settings) is settings


def test_host_stands_before_every_message() -> None:
    # Whatever this machine's own networks are: nobody is named so.
    with pytest.raises(FleetpulseError, match=r"^zt:no-such-member: "):
        resolve_member("zt:no-such-member", Settings())


@pytest.mark.parametrize("host", ["zt:eb8d45c5c9", "zt:broker-1.lan", "zt:B"])
def test_settings_take_members_as_hosts(host: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"hosts: {{broker: '{host}'}}")
    assert load(file, {}).settings.hosts.broker == host


@pytest.mark.parametrize("host", ["zt:", "zt:a b", "zt:-x", "zt:a:9092", "zt:a/b", "ZT:a"])
def test_settings_refuse_what_is_no_member(host: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"hosts: {{broker: '{host}'}}")
    with pytest.raises(UsageError, match=r"hosts\.broker"):
        load(file, {})

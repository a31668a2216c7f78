"""Which of a machine's addresses are the overlay's."""

from ipaddress import ip_address, ip_network

import pytest

from fleetpulse.edges.overlay import (
    LocalAddress,
    choose_overlay,
    is_overlay,
    local_address,
    overlay_addresses,
)

LOOPBACK = local_address("lo", "127.0.0.1", "255.0.0.0")
OFFICE = local_address("eth0", "192.168.1.20", "255.255.255.0")
ZEROTIER = local_address("ztabcdefgh", "10.147.17.5", "255.255.255.0")
ZEROTIER_6 = local_address("ztabcdefgh", "fd80:56c2:e21c::1", "ffff:ffff:ffff:ffff:ffff::")
LINK_LOCAL = local_address("ztabcdefgh", "fe80::1%ztabcdefgh", "ffff:ffff:ffff:ffff::")
MAC = local_address("feth2519", "10.147.17.6", "255.255.255.0")
ALL = (LOOPBACK, ZEROTIER_6, OFFICE, LINK_LOCAL, ZEROTIER, MAC)


def test_address_carries_the_subnet_of_its_interface() -> None:
    assert LocalAddress(ip_address("10.147.17.5"), ip_network("10.147.17.0/24"), "ztabcdefgh") == (
        ZEROTIER
    )
    assert ZEROTIER_6.subnet == ip_network("fd80:56c2:e21c::/80")


def test_address_without_a_netmask_is_a_subnet_of_its_own() -> None:
    assert local_address("utun3", "10.8.0.2", None).subnet == ip_network("10.8.0.2/32")


def test_without_a_network_those_of_zerotier_interfaces_are_taken_ipv4_first() -> None:
    assert choose_overlay(ALL, None) == (ZEROTIER, MAC, ZEROTIER_6)


@pytest.mark.parametrize(
    "interface", ["eth0", "wlan0", "utun3", "azt0", "feth", "zt", "docker0", "zt0.5"]
)
def test_interface_of_another_kind_is_not_taken(interface: str) -> None:
    assert choose_overlay([local_address(interface, "10.147.17.5", "255.255.255.0")], None) == ()


def test_network_of_the_settings_decides_whatever_the_interface_is_called() -> None:
    assert choose_overlay(ALL, ip_network("192.168.0.0/16")) == (OFFICE,)
    assert choose_overlay(ALL, ip_network("10.147.17.6/32")) == (MAC,)


def test_link_local_address_is_no_overlay_address_even_inside_the_network() -> None:
    assert choose_overlay(ALL, ip_network("::/0")) == (ZEROTIER_6,)


@pytest.mark.parametrize(
    ("address", "is_inside"),
    [
        ("10.147.17.0", True),
        ("10.147.17.255", True),
        ("10.147.18.0", False),
        ("10.147.16.255", False),
        ("::ffff:10.147.17.9", True),
        ("::ffff:10.147.18.9", False),
        ("fd80:56c2:e21c::9", True),
        ("fd80:56c2:e21d::9", False),
        ("0.0.0.0", False),  # noqa: S104  an address to judge, nothing listens
        ("broker.lan", False),
        ("", False),
        ("10.147.17.5:9092", False),
    ],
)
def test_address_is_judged_by_the_networks_alone(address: str, *, is_inside: bool) -> None:
    networks = (ip_network("10.147.17.0/24"), ip_network("fd80:56c2:e21c::/48"))
    assert is_overlay(address, networks) is is_inside


def test_without_networks_nothing_is_on_the_overlay() -> None:
    assert not is_overlay("10.147.17.5", ())


def test_this_machine_shows_its_own_addresses() -> None:
    found = overlay_addresses(ip_network("127.0.0.0/8"))
    assert ip_address("127.0.0.1") in [one.address for one in found]
    assert all(is_overlay(one.address, (one.subnet,)) for one in found)

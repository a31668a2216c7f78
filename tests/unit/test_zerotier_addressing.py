"""The addresses that ZeroTier computes; the pairs are those of its published examples."""

import doctest
from ipaddress import IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetpulse.edges.zerotier import addressing
from fleetpulse.edges.zerotier.addressing import (
    member_id_of,
    neighbour,
    network_id_of,
    network_mark,
    rfc4193_address,
    six_plane_address,
)

MEMBERS = st.integers(0, 2**40 - 1).map("{:010x}".format)
NETWORKS = st.integers(0, 2**64 - 1).map("{:016x}".format)


def test_rfc4193_address_holds_both_ids_in_full() -> None:
    found = rfc4193_address("8056c2e21c000001", "efcc1b0947")
    assert found.packed.hex() == "fd" + "8056c2e21c000001" + "9993" + "efcc1b0947"


def test_six_plane_address_holds_the_folded_network_id_and_the_member() -> None:
    found = six_plane_address("8056c2e21c000001", "efcc1b0947")
    # 8056c2e2 xor 1c000001 = 9c56c2e3
    assert found.packed.hex() == "fc" + "9c56c2e3" + "efcc1b0947" + "000000000001"


@given(NETWORKS, MEMBERS, MEMBERS)
def test_own_address_tells_that_of_every_other_member(
    network_id: str, own: str, other: str
) -> None:
    for compute in (rfc4193_address, six_plane_address):
        assert neighbour(compute(network_id, own), other) == compute(network_id, other)


@given(NETWORKS, MEMBERS, MEMBERS)
def test_both_addresses_of_a_network_have_one_mark(network_id: str, one: str, two: str) -> None:
    marks = {
        network_mark(rfc4193_address(network_id, one)),
        network_mark(six_plane_address(network_id, two)),
    }
    assert len(marks) == 1
    assert marks != {None}


def test_networks_have_different_marks() -> None:
    ids = [f"8056c2e21c00000{digit}" for digit in range(10)]
    assert len({network_mark(rfc4193_address(one, "efcc1b0947")) for one in ids}) == 10


@pytest.mark.parametrize(
    "text",
    [
        "10.147.17.5",
        "fe80::1",
        "2001:db8::1",
        "fd80:56c2:e21c:0:199:94ef:cc1b:947",
        "fc9c:56c2:e3ef:cc1b:947::2",
        "fc9c:56c2:e3ef:cc1b:947:0:1:1",
        "fd9c:56c2:e3ef:cc1b:947::1",
        "fc80:56c2:e21c:0:199:93ef:cc1b:947",
    ],
)
def test_other_address_tells_nothing(text: str) -> None:
    assert network_mark(ip_address(text)) is None
    with pytest.raises(ValueError, match="neither"):
        neighbour(ip_address(text), "efcc1b0947")


@pytest.mark.parametrize(
    "text", ["", "efcc1b094", "efcc1b09477", "efcc1b094g", "broker", "ef cc1b094"]
)
def test_text_that_is_no_member_id_is_none(text: str) -> None:
    assert member_id_of(text) is None
    assert network_id_of(text) is None


def test_ids_are_written_in_lower_case() -> None:
    assert member_id_of("EFCC1B0947") == "efcc1b0947"
    assert network_id_of("8056C2E21C000001") == "8056c2e21c000001"
    assert network_id_of("8056c2e21c000001\n") is None


def test_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(addressing).failed == 0
    assert isinstance(rfc4193_address("0" * 16, "0" * 10), IPv6Address)

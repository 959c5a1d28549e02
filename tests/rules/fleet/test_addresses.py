"""Addresses and ports: the lowest that is free, never twice, and back when a machine is gone."""

from ipaddress import IPv4Address, IPv4Network
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.core.errors import Conflict, Invalid
from borough.fleet.addresses import (
    MOST_PORTS,
    PortRange,
    Subnet,
    guest_ports,
    lend_address,
    lend_ports,
    link_name,
    mac_of,
)

TEN = Subnet()


def test_the_first_addresses_are_low_and_none_ends_in_0_or_255() -> None:
    addresses = list(islice(TEN.addresses(), 1000))
    assert [str(each) for each in addresses[:2]] == ["10.10.0.2", "10.10.0.3"]
    assert str(addresses[253]) == "10.10.1.1"
    assert len(set(addresses)) == 1000
    assert all(1 <= int(each) & 0xFF <= 254 for each in addresses)
    assert TEN.gateway == IPv4Address("10.10.0.1")


@given(st.lists(st.one_of(st.none(), st.integers(0, 40)), max_size=60))
def test_an_address_is_never_lent_twice_and_comes_back(steps: list[int | None]) -> None:
    lent: list[IPv4Address] = []
    for step in steps:
        if step is None or not lent:
            fresh = lend_address(TEN, lent)
            assert fresh not in lent
            assert fresh in TEN.network
            lowest = next(each for each in TEN.addresses() if each not in lent)
            assert fresh == lowest
            lent.append(fresh)
        else:
            lent.pop(step % len(lent))


def test_there_is_an_end_to_addresses() -> None:
    small = Subnet(network=IPv4Network("10.9.0.0/29"))
    lent: set[IPv4Address] = set()
    for _ in range(5):
        lent.add(lend_address(small, lent))
    with pytest.raises(Conflict) as refused:
        lend_address(small, lent)
    assert refused.value.code == "addresses_exhausted"


def test_the_port_of_ssh_is_always_there_and_first() -> None:
    assert guest_ports([]) == (22,)
    assert guest_ports([8080, 80, 8080]) == (22, 8080, 80)
    assert guest_ports([80, 22]) == (80, 22)


@pytest.mark.parametrize("ports", [[0], [-1], [65_536], list(range(1, MOST_PORTS + 2))])
def test_what_is_no_port_is_refused(ports: list[int]) -> None:
    with pytest.raises(Invalid) as refused:
        guest_ports(ports)
    assert refused.value.code == "invalid_port"


@given(
    st.lists(st.integers(1, 65_535), min_size=1, max_size=5, unique=True),
    st.sets(st.integers(100, 120), max_size=21),
)
def test_ports_are_the_lowest_that_are_free(guests: list[int], lent: set[int]) -> None:
    ports = PortRange(first=100, last=120)
    free = [port for port in range(100, 121) if port not in lent]
    if len(free) < len(guests):
        with pytest.raises(Conflict) as refused:
            lend_ports(guests, lent, ports=ports)
        assert refused.value.code == "ports_exhausted"
        return
    assert lend_ports(guests, lent, ports=ports) == dict(zip(guests, free, strict=False))


@given(st.text(min_size=1, max_size=64), st.text(min_size=1, max_size=64))
def test_a_device_has_a_name_of_its_own_that_the_kernel_takes(one: str, other: str) -> None:
    assert len(link_name(one)) <= 15
    assert link_name(one).startswith("tt-")
    assert (link_name(one) == link_name(other)) == (one == other)


def test_every_machine_has_a_hardware_address_of_its_own() -> None:
    assert mac_of(IPv4Address("10.10.0.2")) == "02:54:0a:0a:00:02"
    assert len({mac_of(each) for each in islice(TEN.addresses(), 1000)}) == 1000

"""Hosts in one spelling; what a network policy reaches."""

import ipaddress

import pytest

from borough.core.errors import Invalid
from borough.governance.hosts import (
    NetworkPolicy,
    canonical_endpoint,
    canonical_host,
    is_local,
    may_connect,
    parse_allowed,
    reaches,
)

LIST = tuple(parse_allowed(text) for text in ("api.example.org:443", "*.cdn.example:*", "192.0.2.0/24:80", "[::1]:9"))


@pytest.mark.parametrize(
    ("host", "spelling"),
    [("API.Example.org.", "api.example.org"), ("::1", "[::1]"), ("[0:0::1]", "[::1]"), ("127.0.0.1", "127.0.0.1")],
)
def test_a_host_has_one_spelling(host: str, spelling: str) -> None:
    assert canonical_host(host) == spelling


@pytest.mark.parametrize("host", ["", "a b", "2130706433", "0177.0.0.1", "0x7f.1", "127.1", "a/b", "höst", "a:1"])
def test_what_some_resolver_could_read_as_another_host_is_refused(host: str) -> None:
    with pytest.raises(Invalid):
        canonical_host(host)


def test_an_endpoint_without_a_port_means_any_port() -> None:
    assert canonical_endpoint("Api.example.org") == "api.example.org:*"
    assert canonical_endpoint("[::1]") == "[::1]:*"
    with pytest.raises(Invalid):
        canonical_endpoint("a:70000")


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("api.example.org", 443, True),
        ("API.EXAMPLE.ORG.", 443, True),
        ("api.example.org", 80, False),
        ("a.b.cdn.example", 1, True),
        ("cdn.example", 1, False),
        ("192.0.2.9", 80, True),
        ("192.0.3.9", 80, False),
        ("::1", 9, True),
        ("evil.example", 443, False),
    ],
)
def test_an_allow_list_is_a_list_of_names_and_blocks(host: str, port: int, *, expected: bool) -> None:
    assert (reaches(NetworkPolicy.ALLOWLIST, LIST, host=host, port=port) is not None) is expected


def test_none_reaches_nothing_full_everything_and_local_the_neighbourhood() -> None:
    assert reaches(NetworkPolicy.NONE, LIST, host="api.example.org", port=443) is None
    assert reaches(NetworkPolicy.FULL, (), host="example.org", port=1) == "full"
    assert reaches(NetworkPolicy.LOCAL, (), host="192.168.1.4", port=1) == "local"
    assert reaches(NetworkPolicy.LOCAL, (), host="example.org", port=1) is None


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1", "::1", "fe80::1", "fd00::1", "::ffff:10.0.0.1",
     "64:ff9b::a00:1", "2002:a00:1::", "0.0.0.0", "224.0.0.1", "fec0::1", "::10.0.0.1", "::"],
)  # fmt: skip
def test_an_inside_address_is_local_in_every_disguise(address: str) -> None:
    assert is_local(ipaddress.ip_address(address))


def test_a_name_that_turns_to_the_inside_is_refused_unless_its_block_is_listed() -> None:
    inside = ipaddress.ip_address("10.0.0.7")
    outside = ipaddress.ip_address("1.1.1.1")
    assert may_connect(NetworkPolicy.ALLOWLIST, LIST, address=outside, port=443, local_too=False)
    assert not may_connect(NetworkPolicy.ALLOWLIST, LIST, address=inside, port=443, local_too=False)
    listed = (*LIST, parse_allowed("10.0.0.0/8:443"))
    assert may_connect(NetworkPolicy.ALLOWLIST, listed, address=inside, port=443, local_too=False)
    assert not may_connect(NetworkPolicy.FULL, (), address=inside, port=443, local_too=False)
    assert may_connect(NetworkPolicy.FULL, (), address=inside, port=443, local_too=True)


@pytest.mark.parametrize("text", ["api.example.org", "10.0.0.1/8:1", ":443", "[::1]", "a:0"])
def test_a_line_that_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_allowed(text)


@pytest.mark.parametrize("line", ["*:443", "**:*", "10.*:443"])
def test_a_pattern_of_names_does_not_name_an_inside_address(line: str) -> None:
    inside = ipaddress.ip_address("10.0.0.7")
    assert not may_connect(NetworkPolicy.ALLOWLIST, (parse_allowed(line),), address=inside, port=443, local_too=False)


def test_a_line_may_name_one_inside_address() -> None:
    listed = (parse_allowed("10.0.0.7:443"),)
    for text, expected in (("10.0.0.7", True), ("10.0.0.8", False)):
        address = ipaddress.ip_address(text)
        assert may_connect(NetworkPolicy.ALLOWLIST, listed, address=address, port=443, local_too=False) is expected


@pytest.mark.parametrize("policy", [NetworkPolicy.LOCAL, NetworkPolicy.ALLOWLIST, NetworkPolicy.FULL])
@pytest.mark.parametrize("disguise", ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"])
def test_where_a_cloud_keeps_credentials_is_refused_unless_that_very_address_is_listed(
    policy: NetworkPolicy, disguise: str
) -> None:
    metadata = ipaddress.ip_address(disguise)
    block, itself = parse_allowed("169.254.0.0/16:80"), parse_allowed("169.254.169.254:80")
    assert not may_connect(policy, (), address=metadata, port=80, local_too=True)
    assert not may_connect(policy, (block,), address=metadata, port=80, local_too=True)
    assert may_connect(policy, (itself,), address=ipaddress.ip_address("169.254.169.254"), port=80, local_too=False)

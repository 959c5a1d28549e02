"""What is handed to others: the seed of a machine, and the firewall of a host."""

import json
import shutil
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from borough.fleet.cloud_init import Seed, documents
from borough.fleet.rulesets import Forward, Neighbour, Ruleset, Way, render
from tests.conftest import need

NETWORK = IPv4Network("10.10.0.0/16")
KEY = "ssh-ed25519 AAAA... alice@laptop"


def seed(**other: object) -> Seed:
    values: dict[str, object] = {
        "vm_id": "1b9d6bcd-bbf",
        "address": IPv4Address("10.10.0.2"),
        "network": NETWORK,
        "gateway": IPv4Address("10.10.0.1"),
        "nameservers": ("9.9.9.9",),
        "ssh_keys": (KEY,),
    }
    return Seed(**{**values, **other})  # type: ignore[arg-type]  # the fields of a seed


def test_a_seed_has_the_three_documents_of_nocloud() -> None:
    files = documents(seed())
    assert list(files) == ["meta-data", "user-data", "network-config"]
    assert yaml.safe_load(files["meta-data"]) == {"instance-id": "1b9d6bcd-bbf", "local-hostname": "1b9d6bcd-bbf"}
    assert files["user-data"].startswith("#cloud-config\n")
    said = yaml.safe_load(files["user-data"])
    assert said["ssh_authorized_keys"] == [KEY]
    assert said["users"][1] == {"name": "root", "lock_passwd": False, "ssh_authorized_keys": [KEY]}
    assert "PermitRootLogin prohibit-password" in said["write_files"][0]["content"]


def test_a_clone_forgets_once_who_could_enter_the_machine_it_is_made_from() -> None:
    said = yaml.safe_load(documents(seed(is_clone=True))["user-data"])
    [command] = said["bootcmd"]
    assert command[:3] == ["cloud-init-per", "instance", "borough-clone"]
    assert "/root/.ssh/authorized_keys" in command[-1]
    assert said["ssh_authorized_keys"] == [KEY], "and its own may enter"
    assert "bootcmd" not in yaml.safe_load(documents(seed())["user-data"])


def test_the_network_is_found_by_hardware_address_in_version_1() -> None:
    network = yaml.safe_load(documents(seed())["network-config"])
    assert network["version"] == 1
    (device,) = network["config"]
    assert device["mac_address"] == "02:54:0a:0a:00:02"
    assert device["subnets"] == [
        {"type": "static", "address": "10.10.0.2/16", "gateway": "10.10.0.1", "dns_nameservers": ["9.9.9.9"]}
    ]


@given(st.text(min_size=1).filter(lambda text: "\x7f" not in text))
def test_nothing_in_a_key_becomes_structure(text: str) -> None:
    key = f"ssh-rsa AAAA {text}"
    said = documents(seed(ssh_keys=(key,)))["user-data"].removeprefix("#cloud-config\n")
    assert json.loads(said)["ssh_authorized_keys"] == [key]


def a_ruleset(count: int, *, denied: bool, private: bool) -> Ruleset:
    neighbours = [
        Neighbour(
            vm_id=f"vm{number}",
            env_id=f"e{number % 2}",
            address=IPv4Address("10.10.0.2") + number,
            deny_outgoing=denied,
            private=private,
        )
        for number in range(count)
    ]
    forwards = [
        Forward(host_port=20_000 + number, address=each.address, guest_port=22)
        for number, each in enumerate(neighbours)
    ]
    return Ruleset(
        bridge="tt0", network=NETWORK, forwards=tuple(forwards), neighbours=tuple(neighbours), proxy_port=3128
    )


def test_the_document_replaces_what_was_there_in_one_go() -> None:
    text = render(a_ruleset(1, denied=False, private=False))
    lines = text.splitlines()
    assert lines[:4] == [
        "table ip borough {}",
        "delete table ip borough",
        "table bridge borough {}",
        "delete table bridge borough",
    ]
    assert "20000 : 10.10.0.2 . 22" in text


def test_replies_pass_before_anything_is_denied() -> None:
    lines = [line.strip() for line in render(a_ruleset(1, denied=True, private=False)).splitlines()]
    replies = [number for number, line in enumerate(lines) if "established,related accept" in line]
    drops = [number for number, line in enumerate(lines) if "@denied" in line and "drop" in line]
    assert len(replies) == len(drops) == 2, "in forward and in input"
    assert all(one < other for one, other in zip(replies, drops, strict=True))


def test_a_forward_is_taken_away_by_its_port_and_not_by_a_piece_of_text() -> None:
    three = a_ruleset(40, denied=False, private=False)
    left = tuple(each for each in three.forwards if each.address != IPv4Address("10.10.0.3"))
    text = render(Ruleset(bridge="tt0", network=NETWORK, forwards=left))
    assert "10.10.0.3 ." not in text
    assert "10.10.0.30 . 22" in text


def test_private_environments_hear_only_their_own() -> None:
    text = render(a_ruleset(4, denied=False, private=True))
    together = next(line for line in text.splitlines() if "10.10.0.2 . 10.10.0.4" in line)
    assert "10.10.0.2 . 10.10.0.3" not in together


@pytest.mark.parametrize("count", [0, 1, 50])
@pytest.mark.parametrize("denied", [True, False])
@pytest.mark.parametrize("private", [True, False])
def test_the_firewall_takes_the_document(count: int, *, denied: bool, private: bool) -> None:
    nft, unshare = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin"), shutil.which("unshare")
    need(nft and unshare, "nft", "apt-get install nftables")
    text = render(a_ruleset(count, denied=denied, private=private))
    argv = [str(unshare), "--map-root-user", "--net", str(nft), "-c", "-f", "-"]
    checked = subprocess.run(argv, input=text.encode(), capture_output=True, check=False)
    if b"Operation not permitted" in checked.stderr:
        need(None, "a network namespace of one's own", "sysctl kernel.unprivileged_userns_clone=1")
    assert checked.returncode == 0, checked.stderr.decode()


def test_containers_with_a_list_call_their_own_proxy_and_nothing_else() -> None:
    way = Way(bridge="ttd-1b9d6bcdbbf", gateway=IPv4Address("198.18.0.1"))
    closed = Ruleset(bridge="tt0", network=NETWORK, proxy_port=3128, way_prefix="ttd-", ipv6=True)
    for ways in ((), (way,)):
        text = render(replace(closed, ways=ways))
        tables = {part.split(" {")[0]: part for part in text.split("\ntable ")[1:] if "chain" in part}
        lines = [line.strip() for line in next(tables[name] for name in tables if name.startswith("ip ")).splitlines()]
        drop = 'iifname "ttd-*" counter drop;'
        assert lines.count(drop) == 2, "what is forwarded, and what is for the host"
        accept = "iifname . ip daddr @ways tcp dport 3128 accept;"
        assert (accept in lines) is bool(ways)
        if ways:
            assert lines.index(accept) < len(lines) - 1 - lines[::-1].index(drop)
            assert 'elements = { "ttd-1b9d6bcdbbf" . 198.18.0.1 }' in lines
        assert next(tables[name] for name in tables if name.startswith("ip6 ")).count(drop) == 2
    assert "ip6" not in render(replace(closed, ipv6=False))

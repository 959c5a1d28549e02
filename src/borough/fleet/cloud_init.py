"""The seed of a machine: what a NoCloud data source tells a guest about itself (cloud-init documentation, NoCloud).

Network version 1 with the hardware address, since names of devices and drivers differ from guest to guest. Values are
written as JSON, which is YAML too, so that nothing in a key or a name can become structure.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from borough.fleet.addresses import mac_of

VOLUME_LABEL = "cidata"
_KEY_FILES = ("/root/.ssh/authorized_keys", "/home/*/.ssh/authorized_keys")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """What goes into a seed."""

    vm_id: str
    address: IPv4Address
    network: IPv4Network
    gateway: IPv4Address
    nameservers: tuple[str, ...]
    ssh_keys: Sequence[str]
    is_clone: bool = False
    """The disk is another machine's: who could enter that one cannot enter this one for it."""


def documents(seed: Seed) -> Mapping[str, str]:
    """Return the files of a seed by name."""
    return {
        "meta-data": _yaml({"instance-id": seed.vm_id, "local-hostname": seed.vm_id}),
        "user-data": "#cloud-config\n" + _yaml(_user_data(seed)),
        "network-config": _yaml(_network(seed)),
    }


def _user_data(seed: Seed) -> dict[str, object]:
    keys = list(seed.ssh_keys)
    # Host keys are made anew by themselves wherever the instance's id is a new one; keys of people only ever grow.
    once = ["cloud-init-per", "instance", "borough-clone", "sh", "-c", f"rm -f {' '.join(_KEY_FILES)}"]
    return {
        **({"bootcmd": [once]} if seed.is_clone else {}),
        "disable_root": False,
        "ssh_pwauth": False,
        "ssh_authorized_keys": keys,
        # Root is reached by key and by nothing else; some images lock it, which would also lock the key out.
        "users": ["default", {"name": "root", "lock_passwd": False, "ssh_authorized_keys": keys}],
        "write_files": [
            {
                "path": "/etc/ssh/sshd_config.d/00-borough.conf",
                "permissions": "0600",
                "content": "PermitRootLogin prohibit-password\nPasswordAuthentication no\n",
            }
        ],
    }


def _network(seed: Seed) -> dict[str, object]:
    subnet = {
        "type": "static",
        "address": f"{seed.address}/{seed.network.prefixlen}",
        "gateway": str(seed.gateway),
        "dns_nameservers": list(seed.nameservers),
    }
    device = {"type": "physical", "name": "eth0", "mac_address": mac_of(seed.address), "subnets": [subnet]}
    return {"version": 1, "config": [device]}


def _yaml(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"

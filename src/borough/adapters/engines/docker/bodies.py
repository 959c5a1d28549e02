"""What the Engine API is asked for, made of values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from borough.fleet.ports.engines import ExecOrder, MachineOrder
from borough.fleet.vms import VmId

MARKER, VM, ENV = "borough.marker", "borough.vm", "borough.env"
"""Labels by which a container is known as ours."""
GIVEN = "borough.given"
"""On a snapshot: the variables that its machine's order gave it, by name."""
_MIB = 1 << 20
_PROCESSES = 1024
_LOG_FILES = {"max-size": "16m", "max-file": "1"}
NOWHERE = "192.0.2.1"
"""An address for documentation (RFC 5737), where nobody answers: the resolver of containers that may not call out,
since the runtime may pass their questions on from outside of their network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The network of containers that may not call out."""

    name: str
    bridge: str


def name_of(vm_id: VmId) -> str:
    """Return the name of a machine's container."""
    return f"tt-{vm_id}"


def repository_of(vm_id: VmId) -> str:
    """Return under which name a machine's snapshots are kept as images."""
    return f"borough/snapshot-{vm_id}"


def origin_of(vm_id: VmId) -> str:
    """Return under which name the image is kept that a machine was made from, when that is another's snapshot."""
    return f"borough/origin-{vm_id}:made-from"


def given_names(config: Mapping[str, Any], image: Mapping[str, Any]) -> list[str]:
    """Return which variables a container got from its order: what it has and its image has not, now or before."""
    own = {str(each) for each in config.get("Env") or []} - {str(each) for each in image.get("Env") or []}
    before = (config.get("Labels") or {}).get(GIVEN, "")
    return sorted({each.partition("=")[0] for each in own} | set(filter(None, before.split(","))))


def withheld(image: Mapping[str, Any]) -> Sequence[str]:
    """Return the variables that a snapshot has only since its machine's order gave them."""
    labels = (image.get("Config") or {}).get("Labels") or {}
    return [each for each in labels.get(GIVEN, "").split(",") if each]


def is_podman(version: Mapping[str, Any]) -> bool:
    """Tell whether it is Podman that answers; it keeps no labels of a snapshot, and so not what was given to it."""
    return any("podman" in str(each.get("Name", "")).lower() for each in version.get("Components") or [])


def tag_of(vm_id: VmId, image: Mapping[str, Any]) -> str:
    """Return the name of a machine's snapshot; machines that were made from it have names for the same image."""
    prefix = f"{repository_of(vm_id)}:"
    # Podman puts the name of a registry before one that has none.
    return next(str(tag) for tag in image["RepoTags"] if f"/{prefix}" in f"/{tag}")


def container(
    order: MachineOrder,
    *,
    image: str,
    closed: Closed | None,
    withheld: Sequence[str] = (),
    proxy: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, object]:
    """Return what makes a machine's container; ``closed`` is its network if it may not call out, ``withheld`` are
    variables of the image that are not the machine's, ``proxy`` those by which it finds its way out.

    Its standard input stays open, so that an image whose command is a shell is a machine that stays.
    """
    size, ports = order.spec.size, order.link.port_map
    variables = {**proxy, **order.spec.env}
    host: dict[str, object] = {
        "NanoCpus": size.cpu * 1_000_000_000,
        "Memory": size.mem_mib * _MIB,
        "MemorySwap": size.mem_mib * _MIB,
        "PidsLimit": _PROCESSES,
        "PortBindings": {f"{guest}/tcp": [{"HostIp": "", "HostPort": str(port)}] for guest, port in ports.items()},
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file", "Config": _LOG_FILES},
    }
    if closed is not None:
        host |= {"NetworkMode": closed.name, "Dns": [NOWHERE], "DnsSearch": ["."]}
    body: dict[str, object] = {
        "Image": image,
        "Hostname": order.vm_id,
        "Env": [
            *(f"{name}={value}" for name, value in variables.items()),
            *(name for name in withheld if name not in variables),  # without a value, the API takes it away
        ],
        "Labels": {MARKER: order.marker, VM: order.vm_id, ENV: order.env_id},
        "ExposedPorts": {f"{guest}/tcp": {} for guest in ports},
        "OpenStdin": True,
        "HostConfig": host,
    }
    if order.spec.command:
        body["Cmd"] = list(order.spec.command)
    return body


def closed_network(closed: Closed, marker: str) -> dict[str, object]:
    """Return what makes the network of containers that may not call out, neither to each other."""
    return {
        "Name": closed.name,
        "Driver": "bridge",
        "CheckDuplicate": True,
        "Labels": {MARKER: marker},
        "Options": {
            "com.docker.network.bridge.name": closed.bridge,
            "com.docker.network.bridge.enable_icc": "false",
        },
    }


def execution(order: ExecOrder) -> dict[str, object]:
    """Return what prepares a command."""
    body: dict[str, object] = {
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": order.tty is not None,
        "Cmd": list(order.argv),
        "Env": [f"{name}={value}" for name, value in order.env.items()],
    }
    if order.cwd is not None:
        body["WorkingDir"] = order.cwd
    if order.user is not None:
        body["User"] = order.user
    return body


def newest(ours: str, theirs: Mapping[str, str]) -> str | None:
    """Return the version of the API that both sides know, or ``None``."""
    known = _numbers(theirs.get("ApiVersion", "0"))
    oldest = _numbers(theirs.get("MinAPIVersion", "1.24"))
    version = min(_numbers(ours), known)
    return ".".join(map(str, version)) if version >= max(oldest, _OLDEST) else None


_OLDEST = (1, 40)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))

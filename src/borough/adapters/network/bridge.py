"""Bridge, taps and namespaces: made, mended and removed; what carries another's mark is never touched."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from borough.adapters.network import commands, running
from borough.adapters.network.commands import INSIDE, Owner, namespace_of
from borough.core.errors import Conflict
from borough.fleet.addresses import Subnet, link_name
from borough.fleet.vms import VmId

NAMESPACES = Path("/run/netns")
"""Where ``ip netns`` keeps them."""
_SETTINGS = Path("/proc/sys/net")


class Bridge:
    """One bridge with its links."""

    def __init__(self, *, name: str, subnet: Subnet, owner: Owner) -> None:
        self.name = name
        self._subnet = subnet
        self._owner = owner
        self._gateway = subnet.gateway

    async def make(self) -> None:
        """Make or mend the bridge and the kernel's settings.

        Raises:
            Conflict: something of this name is another's (``bridge_taken``).
            Unavailable: it cannot be made (``network_failed``).
            OSError: a setting may not be changed.
        """
        there = await running.links(name=self.name)
        if there:
            self._check(there[0])
        alias = self._owner.alias(self.name)
        await running.ip(
            commands.bridge_lines(
                self.name, self._gateway, self._subnet.network, alias=alias, is_there=bool(there)
            )
        )  # fmt: skip
        for setting, value in commands.switches(self.name):
            await asyncio.to_thread(_set, _SETTINGS / setting, value)

    async def remove(self) -> None:
        """Remove the bridge, if it is ours."""
        there = await running.links(name=self.name)
        if there and self._owner.owned(there[0].get("ifalias")) == self.name:
            await running.ip([f"link del {self.name}"])

    async def tap(self, vm_id: VmId) -> str:
        """Make or mend a machine's tap; return its name."""
        device = link_name(vm_id)
        lines = [] if _is_here(device) else commands.tap_lines(device, alias=self._owner.alias(vm_id))
        await running.ip([*lines, *commands.join_lines(device, self.name)])
        return device

    async def namespace(self, vm_id: VmId, address: IPv4Address) -> tuple[str, str]:
        """Make or mend a machine's namespace and the link into it; return device and namespace."""
        device, space = link_name(vm_id), namespace_of(vm_id)
        alias = self._owner.alias(vm_id)
        if not (NAMESPACES / space).exists():
            await running.must(["ip", "netns", "add", space])
            if _is_here(device):
                await running.ip([f"link del {device}"])  # its other end was in a namespace that is gone
        elif _is_here(device) and not await running.links(namespace=space, name=INSIDE):
            await running.ip([f"link del {device}"])
        make = [] if _is_here(device) else commands.pair_lines(device, space, address, alias=alias)
        await running.ip([*make, *commands.join_lines(device, self.name)])
        await running.ip(
            commands.inside_lines(address, self._subnet.network, self._gateway, alias=alias), namespace=space
        )
        return device, space

    async def unlink(self, vm_id: VmId) -> None:
        """Remove a machine's link and namespace; what is not there, or not ours, is passed over."""
        device, space = link_name(vm_id), namespace_of(vm_id)
        there = await running.links(name=device) if _is_here(device) else []
        if there and self._owner.owned(there[0].get("ifalias")) == vm_id:
            await running.ip([f"link del {device}"])
        if (NAMESPACES / space).exists() and await self._is_ours(space):
            await running.must(["ip", "netns", "del", space])

    async def linked(self) -> set[VmId]:
        """Return the machines of which there is a link or a namespace of ours."""
        found = {self._owner.owned(link.get("ifalias")) for link in await running.links()}
        for space in await asyncio.to_thread(_namespaces):
            alias = await _alias_inside(space)
            found.add(None if alias is None else self._owner.owned(alias))
        return {VmId(one) for one in found if one is not None and one != self.name}

    async def _is_ours(self, space: str) -> bool:
        """Tell whether a namespace is ours: it says so, or it is still as empty as it was made."""
        alias = await _alias_inside(space)
        return alias is None or self._owner.owned(alias) is not None

    def _check(self, link: Mapping[str, Any]) -> None:
        alias = link.get("ifalias")
        kind = link.get("linkinfo", {}).get("info_kind")
        if kind != "bridge" or (alias is not None and self._owner.owned(alias) is None):
            raise Conflict(
                f"{self.name} is another's",
                code="bridge_taken",
                reason=f"it is a {kind or 'device'} with the mark {alias!r}",
                resolution="choose another name for the bridge, or remove what is there",
            )


def _is_here(device: str) -> bool:
    try:
        socket.if_nametoindex(device)
    except OSError:
        return False
    return True


def _namespaces() -> list[str]:
    with contextlib.suppress(FileNotFoundError):  # none was ever made on this machine
        return [name for name in os.listdir(NAMESPACES) if name.startswith("tt-")]  # noqa: PTH208 - names only
    return []


async def _alias_inside(space: str) -> str | None:
    found = await running.links(namespace=space, name="lo")
    return found[0].get("ifalias") if found else None


def _set(setting: Path, value: str) -> None:
    if not setting.exists() and "ipv6" in setting.parts:
        return  # a kernel without IPv6
    if setting.read_text().strip() != value:
        setting.write_text(value)

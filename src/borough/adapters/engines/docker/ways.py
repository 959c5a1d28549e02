"""Networks of containers with an egress list: one for each, on which nobody is but the container and its way out.

The bridge of such a network is named by its machine, and the host's firewall closes every bridge so named but for the
egress proxy at its own gateway. So whose a connection is says the bridge, which no container can choose.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final

from borough.adapters.engines.docker.bodies import MARKER, VM
from borough.adapters.engines.docker.client import EngineApi, failed
from borough.core.errors import BoroughError, NotFound
from borough.fleet.vms import VmId, check_vm_id

_POOL: Final = IPv4Network("198.18.0.0/15")
"""Kept for measurements between networks (RFC 2544), so on no host's own way anywhere; the runtime's own pools are
small, and used up by some thirty networks."""
_PREFIX_LENGTH: Final = 29
_TRIES: Final = 32
_NAME_LENGTH: Final = 15
"""Of a network device, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A container's own network."""

    name: str
    bridge: str
    gateway: IPv4Address


class Ways:
    """The networks of this host's containers with a list."""

    def __init__(self, api: EngineApi, *, marker: str, prefix: str) -> None:
        """``prefix`` begins the names of bridges that the host's firewall closes."""
        self._api = api
        self._marker = marker
        self.prefix = prefix

    async def make(self, vm_id: VmId) -> Way:
        """Make a container's network, or return the one that is there."""
        found = await self.find(vm_id)
        if found is not None:
            return found
        refusal: BoroughError | None = None
        for subnet in subnets_for(vm_id):
            try:
                await self._api.ask("POST", "/networks/create", body=self._body(vm_id, subnet))
            except BoroughError as error:
                if "overlap" not in error.message.lower():
                    raise
                refusal = error  # another's; there are many
                continue
            made = await self.find(vm_id)
            if made is not None:
                return made
        raise failed(f"no network could be made for {vm_id}: {refusal.message if refusal else 'it is gone again'}")

    async def find(self, vm_id: VmId) -> Way | None:
        """Return a container's network, if it is there and ours."""
        try:
            told: Mapping[str, Any] = await self._api.ask("GET", f"/networks/{self._name(vm_id)}")
        except NotFound:
            return None
        if (told.get("Labels") or {}).get(MARKER) != self._marker:
            return None
        gateway = str(told["IPAM"]["Config"][0]["Gateway"]).partition("/")[0]
        return Way(name=self._name(vm_id), bridge=self._bridge(vm_id), gateway=IPv4Address(gateway))

    async def remove(self, vm_id: VmId) -> None:
        """Remove a container's network; none there is no error."""
        if await self.find(vm_id) is not None:
            with suppress(NotFound):  # removed meanwhile
                await self._api.ask("DELETE", f"/networks/{self._name(vm_id)}")

    async def all(self) -> Sequence[VmId]:
        """Return the machines that have a network here, also those whose container is gone."""
        filters = json.dumps({"label": [f"{MARKER}={self._marker}", VM]})
        told = await self._api.ask("GET", "/networks", query={"filters": filters})
        return [check_vm_id(each["Labels"][VM]) for each in told]

    def _name(self, vm_id: VmId) -> str:
        return f"borough-way-{self._marker[:12]}-{vm_id}"

    def _bridge(self, vm_id: VmId) -> str:
        return f"{self.prefix}{vm_id.replace('-', '')}"[:_NAME_LENGTH]

    def _body(self, vm_id: VmId, subnet: IPv4Network) -> dict[str, object]:
        return {
            "Name": self._name(vm_id),
            "Driver": "bridge",
            "CheckDuplicate": True,
            "Labels": {MARKER: self._marker, VM: vm_id},
            "IPAM": {"Config": [{"Subnet": str(subnet), "Gateway": str(subnet[1])}]},
            "Options": {"com.docker.network.bridge.name": self._bridge(vm_id)},
        }


def subnets_for(vm_id: VmId) -> Iterator[IPv4Network]:
    """Yield small networks to be tried for a machine, always the same, spread over all there are."""
    size = 1 << (32 - _PREFIX_LENGTH)
    count = _POOL.num_addresses // size
    first = int.from_bytes(hashlib.sha256(vm_id.encode()).digest()[:4], "big")
    for attempt in range(_TRIES):
        place = (first + attempt * 4099) % count
        yield IPv4Network((int(_POOL.network_address) + place * size, _PREFIX_LENGTH))

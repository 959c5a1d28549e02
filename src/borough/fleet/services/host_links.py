"""On a host: the places of machines in its network, and the rules and published ports that follow from their rows."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import structlog

from borough.core.errors import Unavailable
from borough.fleet.engines import Engine
from borough.fleet.ports.machine_store import MachineRow, MachineStore
from borough.fleet.ports.network import HostNetwork, Link
from borough.fleet.vms import Vm, VmId

log = structlog.get_logger(__name__)

PORT_TRIES = 4
"""How often ports are lent to a machine whose ports others took meanwhile."""
OWN_DISKS = frozenset({Engine.DOCKER})
"""Engines that keep disks and links themselves."""
IN_NAMESPACES = frozenset({Engine.BUBBLEWRAP, Engine.JAIL})


class MachineLinks:
    """The places of this host's machines in its network."""

    def __init__(self, store: MachineStore, network: HostNetwork) -> None:
        self._store = store
        self._network = network
        self._rules = asyncio.Lock()
        self.unpublished: Mapping[VmId, str] = {}
        """Machines that lack a published port, and why."""

    async def attach(self, row: MachineRow) -> Link:
        """Return the machine's place in the network, made where it is not there."""
        vm = row.vm
        if vm.ip is None:
            raise ValueError(f"{vm.id} was accepted without an address")
        if vm.spec.engine in OWN_DISKS:
            link = self._network.unlinked(vm.ip)
        else:
            link = await self._network.attach(vm.id, vm.ip, namespace=vm.spec.engine in IN_NAMESPACES)
        return replace(link, port_map=vm.port_map)

    async def detach(self, vm_id: VmId) -> None:
        """Remove a machine's place; none there is no error."""
        await self._network.detach(vm_id)

    async def sweep(self, known: frozenset[VmId]) -> None:
        """Remove the places of all but the ``known`` machines."""
        await self._network.sweep(known)

    async def refresh_rules(self) -> None:
        """Make the firewall say what the rows say."""
        async with self._rules:
            rows = await self._store.all()
            linked = [row.vm for row in rows if row.vm.spec.engine not in OWN_DISKS]
            closed = frozenset(row.vm.env_id for row in rows if row.private_network)
            contained = [row.vm for row in rows if row.vm.spec.engine in OWN_DISKS]
            unpublished = await self._network.apply(linked, private=closed, contained=contained)
        for vm_id, reason in unpublished.items():
            if self.unpublished.get(vm_id) != reason:
                log.warning("vm.port_taken", vm=vm_id, reason=reason)
        self.unpublished = unpublished

    async def let_out(self, vm: Vm) -> None:
        """Open the way out of a machine that has just been started, where that can only be done from inside it."""
        if vm.spec.egress_allowlist:
            await self.refresh_rules()

    async def published(self, row: MachineRow) -> MachineRow:
        """Have a machine's ports published; those that others took since they were lent are given up for others.

        Raises:
            Unavailable: that went wrong again and again (``port_taken``).
        """
        tried: set[int] = set()
        for attempt in range(PORT_TRIES):
            if attempt:
                tried |= set(row.vm.port_map.values())
                row = await self._store.relend(row, but=frozenset(tried))
            await self.attach(row)
            await self.refresh_rules()
            if row.vm.id not in self.unpublished:
                return row
        raise Unavailable(
            self.unpublished[row.vm.id],
            code="port_taken",
            reason=f"{PORT_TRIES} times others were faster to listen at the ports that were lent",
            resolution="see what listens in this host's range of ports, or give it another range",
        )

    def way_out(self, vm: Vm) -> Mapping[str, str]:
        """Return by which variables a command in a machine finds its way out, unless its engine tells it."""
        return {} if vm.spec.engine in OWN_DISKS else self._network.way_out(vm)

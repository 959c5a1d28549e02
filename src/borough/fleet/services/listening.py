"""Hosts are listened to between the looks at them: what they see by themselves is written down at once."""

import asyncio
from contextlib import aclosing, suppress
from dataclasses import replace

import structlog

from borough.core.errors import BoroughError, NotFound
from borough.fleet.hosts import Host, HostState
from borough.fleet.ports.directory import Directory
from borough.fleet.ports.fleet import Fleet
from borough.fleet.services.machines import MachineService
from borough.fleet.vms import VmId, VmState

log = structlog.get_logger(__name__)

HEARD_WITHIN_S = 5.0


class ListeningService:
    """Listens to every host that is online. Use it from one event loop; ``close`` it before that ends.

    What is missed, since a connection broke or a host cannot tell, is seen by the next look at the host.
    """

    def __init__(self, fleet: Fleet, directory: Directory, machines: MachineService) -> None:
        self._fleet = fleet
        self._directory = directory
        self._machines = machines
        self._listening: dict[str, asyncio.Task[None]] = {}
        """By host."""

    @property
    def hosts(self) -> frozenset[str]:
        """Return the hosts that are listened to."""
        return frozenset(host for host, task in self._listening.items() if not task.done())

    async def keep(self) -> None:
        """Listen to every host that is online, and to no other; begin again where it broke off."""
        hosts = {host.id: host for host in await self._fleet.hosts() if host.state is HostState.ONLINE}
        for host_id in [each for each in self._listening if each not in hosts]:
            await _end(self._listening.pop(host_id))
        for host in hosts.values():
            before = self._listening.get(host.id)
            if before is None or before.done():
                self._listening[host.id] = asyncio.create_task(self._listen(host), name=f"listen to {host.id}")

    async def close(self) -> None:
        """Listen to nobody any more."""
        tasks, self._listening = self._listening, {}
        for task in tasks.values():
            await _end(task)

    async def _listen(self, host: Host) -> None:
        try:
            async with aclosing(self._directory.agent(host).changes()) as changes:
                async for vm_id in changes:
                    if vm_id is not None:
                        await self._heard(host, vm_id)
        except BoroughError as error:  # whether a host is well is found out by looking at it
            log.debug("host.not_listened_to", host=host.id, reason=error.message)

    async def _heard(self, host: Host, vm_id: VmId) -> None:
        """Ask the host how a machine is, and write that down."""
        try:
            known = await self._fleet.vm(vm_id)
            if known.host_id != host.id or known.state is VmState.CREATING:
                return  # another host's; or whoever has it made says what becomes of it
            async with asyncio.timeout(HEARD_WITHIN_S):
                said = await self._directory.agent(host).machine(vm_id)
            with suppress(NotFound):  # it was removed while its host was asked
                await self._machines.found(vm_id, replace(said, host_id=host.id), known=known)
        except NotFound:
            return  # gone at the host, or never ours: that is judged with all that the host has
        except (BoroughError, TimeoutError) as error:
            log.info("vm.not_heard", host=host.id, vm=vm_id, error=str(error))


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

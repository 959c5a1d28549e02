"""Hosts: registered, heard, taken out of service, forgotten."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import structlog

from borough.core.clock import utc_now
from borough.core.errors import BoroughError, Conflict, NotFound
from borough.fleet.environments import check_labels
from borough.fleet.hosts import GRACE, Host, HostState, check_address, is_silent
from borough.fleet.names import check_name
from borough.fleet.ports.directory import Directory
from borough.fleet.ports.fleet import Fleet
from borough.fleet.services.machines import MachineService
from borough.fleet.vms import Vm, VmId, VmState

log = structlog.get_logger(__name__)

AT_ONCE = 8
HEARD_WITHIN_S = 5.0


class HostService:
    """The hosts of the fleet, and the comparison of what they have with what is kept."""

    def __init__(
        self,
        fleet: Fleet,
        directory: Directory,
        machines: MachineService,
        *,
        most_hosts: int,
        grace: timedelta = GRACE,
    ) -> None:
        self._fleet = fleet
        self._directory = directory
        self._machines = machines
        self._most_hosts = most_hosts
        self._grace = grace

    async def register(self, addr: str, *, token: str | None = None) -> Host:
        """Register the host that answers at ``addr``; the same one at the same address again changes nothing.

        Raises:
            Invalid: it is no address (``invalid_address``).
            Unavailable: nobody answers there, or no host (``host_unreachable``, ``not_a_host``).
            Conflict: the host is known at another address (``host_bound``), or there are too many.
        """
        check_address(addr)
        host_id, agent = await self._directory.join(addr, token=token)
        try:
            report = await agent.report()
        finally:
            await agent.close()
        now = utc_now()
        host = Host(
            id=check_name(host_id, what="a host"),
            addr=addr,
            report=report,
            state=HostState.ONLINE,
            registered_at=now,
            heard_at=now,
        )
        registered = await self._fleet.add_host(host, most=self._most_hosts)
        await self._directory.keep(registered)
        return registered

    async def all(self) -> tuple[Host, ...]:
        """Return every host as it was heard last; none is asked."""
        return await self._fleet.hosts()

    async def get(self, host_id: str) -> Host:
        """Return one; raises ``NotFound`` (``host_not_found``)."""
        return await self._fleet.host(host_id)

    async def remove(self, host_id: str) -> None:
        """Forget a host that has no machines; raises ``Conflict`` (``host_in_use``) when it has."""
        await self._fleet.remove_host(host_id, with_machines=False)
        await self._directory.forget(host_id)

    async def detach(self, host_id: str) -> Sequence[Vm]:
        """Forget a host that is dead, with its machines, which are returned: whoever has the metal has to look.

        Raises:
            Conflict: it answers (``host_online``): then drain it, so that nothing is left behind.
        """
        host = await self._fleet.host(host_id)
        if host.state is HostState.ONLINE:
            raise Conflict(
                f"{host_id} is online",
                code="host_online",
                resolution="drain it, or delete its environments; only a dead host is detached",
            )
        lost = await self._fleet.remove_host(host_id, with_machines=True)
        await self._directory.forget(host_id)
        return lost

    async def cordon(self, host_id: str, *, cordoned: bool) -> Host:
        """Place nothing new on a host, or again."""
        draining = None if cordoned else False
        return await self._fleet.change_host(host_id, cordoned=cordoned, draining=draining, labels=None)

    async def label(self, host_id: str, labels: Mapping[str, str]) -> Host:
        """Say what a host is; placements can insist on it."""
        return await self._fleet.change_host(host_id, cordoned=None, draining=None, labels=check_labels(labels))

    async def listen(self) -> None:
        """Ask every host how it is and what it has, some at a time, and write down what differs."""
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(host: Host) -> None:
            async with slots:
                try:
                    await self._hear(host)
                except BoroughError as error:  # one host's trouble, or its removal meanwhile, is not the others'
                    log.warning("host.not_compared", host=host.id, error=error.message)

        await asyncio.gather(*(one(host) for host in await self._fleet.hosts()))

    async def _hear(self, host: Host) -> None:
        agent = self._directory.agent(host)
        before = {vm.id: vm for vm in await self._fleet.vms_of(host.id)}
        try:
            async with asyncio.timeout(HEARD_WITHIN_S):
                report = await agent.report()
                found = await agent.machines()
        except (BoroughError, TimeoutError) as error:
            await self._silent(host, str(error) or f"no answer within {HEARD_WITHIN_S:g} s")
            return
        if report.host_id != host.id:
            await self._silent(host, f"another host answers at {host.addr}: {report.host_id}")
            return
        await self._fleet.heard(host.id, report, at=utc_now(), error=None)
        await self._compare(host, before, {vm.id: vm for vm in found})

    async def _silent(self, host: Host, reason: str) -> None:
        host = await self._fleet.heard(host.id, None, at=utc_now(), error=reason)
        if not is_silent(host, at=utc_now(), grace=self._grace):
            return
        if host.state is HostState.ONLINE:
            await self._fleet.set_host_state(host.id, HostState.OFFLINE, at=utc_now())
            log.warning("host.offline", host=host.id, reason=reason)
        for vm in await self._fleet.vms_of(host.id):
            if vm.state not in (VmState.UNKNOWN, VmState.DELETING):
                await self._machines.unheard(vm.id, f"its host {host.id} does not answer: {reason}")

    async def _compare(self, host: Host, before: Mapping[VmId, Vm], found: Mapping[VmId, Vm]) -> None:
        """Write down what a host has. Machines that were planned while it was asked are left for the next time."""
        for vm_id, vm in before.items():
            said = found.get(vm_id)
            with suppress(NotFound):  # it was removed while its host was asked
                if said is not None:
                    await self._machines.found(vm.id, replace(said, host_id=host.id), known=vm)
                elif vm.state not in (VmState.CREATING, VmState.DELETING):
                    await self._machines.lost(vm, f"its host {host.id} has nothing of it")
        for vm_id in found.keys() - before.keys():
            log.info("vm.untracked", host=host.id, vm=vm_id)

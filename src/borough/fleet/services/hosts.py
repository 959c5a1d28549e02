"""Hosts: registered, heard, taken out of service, forgotten."""

import asyncio
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
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
from borough.fleet.trust import NOT_ITSELF, HostTrust, parse_join_token
from borough.fleet.vms import Vm, VmId, VmState

log = structlog.get_logger(__name__)

_IN_THE_MAKING = (VmState.CREATING, VmState.DELETING)
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
        self._strangers: dict[str, set[VmId]] = {}
        """By host: what it has that is not ours, as it was told."""
        self._compared: set[str] = set()
        """Hosts that have been heard since this program began."""
        self._reminding: set[asyncio.Task[None]] = set()

    async def register(self, addr: str, *, token: str | None = None) -> Host:
        """Register the host that answers at ``addr``.

        The same one at the same address again changes nothing; with a new token it is trusted anew, and keeps its
        machines.

        Raises:
            Invalid: it is no address (``invalid_address``) or no token (``invalid_join_token``).
            Unavailable: nobody answers there, or no host (``host_unreachable``, ``not_a_host``), or not the one whose
                token this is (``host_certificate_changed``, ``host_tls_failed``), or one that needs a token
                (``host_speaks_tls``).
            Forbidden: the host refuses us (``host_refused_key``, ``token_refused``, ``token_expired``).
            Conflict: the host is known at another address (``host_bound``), or there are too many.
        """
        return await self._register(addr, token=token, moved=False)

    async def adopt(self, addr: str) -> Host:
        """Register the host of this very process, whatever address it had before; raises as ``register``."""
        return await self._register(addr, token=None, moved=True)

    async def _register(self, addr: str, *, token: str | None, moved: bool) -> Host:
        check_address(addr)
        invitation = None if token is None else parse_join_token(token)
        known = next((host for host in await self._fleet.hosts() if host.addr == addr), None)
        trust: HostTrust | None = None
        if known is not None and invitation is None:
            # As was agreed with it: whoever sits at its address now is not told the fleet's key.
            report = await self._directory.agent(known).report()
        else:
            joined = await self._directory.join(addr, token=invitation)
            trust = joined.trust
            try:
                report = await joined.agent.report()
            finally:
                await joined.agent.close()
        now = utc_now()
        host = Host(
            id=check_name(report.host_id, what="a host"),
            addr=addr,
            report=report,
            state=HostState.ONLINE,
            registered_at=now,
            heard_at=now,
        )
        return await self._fleet.add_host(host, most=self._most_hosts, trust=trust, moved=moved)

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
            await self._silent(host, _why(error))
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
            if vm.state is VmState.CREATING and (said is None or said.state in _IN_THE_MAKING):
                continue  # whoever has it made says what becomes of it, and may try twice
            with suppress(NotFound):  # it was removed while its host was asked
                if said is not None:
                    seen = await self._machines.found(vm.id, replace(said, host_id=host.id), known=vm)
                    self._remind(seen, said, is_first=host.id not in self._compared)
                elif vm.state is not VmState.DELETING:
                    await self._machines.lost(vm, f"its host {host.id} has nothing of it")
        self._compared.add(host.id)
        await self._untracked(host, found.keys() - before.keys())

    def _remind(self, vm: Vm, said: Vm, *, is_first: bool) -> None:
        """See to what was asked of a machine; that may take its time, and other hosts are to be heard meanwhile."""

        async def remind() -> None:
            try:
                await self._machines.remind(vm, said, is_first=is_first)
            except BoroughError as error:
                log.warning("vm.not_as_asked", vm=vm.id, desired=vm.desired.value, error=error.message)

        if vm.desired is not said.desired or vm.state is VmState.UNKNOWN:
            task = asyncio.create_task(remind(), name=f"remind {vm.id}")
            self._reminding.add(task)
            task.add_done_callback(self._reminding.discard)

    async def _untracked(self, host: Host, found: AbstractSet[VmId]) -> None:
        """Remove what a host has left of machines that this fleet placed there and has no rows of any more.

        What the fleet's own record does not know is somebody else's: that is told once, and left alone.
        """
        strangers: set[VmId] = set()
        for vm_id in sorted(found):
            if await self._is_known(vm_id):  # it was planned while its host was asked
                continue
            if vm_id not in self._strangers.get(host.id, ()) and await self._fleet.was_planned(vm_id, host.id):
                await self._remove_orphan(host, vm_id)
                continue
            strangers.add(vm_id)
        for vm_id in strangers - self._strangers.get(host.id, set()):
            log.warning("vm.untracked", host=host.id, vm=vm_id)
        self._strangers[host.id] = strangers

    async def _remove_orphan(self, host: Host, vm_id: VmId) -> None:
        try:
            async with asyncio.timeout(HEARD_WITHIN_S):
                await self._directory.agent(host).destroy(vm_id)
        except (BoroughError, TimeoutError) as error:
            log.warning("orphan.not_removed", host=host.id, vm=vm_id, error=str(error))
        else:
            log.warning("orphan.removed", host=host.id, vm=vm_id)

    async def _is_known(self, vm_id: VmId) -> bool:
        try:
            await self._fleet.vm(vm_id)
        except NotFound:
            return False
        return True


def _why(error: BoroughError | TimeoutError) -> str:
    """Return why a host was not heard; with the way out where waiting is none."""
    if isinstance(error, BoroughError) and error.code in NOT_ITSELF:
        return f"{error.message} ({error.reason}): {error.resolution}"
    return str(error) or f"no answer within {HEARD_WITHIN_S:g} s"

"""Machines as the controller sees them: asking their hosts, and writing down what they said.

A host that does not answer has neither done nor refused what it was asked: the machine's state is unknown until the
host is heard again.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

from borough.core.clock import utc_now
from borough.core.errors import BoroughError, Conflict, Forbidden, Invalid, NotFound, Unavailable
from borough.fleet.operations import Operation
from borough.fleet.ports.directory import Directory
from borough.fleet.ports.fleet import Fleet
from borough.fleet.ports.host_agent import CreateOrder, HostAgent
from borough.fleet.services.images import ImageService, Told
from borough.fleet.services.turns import Turns
from borough.fleet.vms import GOALS, Action, Vm, VmId, VmState, check_move

Ends = Callable[[], Operation | None]
"""Returns the operation as it ends when a machine is as it was to be, if it does."""

_TRIES = 5
UNSURE = frozenset({"host_unreachable", "host_timeout", "store_unavailable", "not_a_host"})
"""Codes after which it is not known whether the host did what it was asked: no answer came, or not the host's own."""
OF_ANOTHER = "vm_exists"
"""The code that says that what is there under an id is not ours."""


_ACTIONS = {VmState.STOPPED: Action.STOP, VmState.RUNNING: Action.START, VmState.PAUSED: Action.PAUSE}
_SETTLED = frozenset({VmState.RUNNING, VmState.PAUSED, VmState.STOPPED, VmState.FAILED})


def is_unsure(error: BoroughError) -> bool:
    """Tell whether, after ``error``, what was asked may have been done all the same."""
    return isinstance(error, Unavailable) and error.code in UNSURE


class MachineService:
    """One machine at a time, each on its host."""

    def __init__(self, fleet: Fleet, directory: Directory, images: ImageService) -> None:
        self._fleet = fleet
        self._directory = directory
        self._images = images
        self._turns = Turns()
        self.on_gone: list[Callable[[], None]] = []
        """Called whenever nothing is left of a machine, and its room is free."""
        self._unanswered: set[VmId] = set()
        """Machines of which something was asked, and whose hosts were not heard to have done it."""

    async def get(self, vm_id: VmId) -> Vm:
        """Return what is known of a machine, without asking its host; raises ``NotFound`` (``vm_not_found``)."""
        return await self._fleet.vm(vm_id)

    async def host_of(self, vm_id: VmId) -> tuple[Vm, HostAgent]:
        """Return a machine and its host; raises ``NotFound`` (``vm_not_found``, ``host_not_found``)."""
        vm = await self._fleet.vm(vm_id)
        return vm, self._directory.agent(await self._fleet.host(vm.host_id))

    async def create(self, vm: Vm, *, private_network: bool, told: Told | None = None, ends: Ends | None = None) -> Vm:
        """Have a planned machine made. The order is the same whenever it is sent, and so is the machine.

        An image that its host lacks is brought from another host first; ``told`` hears how far that is. ``ends`` tells
        of the operation that ends with this machine, which is written with it.

        Raises:
            BoroughError: what the host said; the machine is then to be deleted, for only its host can confirm that
                neither this order nor an earlier one has left anything.
            Unavailable: it is not known what the host did (``is_unsure``); the machine is unknown, and settled later.
        """
        async with self._turns.of(vm.id):
            known, agent = await self.host_of(vm.id)
            _check_wanted(known)
            order = CreateOrder(vm_id=vm.id, env_id=vm.env_id, spec=vm.spec, private_network=private_network)
            try:
                made = _the_same(vm, await self._made(agent, order, vm.host_id, told))
            except BoroughError as error:
                if is_unsure(error):
                    await self._note(vm.id, VmState.UNKNOWN, error.message)
                elif error.code == OF_ANOTHER:
                    await self._fleet.remove_vm(vm.id)
                else:
                    await self._doom(vm.id, error.message)
                raise named(error, vm) from error
            return await self.found(vm.id, made, ends=ends)

    async def _made(self, agent: HostAgent, order: CreateOrder, host_id: str, told: Told | None) -> Vm:
        """Send the order; when the host answers that it lacks the image, nothing is there, and it can be sent again."""
        try:
            return await agent.create(order)
        except BoroughError as error:
            if error.code != "image_not_found":
                raise
        await self._images.copy(order.spec.image, to=host_id, told=told)
        return await agent.create(order)

    def is_busy(self, vm_id: VmId) -> bool:
        """Tell whether something is being done with a machine just now."""
        return self._turns.is_taken(vm_id)

    async def act(self, vm_id: VmId, action: Action) -> Vm:
        """Stop, start or pause a machine and write down what became of it.

        Raises:
            NotFound: there is no such machine (``vm_not_found``).
            Conflict: its state or engine does not allow it.
            Unavailable: the host does not answer; the machine is unknown then.
        """
        async with self._turns.of(vm_id):
            vm, agent = await self.host_of(vm_id)
            check_move(vm, GOALS[action])
            await self._wish(vm_id, GOALS[action])
            call: dict[Action, Callable[[VmId], Awaitable[Vm]]] = {
                Action.STOP: agent.stop,
                Action.START: agent.start,
                Action.PAUSE: agent.pause,
            }
            try:
                now = _the_same(vm, await call[action](vm_id))
            except BoroughError as error:
                if is_unsure(error):
                    self._unanswered.add(vm_id)
                    await self._note(vm_id, VmState.UNKNOWN, error.message)
                else:
                    await self._give_up(vm_id, vm.desired, error.message)
                raise named(error, vm) from error
            return await self.found(vm_id, now)

    async def remind(self, vm: Vm, said: Vm, *, is_first: bool) -> None:
        """Ask a host again for what was asked of ``vm`` and did not reach it: it ``said`` that it knows nothing of it.

        That is so after the host did not answer, or, where it is heard for the first time (``is_first``), after this
        program ended between writing down what is wanted and asking for it.
        """
        action = _ACTIONS.get(vm.desired)
        is_due = is_first or vm.id in self._unanswered
        knows = said.desired in (vm.desired, VmState.UNKNOWN) or said.state not in _SETTLED
        if action is None or not is_due or vm.state is VmState.CREATING or self.is_busy(vm.id):
            return
        self._unanswered.discard(vm.id)
        if not knows:
            await self.act(vm.id, action)

    async def delete(self, vm_id: VmId) -> None:
        """Have a machine removed; its row goes when the host has confirmed that nothing is left.

        Raises:
            Unavailable: it is not removed yet; it stays, deleting, with the reason, and is tried again.
        """
        async with self._turns.of(vm_id):
            try:
                await self._wish(vm_id, VmState.DELETING)
                vm, agent = await self.host_of(vm_id)
            except NotFound as error:
                if error.code == "vm_not_found":
                    return
                raise
            try:
                await agent.destroy(vm_id)
            except BoroughError as error:
                await self._note(vm_id, VmState.DELETING, error.message)
                raise named(error, vm) from error
            await self._fleet.remove_vm(vm_id)
        for tell in self.on_gone:
            tell()

    async def found(self, vm_id: VmId, said: Vm, *, known: Vm | None = None, ends: Ends | None = None) -> Vm:
        """Write down what a host says of a machine; what is being deleted stays so.

        ``known`` is what was known of it before the host was asked: where that has changed since, what the host said
        may be older than the change, and is left for the next time.
        """

        def seen(vm: Vm) -> Vm:
            if known is not None and vm.revision != known.revision:
                return vm
            state, error = _seen_state(vm, said)
            placed = replace(vm, ip=said.ip, port_map=said.port_map, disk_enforced=said.disk_enforced)
            return replace(placed, state=state, since=_since(vm, state), error=error)

        return await self._change(vm_id, seen, event="vm.changed", ends=ends)

    async def lost(self, known: Vm, reason: str) -> Vm:
        """Write down that a host that answers has nothing of a machine that was there, and has not changed since."""

        def gone(vm: Vm) -> Vm:
            if vm.revision != known.revision:
                return vm
            return replace(vm, state=VmState.FAILED, error=reason, since=_since(vm, VmState.FAILED))

        return await self._change(known.id, gone, event="vm.changed")

    async def unheard(self, vm_id: VmId, reason: str) -> Vm:
        """Write down that a machine's host does not answer."""
        return await self._note(vm_id, VmState.UNKNOWN, reason)

    async def _give_up(self, vm_id: VmId, desired: VmState, error: str) -> Vm:
        """Write down that a host refused what was asked of a machine: what was wanted before is wanted again."""

        def given_up(vm: Vm) -> Vm:
            return vm if vm.state is VmState.DELETING else replace(vm, desired=desired, error=error)

        return await self._change(vm_id, given_up, event="vm.changed")

    async def _doom(self, vm_id: VmId, error: str) -> Vm:
        """Write down that a machine could not be made, and is to be deleted for that reason."""

        def doomed(vm: Vm) -> Vm:
            state = VmState.DELETING
            return replace(vm, desired=state, state=state, error=error, since=_since(vm, state))

        return await self._change(vm_id, doomed, event="vm.changed")

    async def _wish(self, vm_id: VmId, desired: VmState) -> Vm:
        def wished(vm: Vm) -> Vm:
            state = VmState.DELETING if desired is VmState.DELETING else vm.state
            return replace(vm, desired=desired, state=state, since=_since(vm, state))

        return await self._change(vm_id, wished, event="vm.wanted")

    async def _note(self, vm_id: VmId, state: VmState, error: str) -> Vm:
        def noted(vm: Vm) -> Vm:
            now = vm.state if vm.state is VmState.DELETING else state
            return replace(vm, state=now, error=error, since=_since(vm, now))

        return await self._change(vm_id, noted, event="vm.changed")

    async def _change(self, vm_id: VmId, change: Callable[[Vm], Vm], *, event: str, ends: Ends | None = None) -> Vm:
        """Change a machine's row; when somebody else was faster, look again and change that."""
        for _ in range(_TRIES):
            vm = await self._fleet.vm(vm_id)
            changed = change(vm)
            if changed == vm:
                return vm
            try:
                operation = None if ends is None else ends()
                return await self._fleet.change_vm(changed, revision=vm.revision, event=event, operation=operation)
            except Conflict as error:
                if error.code != "stale_vm":
                    raise
        raise Conflict(
            f"{vm_id} is changed by too many at once",
            code="stale_vm",
            resolution="read it again and repeat the request",
        )


def _check_wanted(vm: Vm) -> None:
    if vm.state is VmState.DELETING:
        raise Conflict(f"{vm.id} is being deleted", code="vm_deleting", resolution="create another machine")


def _the_same(vm: Vm, said: Vm) -> Vm:
    """Return what a host says of ``vm``; an answer about another machine is none."""
    if said.id != vm.id:
        raise Unavailable(
            f"the host was asked for {vm.id} and speaks of {said.id[:80]!r}",
            code="not_a_host",
            resolution="check the address of the host: it is that of a tt-agent",
        )
    return said


def _seen_state(vm: Vm, said: Vm) -> tuple[VmState, str | None]:
    """Return a machine's state and error after its host has spoken.

    What is being deleted stays so, and only a wish of ours makes it so. What its host is still making is as it was
    before: if it comes to nothing, that is seen by its absence.
    """
    if vm.state is VmState.DELETING:
        return VmState.DELETING, said.error or vm.error
    if said.state is VmState.DELETING:
        return VmState.FAILED, f"its host is removing it: {said.error or 'nobody here asked for that'}"
    if said.state is VmState.CREATING:
        return vm.state, said.error or vm.error
    return said.state, said.error


def _since(vm: Vm, state: VmState) -> datetime | None:
    """Return since when the machine is in ``state``, if it is from now on."""
    return vm.since if state is vm.state else utc_now()


_KINDS: tuple[type[BoroughError], ...] = (Invalid, Forbidden, NotFound, Conflict, Unavailable)


def named(error: BoroughError, vm: Vm) -> BoroughError:
    """Return ``error`` with the machine and the host that it is about."""
    kind = next((kind for kind in _KINDS if isinstance(error, kind)), BoroughError)
    return kind(
        f"{vm.id} on {vm.host_id}: {error.message}",
        code=error.code,
        reason=error.reason,
        resolution=error.resolution,
        details=error.details,
    )

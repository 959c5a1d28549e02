"""An attempt's machine: placed, made, entered, frozen, removed, through the fleet's own services."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from borough.auth.machines import SERVER_NAME, SERVER_PORT
from borough.core.errors import BoroughError, Conflict, Invalid, NotFound, Unavailable
from borough.core.ids import derived_id
from borough.fleet.engines import Engine
from borough.fleet.environments import EnvState
from borough.fleet.fitness import Constraints
from borough.fleet.orders import EnvOrder, Ids
from borough.fleet.placement import NotPlaced
from borough.fleet.ports.engines import Chunk, ExecOrder, Stream
from borough.fleet.services.guests import only
from borough.fleet.vms import Action, Vm, VmSpec, VmState, vm_id_of, vm_spec
from borough.governance.manifests import Manifest
from borough.runs import supervisor
from borough.runs.admission import Place, Ready, Start, domains_of, is_open, needs_of
from borough.runs.orders import RunOrder
from borough.runs.ports import House, Made, Reserved
from borough.runs.runs import Attempt, Machine, Run
from borough.runs.services.agents import read_manifest
from borough.runs.services.ready import ReadyMachines, make_own

OWNER: Final = "runs"
EVERYTHING: Final = ("*",)
ANYWHERE: Final = "*:*"
"""The line of a list for everything; the server itself has to be named beside it."""
INSIDE_URL: Final = f"http://{SERVER_NAME}"
"""Where the server is found from inside."""
MARGIN_S: Final = 900
"""How much longer than its command a machine may live: for what goes before, and for what is collected after."""
WAIT_FOR_ROOM_S: Final = 3600
"""How long an attempt waits for room, in the order of asking."""
LOOK_FOR_ROOM_S: Final = 30.0
MOST_PRINTED_BYTES: Final = 1 << 20
_STAYS: Final = ("sh", "-c", "while :; do sleep 3600; done")
"""What keeps a container: an image's own command may end at once."""


OpenHouse = Callable[[], Awaitable[House]]
"""Waits for the fleet; raises ``Unavailable`` where there is none (yet)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """A command inside that has ended."""

    code: int
    stdout: bytes
    stderr: bytes


class RunMachines:
    """The machines of runs."""

    def __init__(self, house: OpenHouse, ready: ReadyMachines) -> None:
        self._house = house
        self._ready = ready

    # -- admission -----------------------------------------------------------------------------------------------------

    async def places(self, order: RunOrder, manifest: Manifest, engines: Sequence[Engine], floor: int) -> list[Place]:
        """Return for each engine, up to the first that has one, where a machine would go, or why nowhere; nothing is
        kept.
        """
        house = await self._house()

        async def planned(engine: Engine, *, tools: bool) -> Place:
            spec = spec_of(order, manifest, engine, tools=tools)
            ready = await self._ready.find(spec, await house.offers(engine))
            if ready is not None:
                return Place(engine=engine, plan=Ready(host_id=ready.host_id), tools=tools)
            wanted = EnvOrder(id="run", owner=OWNER, specs=(spec,), constraints=Constraints(isolation=floor))
            return Place(engine=engine, plan=await house.preview(wanted), tools=tools)

        found = []
        for engine in engines:
            place = await planned(engine, tools=True)
            if isinstance(place.plan, NotPlaced) and not place.plan.later:
                place = await planned(engine, tools=False)  # not every engine has a way out by list
            if isinstance(place.plan, NotPlaced):
                place = replace(place, later=bool(place.plan.later))
            found.append(place)
            if not isinstance(place.plan, NotPlaced):
                break
        return found

    async def digests(self, image: str) -> Mapping[str, str]:
        """Return for each host the digest of an image as it is there."""
        return await (await self._house()).digests(image)

    # -- its life ------------------------------------------------------------------------------------------------------

    async def take_ready(self, run: Run, *, number: int, epoch: int) -> Machine | None:
        """Take a machine that stands ready for an attempt; ``None``: it has to be made. Repeated it is the same one."""
        house = await self._house()
        engine = run.admission.engine or Engine.BUBBLEWRAP
        spec = spec_of(run.order, read_manifest(run.manifest), engine, tools=run.admission.tools)
        machine = await self._ready.take(run, spec, await house.offers(engine), epoch=epoch)
        if machine is None:
            return None
        own = await make_own(house, machine, owner=OWNER, labels=_labels(run, number), lifetime_s=_lifetime_s(run))
        return machine if own else None

    async def make(self, run: Run, attempt: Attempt, manifest: Manifest, *, reserved: Reserved) -> Vm:
        """Have the attempt's machine made, waiting for room; asked for again it is the same one. ``reserved`` hears
        where it has its place, or in which line it stands, as soon as that is written down.

        Raises:
            Invalid: no place can take it (``unschedulable``).
            NotFound: there was no room for too long (``env_not_found``).
            Unavailable: it could not be made (``operation_failed``).
        """
        house, machine = await self._house(), attempt.machine
        if machine.start is Start.WARM:
            return _running(await house.detail(machine.env_id))
        order = EnvOrder(
            id=machine.env_id,
            owner=OWNER,
            specs=(spec_of(run.order, manifest, machine.engine, tools=run.admission.tools),),
            lifetime_s=_lifetime_s(run),
            labels=_labels(run, attempt.number),
            constraints=Constraints(isolation=run.admission.isolation.rank),
            wait_s=WAIT_FOR_ROOM_S,
        )
        ids = Ids(operation=derived_id(machine.env_id, "create"), vms=(machine.vm_id,))
        try:
            made = await house.make(order, ids, reserved=reserved)
        except Conflict as error:
            if error.code != "env_exists":
                raise
            made = await house.detail(machine.env_id)
        while made.state is EnvState.WAITING:
            await house.settles(made.operation or ids.operation, timeout_s=LOOK_FOR_ROOM_S)
            made = await house.detail(machine.env_id)
        return _running(made)

    async def find(self, machine: Machine) -> Vm | None:
        """Return the attempt's machine as it is known; ``None``: there is none (any more)."""
        try:
            return await (await self._house()).machine(machine.vm_id)
        except NotFound:
            return None

    async def pause(self, machine: Machine) -> bool:
        """Freeze the machine; return whether it is frozen now: not every engine can."""
        try:
            vm = await (await self._house()).act(machine.vm_id, Action.PAUSE)
        except (Conflict, NotFound):
            return False
        return vm.state is VmState.PAUSED

    async def resume(self, machine: Machine) -> None:
        """Let a frozen machine go on."""
        house = await self._house()
        if (await house.machine(machine.vm_id)).state is VmState.PAUSED:
            await house.act(machine.vm_id, Action.START)

    async def remove(self, machine: Machine) -> None:
        """Have the machine removed; return when its host has confirmed. None there is no error.

        Raises:
            Unavailable: it is not gone yet (``operation_failed``); the fleet goes on trying.
        """
        await self._remove(machine.env_id)

    async def remove_taken(self, run: Run, *, but: str | None) -> None:
        """Have every machine removed that was ever taken for a run, ``but`` for one environment; see ``remove``."""
        for env_id in await self._ready.taken(run):
            if env_id != but:
                await self._remove(env_id)

    async def _remove(self, env_id: str) -> None:
        house = await self._house()
        try:
            await house.delete(env_id, operation_id=derived_id(env_id, "delete"), waits=True)
        except NotFound:
            return

    async def drop(self, machine: Machine) -> None:
        """Begin to have the machine removed, at once; return when that is written down."""
        try:
            house = await self._house()
            await house.delete(machine.env_id, operation_id=derived_id(machine.env_id, "delete"), waits=False)
        except NotFound:
            return

    async def keep(self, machine: Machine, *, lifetime_s: int) -> None:
        """Let the machine stay as it is for longer."""
        try:
            await (await self._house()).change(machine.env_id, lifetime_s=lifetime_s)
        except NotFound:
            return

    # -- its inside ----------------------------------------------------------------------------------------------------

    async def run(
        self, machine: Machine, argv: Sequence[str], *, env: Mapping[str, str] | None = None, timeout_s: float = 30.0
    ) -> Printed:
        """Run a command inside to its end; what it prints beyond a MiB is not kept."""
        order = ExecOrder(argv=tuple(argv), env=dict(env or {}), timeout_s=timeout_s)
        kept: dict[Stream, bytearray] = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
        async with aclosing(await self._execute(machine, order)) as chunks:
            async for chunk in chunks:
                if chunk.stream is Stream.EXIT:
                    code = -1 if chunk.exit_code is None else chunk.exit_code
                    return Printed(code=code, stdout=bytes(kept[Stream.STDOUT]), stderr=bytes(kept[Stream.STDERR]))
                room = MOST_PRINTED_BYTES - len(kept[chunk.stream])
                kept[chunk.stream] += chunk.data[: max(0, room)]
        raise Unavailable("a command inside ended without a word", code="exec_lost")

    async def prints(self, machine: Machine, argv: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """Yield what a command inside prints, until it ends."""
        async with aclosing(await self._execute(machine, ExecOrder(argv=tuple(argv)))) as chunks:
            async for chunk in chunks:
                if chunk.stream is Stream.STDOUT:
                    yield chunk.data

    async def state(self, machine: Machine, *, make_ready: bool = False) -> supervisor.Inside:
        """Return how the command stands inside; ``make_ready``: make its workspace first."""
        printed = await self.run(machine, supervisor.ready_argv() if make_ready else supervisor.state_argv())
        if printed.code:
            raise Unavailable(
                "its machine does not tell how it stands",
                code="inside_unknown",
                reason=printed.stderr.decode(errors="replace")[:200] or f"exit code {printed.code}",
            )
        return supervisor.read_state(printed.stdout.decode(errors="replace"))

    async def put(self, machine: Machine, path: str, archive: AsyncIterator[bytes]) -> None:
        """Unpack an archive into a folder inside."""
        await (await self._house()).write(machine.vm_id, path, archive, from_tar=True)

    async def fetch(self, machine: Machine, path: str) -> AsyncGenerator[bytes, None]:
        """Yield a folder inside as an archive."""
        async with aclosing((await self._house()).read(machine.vm_id, path, as_tar=True)) as parts:
            async for part in parts:
                yield part

    async def text(self, machine: Machine, path: str, *, most: int) -> str | None:
        """Return the beginning of a file inside; ``None``: there is none."""
        kept = bytearray()
        try:
            async with aclosing((await self._house()).read(machine.vm_id, path, as_tar=False)) as parts:
                async for part in parts:
                    kept += part[: most - len(kept)]
                    if len(kept) >= most:
                        break
        except NotFound as error:
            if error.code != "file_not_found":
                raise
            return None
        return kept.decode(errors="replace")

    async def _execute(self, machine: Machine, order: ExecOrder) -> AsyncGenerator[Chunk, None]:
        return (await self._house()).execute(machine.vm_id, order, only(b""))


def spec_of(order: RunOrder, manifest: Manifest, engine: Engine, *, tools: bool) -> VmSpec:
    """Return the machine that an order wants of an engine: its network is what the manifest lists, and, for its agent's
    ``tools``, this server; nothing else. Who may reach everything does so by a list too, since only that leads here.

    Raises:
        Invalid: the image has no such name, or a size is none.
    """
    domains = domains_of(manifest)
    unlisted = is_open(manifest, tools=tools)
    listed = (ANYWHERE,) if domains == EVERYTHING else domains
    own = (f"{SERVER_NAME}:{SERVER_PORT}",) if tools else ()
    return vm_spec(
        image=order.image,
        engine=engine,
        cpu=order.cpu,
        mem_mib=order.memory_mib,
        disk_mib=order.disk_mib,
        deny_outgoing=not unlisted,
        egress_allowlist=() if unlisted else (*listed, *own),
        command=_STAYS if engine is Engine.DOCKER else (),
        required=needs_of(manifest),
    )


def machine_of(run: Run, *, number: int, epoch: int, engine: Engine) -> Machine:
    """Return the machine of an attempt before it is made: its names follow from the attempt."""
    vm_id = vm_id_of(derived_id(run.id, "vm", str(run.tries), str(epoch)))
    return Machine(env_id=f"{run.name}-{number}-{epoch}", vm_id=vm_id, engine=engine)


def _labels(run: Run, number: int) -> dict[str, str]:
    return {"borough.run": run.id, "borough.attempt": str(number)}


def _lifetime_s(run: Run) -> int:
    return run.order.timeout_s + MARGIN_S


def _running(made: Made) -> Vm:
    running = next((vm for vm in made.vms if vm.state in (VmState.RUNNING, VmState.PAUSED)), None)
    if running is None:
        why = "; ".join((*made.warnings, *(vm.error for vm in made.vms if vm.error)))
        raise Unavailable(f"its machine does not run: {why or made.state.value}", code="operation_failed")
    return running


def is_gone(error: BoroughError) -> bool:
    """Tell whether an error says that there is no such machine, or that it does not run."""
    return isinstance(error, NotFound | Conflict) and error.code in {"vm_not_found", "vm_not_running", "vm_deleting"}


def is_unplaceable(error: BoroughError) -> bool:
    """Tell whether an error says that no place can take a machine."""
    return isinstance(error, Invalid) and error.code == "unschedulable"

"""One attempt in its machine: made, filled, started, followed, collected."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from borough.core.clock import utc_now
from borough.core.errors import BoroughError
from borough.core.ids import new_id
from borough.fleet.vms import Vm, VmState
from borough.governance.agents import GovernedAgent
from borough.runs import supervisor
from borough.runs.admission import Start, reserved_elsewhere
from borough.runs.orders import SourceKind
from borough.runs.patches import changes, patch
from borough.runs.ports import Made
from borough.runs.runs import Attempt, Machine, Result, Run, moved
from borough.runs.services.agents import key_name, read_manifest
from borough.runs.services.machines import INSIDE_URL, is_gone, is_unplaceable, machine_of
from borough.runs.services.parts import RunParts
from borough.runs.services.tasks import lease_of
from borough.runs.states import RunState

LOST_AFTER_S: Final = 30.0
"""How long a machine that does not answer is believed to be there; one that its host knows to be gone is not."""
LOOK_AGAIN_S: Final = 0.3
OVERDUE_GRACE_S: Final = 30
SETTLES_S: Final = 0.02
SETTLES_WITHIN: Final = 50
"""How often is looked for what the script writes a moment later."""
MOST_ANSWER_BYTES: Final = 64 << 10
_TAIL_BYTES: Final = 64 << 10
CLONE_S: Final = 600.0


OURS: Final = frozenset(
    {
        "disk_failed",
        "store_unavailable",
        "ledger_unavailable",
        "fleet_starting",
        "fleet_not_ready",
        "fleet_unreachable",
        "stale_run",
    }
)
"""Codes of what is wrong with this server and not with the attempt: it is tried again until it is mended."""


class AttemptFailed(Exception):
    """This attempt came to nothing; ``final``: the next would too."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.final = final


@dataclass(frozen=True, slots=True)
class Registering:
    """The agent of an attempt on its way."""

    registered: "asyncio.Future[GovernedAgent]"
    """Done when it is in the register."""
    recorded: "asyncio.Future[None]"
    """Done when the ledger has the attempt too."""


class Refused(Exception):
    """No place can take the machine, or nobody may have the agent started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptService:
    """What is done for an attempt. Each step may be done again: what was done already is found done."""

    parts: RunParts

    # -- before --------------------------------------------------------------------------------------------------------

    async def prepare(self, run: Run, attempt: Attempt, *, agent: Registering, is_new: bool) -> Run:
        """Make the machine, bring the files in, start the command once the agent is registered too; return the run
        as working. ``is_new``: nobody can have begun anything of this attempt.

        Raises:
            AttemptFailed: something of it cannot be done.
            Refused: no place can take the machine.
        """
        try:
            machine = _found(attempt.machine, await self._made(run, attempt, agent))
            state = None
            if not is_new or run.order.source is not None:
                state = await self.parts.machines.state(machine, make_ready=True)
            if state is None or not state.is_started:
                await self._fill(run, machine)
                state = await self._start(run, machine, agent)
            else:
                run = await self._noted(run, machine, state.token_name)
        except BoroughError as error:
            if is_unplaceable(error):
                raise Refused(error.reason or error.message) from error
            if error.code in OURS:
                raise
            if attempt.machine.start is Start.WARM and is_gone(error):
                return await self._cold_after_all(run, attempt, _told(error))
            raise AttemptFailed(_told(error)) from error
        return await self._works(run, state)

    async def _cold_after_all(self, run: Run, attempt: Attempt, why: str) -> Run:
        """Have a machine made instead of a ready one that has ended before anything was started in it."""
        await self.parts.machines.drop(attempt.machine)
        engine = attempt.machine.engine
        other = machine_of(run, number=attempt.number, epoch=attempt.epoch, engine=engine)

        def instead(before: Run) -> Run:
            now = replace(before.attempt or attempt, machine=other, token_name="")
            return replace(before, attempt=now, admission=self.parts.expected(before.admission, Start.COLD))

        message = f"the machine that stood ready is gone, another is made: {why}"
        return await self.parts.change(run.id, instead, event="run.machine", message=message)

    async def _made(self, run: Run, attempt: Attempt, agent: Registering) -> Vm:
        """Make the machine, unless it turns out meanwhile that the agent cannot be registered."""
        registering = agent.recorded

        async def reserved(begun: Made) -> None:
            await self._reserved(run, begun)

        manifest = read_manifest(run.manifest)
        making = asyncio.ensure_future(self.parts.machines.make(run, attempt, manifest, reserved=reserved))
        try:
            both: set[asyncio.Future[Any]] = {making, registering}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not making.done():  # then it is registered, or that has failed
                await registering
            return await making
        finally:
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)

    async def _reserved(self, run: Run, begun: Made) -> None:
        """Let the run's record say which place it got, where that is another than admission saw a moment before."""
        host_id = begun.vms[0].host_id if begun.vms else None
        if host_id != run.admission.host_id:
            message = f"its place is on {host_id}" if host_id else "others were faster: it waits for room"
            await self.parts.change(
                run.id,
                lambda before: replace(before, admission=reserved_elsewhere(before.admission, host_id, begun.warnings)),
                event="run.reserved",
                message=message,
            )
        self.parts.reservations.settle(run.id)

    async def _noted(self, run: Run, machine: Machine, token_name: str | None) -> Run:
        """Write down where the attempt is worked, and which key is its own."""

        def note(before: Run) -> Run:
            if before.attempt is None:
                return before
            name = token_name or before.attempt.token_name
            return replace(before, attempt=replace(before.attempt, machine=machine, token_name=name))

        message = f"its machine {machine.vm_id} runs on {machine.host_id}"
        return await self.parts.change(run.id, note, event="run.machine", message=message)

    async def _fill(self, run: Run, machine: Machine) -> None:
        source = run.order.source
        if source is None:
            return
        if source.kind is SourceKind.GIT:
            cloned = await self.parts.machines.run(
                machine, supervisor.clone_argv(source.url or "", source.ref), timeout_s=CLONE_S
            )
            if cloned.code:
                why = cloned.stderr.decode(errors="replace").strip()[-300:]
                raise AttemptFailed(f"{source.url} cannot be cloned: {why}", final=True)
        else:
            await self.parts.machines.put(machine, supervisor.WORKSPACE, self.parts.files.source(run.id))
        await self.parts.files.keep_before(run.id, self.parts.machines.fetch(machine, supervisor.WORKSPACE))

    async def _start(self, run: Run, machine: Machine, agent: Registering) -> supervisor.Inside:
        """Start the command with a new key, once all that it needs is on disk; where an earlier start won after all, it
        is that one's key that holds.
        """
        attempt = run.attempt
        if attempt is None:
            raise AttemptFailed("it has no attempt")
        before = attempt.token_name
        if before:
            await self.parts.agents.revoke(run, before)
        name = key_name(run, attempt.number, attempt.epoch, new_id()[:8])
        await agent.registered
        key, _, _ = await asyncio.gather(
            self._key(run, machine, name), self.parts.agents.settle(run, machine.vm_id), agent.recorded
        )
        server = INSIDE_URL if run.admission.tools else None
        env = supervisor.environment_of(
            run.order.task, run_id=run.id, agent_id=run.agent.id, attempt=attempt.number, key=key, server=server
        )
        manifest = read_manifest(run.manifest)
        program = manifest.program
        command = run.order.command or tuple(part for part in (program.command, *program.args) if part)
        argv = supervisor.start_argv(command, token_name=name, timeout_s=run.order.timeout_s)
        started = await self.parts.machines.run(machine, argv, env={**program.env, **env})
        state = supervisor.read_state(started.stdout.decode(errors="replace"))
        if started.code or not state.is_started:
            raise AttemptFailed(f"its command cannot be started: {started.stderr.decode(errors='replace')[:300]}")
        if state.token_name != name and state.token_name:
            await self.parts.agents.revoke(run, name)
        return state

    async def _key(self, run: Run, machine: Machine, name: str) -> str:
        """Return the key of this name; the name is written down before there is such a key."""
        await self._noted(run, machine, name)
        return await self.parts.agents.new_key(run, name, until=utc_now() + lease_of(run))

    async def _works(self, run: Run, state: supervisor.Inside) -> Run:
        now = utc_now()

        def works(before: Run) -> Run:
            if before.attempt is None or before.state is not RunState.PREPARING:
                return before
            attempt = replace(before.attempt, working_at=now, token_name=state.token_name or before.attempt.token_name)
            return moved(replace(before, attempt=attempt), RunState.WORKING, at=now)

        run = await self.parts.change(run.id, works, event="run.working", message="its command runs")
        self._note_start(run, now)
        if run.attempt is not None:
            self.parts.agents.keys.let(run.attempt.token_name, until=now + lease_of(run))
        return run

    def _note_start(self, run: Run, now: datetime) -> None:
        """Take a first start that nothing kept waiting into what is expected of the next."""
        attempt = run.attempt
        first = run.tries == 1 and not run.past and run.order.source is None and run.admission.host_id is not None
        if attempt is not None and first and attempt.working_at == now:
            took_ms = round((now - run.created_at).total_seconds() * 1000)
            self.parts.starts.note(attempt.machine.engine, attempt.machine.start, took_ms)

    # -- meanwhile -----------------------------------------------------------------------------------------------------

    async def follow(self, run: Run, machine: Machine) -> None:
        """Bring out what the command prints, until it has ended.

        Raises:
            AttemptFailed: the machine is gone, or the command is without having ended; or it took too long (final).
        """
        attempt = run.attempt
        began = (attempt.working_at if attempt else None) or run.since
        left = (began + timedelta(seconds=run.order.timeout_s + OVERDUE_GRACE_S) - utc_now()).total_seconds()
        try:
            async with asyncio.timeout(max(0.0, left)):
                state = await self._until_ended(run, machine)
        except TimeoutError:
            raise AttemptFailed(f"it took longer than {run.order.timeout_s} s", final=True) from None
        if state.is_lost or not state.is_started:
            raise AttemptFailed("its command is gone, and nobody knows how it ended")

    async def _until_ended(self, run: Run, machine: Machine) -> supervisor.Inside:
        unheard_since: float | None = None
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._bring_log(run, machine, follow=True)
                state = await self.parts.machines.state(machine)
            except BoroughError as error:
                unheard_since = loop.time() if unheard_since is None else unheard_since
                await self._check_there(machine, error, silent_s=loop.time() - unheard_since)
                await asyncio.sleep(LOOK_AGAIN_S)
                continue
            unheard_since = None
            if not state.alive:
                state = await self._settled(machine, state)
            if not state.alive or state.exit_code is not None:
                return state
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _settled(self, machine: Machine, state: supervisor.Inside) -> supervisor.Inside:
        """Return how the command ended; its exit code is written a moment after it is gone."""
        for _ in range(SETTLES_WITHIN):
            if state.exit_code is not None or state.alive:
                return state
            await asyncio.sleep(SETTLES_S)
            state = await self.parts.machines.state(machine)
        return state

    async def _check_there(self, machine: Machine, error: BoroughError, *, silent_s: float) -> None:
        """Let pass what may be over soon; raises ``AttemptFailed`` for what is not."""
        if error.code in OURS:
            return  # ours, not the machine's
        found = await self.parts.machines.find(machine)
        if found is not None and found.state is VmState.PAUSED:
            return  # somebody froze it, and it goes on when they let it
        if is_gone(error):
            raise AttemptFailed(f"its machine is gone: {_told(error)}") from error
        if found is None or found.state in (VmState.FAILED, VmState.STOPPED, VmState.DELETING):
            why = "" if found is None else f" ({found.error or found.state.value})"
            raise AttemptFailed(f"its machine is gone{why}") from error
        if silent_s >= LOST_AFTER_S:
            raise AttemptFailed(f"its machine has not answered for {LOST_AFTER_S:g} s: {_told(error)}") from error

    async def _bring_log(self, run: Run, machine: Machine, *, follow: bool) -> None:
        number = 0 if run.attempt is None else run.attempt.number
        size = await self.parts.files.log_size(run.id, number)
        argv = supervisor.follow_argv(size) if follow else supervisor.rest_argv(size)
        async with aclosing(self.parts.machines.prints(machine, argv)) as parts:
            async for part in parts:
                await self.parts.files.append_log(run.id, number, part)
                self.parts.bells.ring(run.id)

    # -- after ---------------------------------------------------------------------------------------------------------

    async def collect(self, run: Run, machine: Machine) -> Result:
        """Bring out how the command ended, its answer and the files that it changed.

        Raises:
            AttemptFailed: it cannot be brought out.
        """
        try:
            state = await self.parts.machines.state(machine)
            await self._bring_log(run, machine, follow=False)
            if state.overdue:
                raise AttemptFailed(f"it took longer than {run.order.timeout_s} s", final=True)
            answer = await self.parts.machines.text(machine, supervisor.ANSWER_FILE, most=MOST_ANSWER_BYTES)
            await self.parts.files.keep_after(run.id, self.parts.machines.fetch(machine, supervisor.WORKSPACE))
        except BoroughError as error:
            if error.code in OURS:
                raise
            raise AttemptFailed(f"its result cannot be brought out: {_told(error)}") from error
        before, after = await self.parts.files.differing(run.id)
        changed = changes(before, after)
        size = await self.parts.files.keep_patch(run.id, await asyncio.to_thread(patch, before, after))
        told = answer.strip() if answer is not None else await self._last_line(run)
        return Result(answer=told, exit_code=state.exit_code, files_changed=changed, patch_bytes=size)

    async def _last_line(self, run: Run) -> str:
        number = 0 if run.attempt is None else run.attempt.number
        size = await self.parts.files.log_size(run.id, number)
        tail = await self.parts.files.read_log(run.id, number, offset=max(0, size - _TAIL_BYTES), limit=_TAIL_BYTES)
        lines = [line.strip() for line in tail.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else ""


def _found(machine: Machine, vm: Vm) -> Machine:
    return replace(machine, vm_id=vm.id, host_id=vm.host_id, state=vm.state.value)


def _told(error: BoroughError) -> str:
    return f"{error.message}: {error.reason}" if error.reason else error.message

"""One attempt on its way to work: its machine is made and filled, its command started."""

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from borough.core.clock import utc_now
from borough.core.errors import BoroughError
from borough.core.ids import new_id
from borough.fleet.vms import Vm
from borough.governance.agents import GovernedAgent
from borough.runs import supervisor
from borough.runs.admission import Start, reserved_elsewhere
from borough.runs.orders import SourceKind
from borough.runs.ports import Made
from borough.runs.runs import Attempt, Machine, Run, moved
from borough.runs.services.agents import key_name, read_manifest
from borough.runs.services.attempts import OURS, AttemptFailed, told_of
from borough.runs.services.machines import INSIDE_URL, is_gone, is_unplaceable, machine_of
from borough.runs.services.parts import RunParts
from borough.runs.services.tasks import lease_of
from borough.runs.states import RunState

CLONE_S: Final = 600.0


class Refused(Exception):
    """No place can take the machine, or nobody may have the agent started."""


@dataclass(frozen=True, slots=True)
class Registering:
    """The agent of an attempt on its way."""

    registered: "asyncio.Future[GovernedAgent]"
    """Done when it is in the register."""
    recorded: "asyncio.Future[None]"
    """Done when the ledger has the attempt too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """What is done before an attempt works. Each step may be done again: what was done already is found done."""

    parts: RunParts

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
                return await self._cold_after_all(run, attempt, told_of(error))
            raise AttemptFailed(told_of(error)) from error
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


def _found(machine: Machine, vm: Vm) -> Machine:
    return replace(machine, vm_id=vm.id, host_id=vm.host_id, state=vm.state.value)

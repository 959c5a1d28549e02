"""A run on its way from step to step: what is due follows from its row alone, so any server can go on with it."""

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import structlog

from borough.core.clock import utc_now
from borough.core.errors import Conflict, Forbidden, Invalid, Unavailable
from borough.fleet.engines import Engine
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.runs.runs import Attempt, Machine, Result, Run, moved, with_attempt
from borough.runs.services.attempts import AttemptFailed, AttemptService
from borough.runs.services.ending import RunEnds
from borough.runs.services.machines import machine_of
from borough.runs.services.parts import RunParts
from borough.runs.services.preparing import Preparation, Refused, Registering
from borough.runs.services.tasks import lease_of
from borough.runs.states import RunState
from borough.town.tasks import Task

log = structlog.get_logger(__name__)

BEAT_EVERY_S: Final = 20.0
AGAIN_AFTER_S: Final = 1.0
TAKE_AGAIN_S: Final = 0.1
TRY_AGAIN_LATER: Final = 75
"""The exit code by which a command says that another attempt may go well (EX_TEMPFAIL of sysexits.h)."""
KILLED: Final = 128 + 9
"""The exit code of a command that was killed: by whoever, it is no word of the command's own."""


@dataclass(slots=True, kw_only=True)
class Driver:
    """Brings one run to its end and clears up after it. What it remembers only spares it from asking again."""

    parts: RunParts
    preparation: Preparation
    attempts: AttemptService
    ends: RunEnds
    run_id: str
    _leased: int | None = None
    """The epoch of a lease that was taken here just now: nobody can have begun anything under it."""
    _spawning: "asyncio.Future[GovernedAgent] | None" = None

    async def drive(self) -> None:
        """Return when nothing is left to be done, or when the run waits for somebody."""
        try:
            await self._drive()
        finally:
            self.parts.reservations.settle(self.run_id)
            await self._forget_spawning()

    async def _drive(self) -> None:
        while True:
            run = await self.parts.store.get(self.run_id)
            try:
                if run.is_over:
                    await self.ends.clean(run)
                    return
                if not await self._step(run):
                    return
            except Unavailable as error:
                log.warning("run.waits", run=self.run_id, error=error.message, code=error.code)
                await asyncio.sleep(AGAIN_AFTER_S)

    async def _step(self, run: Run) -> bool:
        """Do what is due; return whether there is more to be done now."""
        if run.wish is not None:
            await self.ends.end_as_wished(run, run.wish)
            return True
        try:
            if run.state is RunState.ADMITTED:
                return await self._begin(run)
            await self._while_held(run)
        except AttemptFailed as failure:
            await self.ends.attempt_failed(run, failure.reason, final=failure.final)
        except Refused as refusal:
            await self.ends.refuse(run, str(refusal))
        return True

    # -- steps ---------------------------------------------------------------------------------------------------------

    async def _begin(self, run: Run) -> bool:
        if not run.has_source:
            return False
        self._spawning = self._spawned(run)  # beside what follows: neither needs the other
        await self.parts.tasks.give(run)
        task = await self._taken(run)
        if task is None:
            await asyncio.sleep(TAKE_AGAIN_S)
        else:
            await self._next_attempt(run, task)
        return True

    async def _while_held(self, run: Run) -> None:
        """Do the step of a run that is under way, as long as its attempt holds its lease."""
        step = asyncio.ensure_future(self._held_step(run))
        lost = asyncio.ensure_future(self._until_lost(run))
        try:
            await asyncio.wait({step, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not step.done():
                step.cancel()
                await asyncio.gather(step, return_exceptions=True)
                raise AttemptFailed(lost.result())
            await step
        finally:
            for task in (step, lost):
                task.cancel()
            await asyncio.gather(step, lost, return_exceptions=True)

    async def _held_step(self, run: Run) -> None:
        match run.state:
            case RunState.PREPARING:
                await self._prepare(run)
            case RunState.WORKING:
                await self._work(run)
            case RunState.WAITING:
                await self._wait(run)
            case RunState.COLLECTING:
                await self._collect(run)
            case _:
                raise RuntimeError(f"a run that is {run.state.value} has no step")

    async def _until_lost(self, run: Run) -> str:
        """Keep the lease; return why it is lost when it is."""
        while True:
            await asyncio.sleep(BEAT_EVERY_S)
            if run.attempt is not None and run.attempt.ended_at is None:
                try:
                    if not await self.parts.tasks.beat(run):
                        return "its lease was taken from it"
                    self.parts.agents.keys.let(run.attempt.token_name, until=_lease_end(run))
                except Unavailable as error:
                    log.warning("run.lease_not_renewed", run=run.id, error=error.message)

    async def _taken(self, run: Run) -> Task | None:
        """Return the run's task, leased; ``None``: its pause is not over."""
        try:
            return await self.parts.tasks.take(run)
        except Conflict as error:
            raise AttemptFailed(error.reason or error.message, final=True) from error

    async def _prepare(self, run: Run) -> None:
        attempt, leased = run.attempt, self._leased
        self._leased = None
        is_new = attempt is not None and attempt.epoch == leased
        if attempt is None or not is_new:
            task = await self._taken(run)
            if task is None:
                await asyncio.sleep(TAKE_AGAIN_S)
                return
            if attempt is None or attempt.epoch != task.epoch or attempt.ended_at is not None:
                await self._next_attempt(run, task)
                return
        agent = Registering(self._spawned(run), asyncio.ensure_future(self._record(run, attempt)))
        try:
            await self.preparation.prepare(run, attempt, agent=agent, is_new=is_new)
        finally:
            agent.recorded.cancel()
            await asyncio.gather(agent.recorded, return_exceptions=True)
            await self._forget_spawning()

    def _spawned(self, run: Run) -> "asyncio.Future[GovernedAgent]":
        """Return the run's agent as it is being registered; begun once."""
        if self._spawning is None:
            self._spawning = asyncio.ensure_future(self._spawn(run))
        return self._spawning

    async def _spawn(self, run: Run) -> GovernedAgent:
        try:
            return await self.parts.agents.spawn(run)
        except (Forbidden, Invalid, Conflict) as error:
            raise Refused(error.reason or error.message) from error

    async def _forget_spawning(self) -> None:
        if self._spawning is not None:
            self._spawning.cancel()
            await asyncio.gather(self._spawning, return_exceptions=True)
            self._spawning = None

    async def _record(self, run: Run, attempt: Attempt) -> None:
        """See to it that the ledger has the admission and this attempt."""
        agent = await asyncio.shield(self._spawned(run))
        if attempt.number == run.earlier_attempts + 1:
            data = {"manifest_digest": agent.manifest_digest, "image": run.order.image, "by": run.created_by}
            data |= {"isolation": run.admission.isolation.value, "image_digest": run.admission.image_digest or ""}
            data |= {"start": attempt.machine.start.value}
            await self.parts.agents.record(run, Action.RUN_ADMIT, f"{run.name} for {agent.name}", data=data)
        await self.parts.agents.record(run, Action.RUN_ATTEMPT, f"attempt {attempt.number} of {run.name}")

    async def _next_attempt(self, run: Run, task: Task) -> None:
        number = run.earlier_attempts + task.attempts
        engine = run.admission.engine or Engine.BUBBLEWRAP
        ready = await self.parts.machines.take_ready(run, number=number, epoch=task.epoch)
        machine = ready or machine_of(run, number=number, epoch=task.epoch, engine=engine)
        attempt = Attempt(number=number, epoch=task.epoch, machine=machine, token_name="", begun_at=utc_now())

        def begins(before: Run) -> Run:
            before = replace(before, admission=self.parts.expected(before.admission, machine.start))
            return moved(with_attempt(before, attempt), RunState.PREPARING, at=utc_now(), reason=before.reason)

        message = f"attempt {number} begins" + (" in a machine that stood ready" if ready is not None else "")
        await self.parts.change(run.id, begins, event="run.preparing", message=message)
        self._leased = task.epoch
        if ready is not None:
            self.parts.reservations.settle(run.id)

    async def _work(self, run: Run) -> None:
        machine = _machine(run)
        following = asyncio.ensure_future(self.attempts.follow(run, machine))
        asking = asyncio.ensure_future(self.parts.asking.becomes(run.agent.id, asking=True))
        try:
            await asyncio.wait({following, asking}, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                await following
                await self._move(run, RunState.COLLECTING, event="run.collecting", message="its command has ended")
                return
        finally:
            for task in (following, asking):
                task.cancel()
            await asyncio.gather(following, asking, return_exceptions=True)
        frozen = await self.parts.machines.pause(machine)
        if frozen:
            await self.parts.note_machine(run, "paused")
        told = "it waits for somebody to agree" + ("; its machine is frozen" if frozen else "")
        await self._move(run, RunState.WAITING, event="run.waiting", message=told, reason=told)

    async def _wait(self, run: Run) -> None:
        await self.parts.asking.becomes(run.agent.id, asking=False)
        await self.parts.machines.resume(_machine(run))
        await self.parts.note_machine(run, "running")
        await self._move(run, RunState.WORKING, event="run.working", message="it was decided; it goes on")

    async def _collect(self, run: Run) -> None:
        result = run.result or await self.attempts.collect(run, _machine(run))
        if run.result is None:
            run = await self.parts.change(
                run.id, lambda before: replace(before, result=result), event="run.collected", message="it is collected"
            )
        if result.exit_code != 0:
            again = result.exit_code in (TRY_AGAIN_LATER, KILLED)
            raise AttemptFailed(_told_of(result), final=not again)
        try:
            await self.parts.tasks.complete(run, result.answer)
        except Conflict as error:
            raise AttemptFailed(f"its result came too late: {error.message}") from error
        await self.ends.end(run, RunState.SUCCEEDED, None)

    async def _move(self, run: Run, to: RunState, *, event: str, message: str, reason: str | None = None) -> Run:
        return await self.parts.change(
            run.id,
            lambda before: before if before.is_over else moved(before, to, at=utc_now(), reason=reason),
            event=event,
            message=message,
        )


def _machine(run: Run) -> Machine:
    if run.attempt is None:
        raise AttemptFailed("it has no attempt")
    return run.attempt.machine


def _lease_end(run: Run) -> datetime:
    return utc_now() + lease_of(run)


def _told_of(result: Result) -> str:
    code = "nobody knows how" if result.exit_code is None else f"with exit code {result.exit_code}"
    return f"its command ended {code}" + (f": {result.answer[:300]}" if result.answer else "")

"""How attempts and runs end, and what is cleared away once a run is over."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from borough.core.clock import utc_now
from borough.governance.actions import Action
from borough.governance.ledger import Outcome
from borough.runs.runs import Attempt, Run, Wish, attempt_ended, moved
from borough.runs.services.parts import RunParts
from borough.runs.states import RunState

_ENDS: Final = {
    Wish.CANCEL: (RunState.CANCELLED, "cancelled"),
    Wish.KILL: (RunState.KILLED, "killed"),
    Wish.QUARANTINE: (RunState.KILLED, "quarantined"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnds:
    """Each end may be reached again: what was done already is found done."""

    parts: RunParts

    async def attempt_failed(self, run: Run, reason: str, *, final: bool) -> None:
        """End an attempt; the next one has a fresh machine, if there is a next one."""
        run = await self.parts.store.get(run.id)
        if run.is_over:
            return
        goes_on = await self.parts.tasks.fail(run, reason, final=final)
        if not await self.parts.agents.is_live(run):
            goes_on, reason = False, f"{reason}; its agent was ended"
        if not goes_on:
            await self.parts.tasks.end(run, reason, by=run.name)
            await self.end(run, RunState.FAILED, reason, "look at its log, then try it again: borough retry")
            return
        if run.attempt is not None:
            await self.parts.agents.revoke(run, run.attempt.token_name)
            await self.parts.machines.drop(run.attempt.machine)

        def again(before: Run) -> Run:
            ended = attempt_ended(replace(before, result=None), reason, at=utc_now())
            return moved(ended, RunState.PREPARING, at=utc_now(), reason=reason)

        await self.parts.change(run.id, again, event="run.attempt_failed", message=f"its attempt failed: {reason}")

    async def refuse(self, run: Run, reason: str) -> None:
        """End a run for which there is no place, or whose agent nobody may have started."""
        await self.parts.tasks.end(run, reason, by=run.name)
        await self.end(run, RunState.REFUSED, reason, "make room or a place for it, then try it again: borough retry")

    async def end_as_wished(self, run: Run, wish: Wish) -> None:
        """End a run as somebody asked for."""
        to, word = _ENDS[wish]
        reason = f"{word} by {run.wished_by or 'an operator'}" + (f": {run.wish_reason}" if run.wish_reason else "")
        if run.attempt is not None:
            self.parts.agents.keys.drop(run.attempt.token_name)
        await self.parts.tasks.end(run, reason, by=run.wished_by or "operator")
        await self.end(run, to, reason, "it can be tried again: borough retry", quarantined=wish is Wish.QUARANTINE)

    async def end(
        self, run: Run, to: RunState, reason: str | None, resolution: str | None = None, *, quarantined: bool = False
    ) -> None:
        """Bring a run to an end, once the ledger has it; ``quarantined``: its last machine is kept."""
        told = (reason or f"it {to.value}")[:500]
        now = utc_now()
        began = run.started_at or now
        spent = await self.parts.agents.spent(run, wall_s=max(0, round((now - began).total_seconds())))
        outcome = Outcome.SUCCESS if to is RunState.SUCCEEDED else Outcome.FAILURE
        data = {"ends": to.value, "tokens": spent.tokens, "cost_micros": spent.cost_micros, "calls": spent.tool_calls}
        await self.parts.agents.record(run, Action.RUN_END, told, outcome=outcome, data=data)

        def ends(before: Run) -> Run:
            if before.is_over:
                return before
            over = attempt_ended(replace(before, spent=spent, quarantined=quarantined), told, at=now)
            return moved(over, to, at=now, reason=reason, resolution=resolution)

        await self.parts.change(run.id, ends, event=f"run.{to.value}", message=told)

    async def clean(self, run: Run) -> None:
        """Take away what is left of a run that is over: keys, agent, machines, worker."""
        if run.is_clean:
            return
        attempts = (*run.past, *((run.attempt,) if run.attempt is not None else ()))
        for attempt in attempts:
            self.parts.agents.keys.drop(attempt.token_name)
        if run.attempt is not None:
            await self.parts.agents.revoke(run, run.attempt.token_name)
        # Its room is what others wait for: the machines go while the rest is told.
        done = await asyncio.gather(self._dismiss(run), self._remove_machines(run, attempts), return_exceptions=True)
        for failure in done:
            if failure is not None:  # raised when neither is under way any more
                raise failure
        await self.parts.change(
            run.id, lambda before: replace(before, is_clean=True), event="run.clean", message="nothing of it is left"
        )

    async def _dismiss(self, run: Run) -> None:
        """End the run's agent, and let its worker go."""
        await self.parts.agents.conclude(
            run,
            detail=f"{run.name} is {run.state.value}",
            exit_code=None if run.result is None else run.result.exit_code,
            asked_for=run.state in (RunState.CANCELLED, RunState.KILLED),
        )
        await self.parts.tasks.leave(run)

    async def _remove_machines(self, run: Run, attempts: Sequence[Attempt]) -> None:
        """Have all machines of a run removed; in quarantine the last is kept, frozen."""
        for attempt in attempts:
            if run.quarantined and attempt == run.attempt:
                if await self.parts.machines.pause(attempt.machine):
                    await self.parts.note_machine(run, "paused")
            else:
                await self.parts.machines.remove(attempt.machine)
        kept = run.attempt.machine.env_id if run.quarantined and run.attempt is not None else None
        await self.parts.machines.remove_taken(run, but=kept)

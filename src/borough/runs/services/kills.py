"""Kill and quarantine, each as one act: no key, no machine, no lease; what is left is kept as evidence."""

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from borough.core.clock import utc_now
from borough.core.errors import BoroughError, NotFound
from borough.governance.actions import Action
from borough.runs.runs import Run, Wish
from borough.runs.services.agent_kills import AgentKills, Held
from borough.runs.services.keeping import RunKeeper
from borough.runs.services.parts import RunParts
from borough.runs.services.runs import RunService, check_not_over

KEPT_FOR_S: Final = 6 * 3600
"""How long a machine stays frozen for whoever looks into it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """What a kill did."""

    target: str
    powerless_at: datetime
    took_ms: float
    done: tuple[str, ...]


class KillService:
    """Takes all power from a run or an agent."""

    def __init__(self, parts: RunParts, runs: RunService, keeper: RunKeeper, *, agents: AgentKills) -> None:
        self._parts = parts
        self._runs = runs
        self._keeper = keeper
        self._agents = agents

    async def kill(self, target: str, *, quarantine: bool, reason: str, by: str) -> Killed:
        """Return when the target can do nothing any more; what is left of it is cleared away afterwards.

        Raises:
            NotFound: there is no run and no agent of that name (``target_not_found``).
            Conflict: it is over (``run_over``), or more than one is meant (``agent_ambiguous``).
            Unavailable: it could not be recorded (``ledger_unavailable``): what was revoked stays revoked.
        """
        run = await self._run(target)
        if run is not None:
            return await self._kill_run(run, quarantine=quarantine, reason=reason, by=by)
        held = await self._agents.find(target)
        if held.governed is not None:
            run = await self._parts.store.of_agent(held.governed.id)
            if run is not None and not run.is_over:
                return await self._kill_run(run, quarantine=quarantine, reason=reason, by=by)
        if held.governed is None and held.worker is None:
            raise _unknown(target)
        return await self._kill_agent(held, target, quarantine=quarantine, reason=reason, by=by)

    async def _run(self, target: str) -> Run | None:
        try:
            return await self._parts.store.get(target)
        except NotFound:
            return await self._parts.store.of_agent(target)

    async def _kill_run(self, run: Run, *, quarantine: bool, reason: str, by: str) -> Killed:
        began = time.monotonic()
        check_not_over(run)
        if run.attempt is not None:
            self._parts.agents.keys.drop(run.attempt.token_name)
        word = "quarantine" if quarantine else "kill"
        async with self._parts.agents.act(run, Action.RUN_KILL, f"{word} {run.name}: {reason}"[:500], by=by) as act:
            run = await self._runs.wish(run, Wish.QUARANTINE if quarantine else Wish.KILL, reason=reason, by=by)
            await self._keeper.interrupt(run.id)
            try:
                done = ("token_revoked", *await self._take_all(run, quarantine=quarantine, reason=reason, by=by))
            finally:
                self._keeper.wake(run.id)
            took_ms = (time.monotonic() - began) * 1000
            at = utc_now()
            act.data |= {"done": list(done), "took_ms": round(took_ms)}
        return Killed(target=run.id, powerless_at=at, took_ms=round(took_ms, 3), done=done)

    async def _take_all(self, run: Run, *, quarantine: bool, reason: str, by: str) -> list[str]:
        """Fence the lease and stop the machine at once; return what was done."""
        fenced, stopped = await asyncio.gather(
            self._parts.tasks.end(run, f"held: {reason or 'killed'}", by=by),
            self._stop_machine(run, quarantine=quarantine),
            return_exceptions=True,
        )
        if isinstance(fenced, BaseException):
            raise fenced
        if isinstance(stopped, BaseException):
            # It has no key and no lease; its machine goes as soon as its host answers.
            if not isinstance(stopped, BoroughError):
                raise stopped
            return ["lease_fenced", "task_held"]
        return [*stopped, "lease_fenced", "task_held"]

    async def _stop_machine(self, run: Run, *, quarantine: bool) -> list[str]:
        if run.attempt is None:
            return []
        machine = run.attempt.machine
        frozen = await self._parts.machines.pause(machine)
        if quarantine:
            if frozen:
                await self._parts.machines.keep(machine, lifetime_s=KEPT_FOR_S)
                return ["machine_frozen"]
            return []
        await self._parts.machines.drop(machine)
        return ["machine_frozen", "machine_destroyed"] if frozen else ["machine_destroyed"]

    async def _kill_agent(self, held: Held, target: str, *, quarantine: bool, reason: str, by: str) -> Killed:
        began = time.monotonic()
        done = await self._agents.end(held, quarantine=quarantine, reason=reason, by=by)
        took_ms = (time.monotonic() - began) * 1000
        name = held.governed.id if held.governed is not None else target
        return Killed(target=name, powerless_at=utc_now(), took_ms=round(took_ms, 3), done=done)


def _unknown(target: str) -> NotFound:
    return NotFound(
        f"there is neither a run nor an agent {target[:80]!r}",
        code="target_not_found",
        resolution="list them: borough runs, ash list, tt list",
    )

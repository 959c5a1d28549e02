"""Kill and quarantine of agents that are no run's: keys, process, lease and task, each named in what was done."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from borough.core.errors import Conflict, NotFound
from borough.core.ids import AgentId, new_id
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.canonical import Json
from borough.governance.services.agents import AgentService
from borough.governance.services.asking import Asker, daemon
from borough.governance.services.recording import Recorder
from borough.governance.services.tokens import TokenService
from borough.town.agents import Agent
from borough.town.ports.tasks import Tasks
from borough.town.services.agents import AgentService as TownAgents

Withdraw = Callable[[AgentId], Awaitable[None]]
"""Takes back whatever an agent waits for somebody's agreement to: nothing is done for it afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Who is meant, in either context."""

    governed: GovernedAgent | None
    worker: Agent | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentKills:
    """Takes all power from agents of governance and of the town."""

    agents: AgentService
    tokens: TokenService
    recorder: Recorder
    withdraw: Withdraw
    town: TownAgents
    tasks: Tasks

    async def find(self, target: str) -> Held:
        """Return who is meant by an id or a name.

        Raises:
            Conflict: more than one may be (``agent_ambiguous``).
        """
        living = await self.agents.listing(daemon(f"kill:{new_id()}"))
        found = [one for one in living if one.id == target] or [one for one in living if one.name == target]
        if len(found) > 1:
            raise Conflict(
                f"{target[:80]} could be any of {len(found)} agents",
                code="agent_ambiguous",
                reason=", ".join(one.id for one in found),
                resolution="name it by its id",
            )
        try:
            worker = await self.town.get(target)
        except NotFound:
            worker = None
        return Held(governed=found[0] if found else None, worker=worker)

    async def end(self, held: Held, *, quarantine: bool, reason: str, by: str) -> tuple[str, ...]:
        """Return what was done, once neither can do anything any more; intent and outcome are in the ledger.

        Raises:
            Unavailable: it could not be recorded (``ledger_unavailable``): nothing was done.
        """
        asker = daemon(f"kill:{new_id()}")
        name = held.governed.name if held.governed is not None else held.worker.name if held.worker is not None else ""
        word = "quarantine" if quarantine else "kill"
        told: dict[str, Json] = {"by": by, "agent": name, "quarantine": quarantine}
        if held.worker is not None:
            told |= {"worker": held.worker.id, "task": held.worker.current_task}
        detail = f"{word} {name}: {reason}"[:500]
        async with self.recorder.act(asker, Action.RUN_KILL, detail=detail, target=held.governed, data=told) as act:
            done: list[str] = []
            if held.governed is not None:
                done += await self._end_governed(asker, held.governed, quarantine=quarantine)
            if held.worker is not None:
                done += await self._end_worker(held.worker, quarantine=quarantine, reason=reason, by=by)
            act.data |= {"done": [*done]}
        return tuple(dict.fromkeys(done))

    async def _end_governed(self, asker: Asker, agent: GovernedAgent, *, quarantine: bool) -> list[str]:
        """Take an agent's keys, and those of all that descend from it; end their processes, or freeze them."""
        family = await self._family(asker, agent)
        done = ["token_revoked"] if await self._revoke(asker, frozenset(one.id for one in family)) else []
        if not quarantine:
            await self.agents.kill(asker, agent.id)
            return [*done, "agent_ended"]
        for one in family:
            await self._freeze(asker, one)
        return [*done, "process_frozen"]

    async def _freeze(self, asker: Asker, agent: GovernedAgent) -> None:
        try:
            await self.agents.pause(asker, agent.id)
        except Conflict:
            await self.agents.kill(asker, agent.id)  # it is being started or ended: there is nothing to be frozen yet
        await self.withdraw(agent.id)

    async def _family(self, asker: Asker, agent: GovernedAgent) -> Sequence[GovernedAgent]:
        living = await self.agents.listing(asker)
        family, ids = [agent], {agent.id}
        while below := [one for one in living if one.parent_id in ids and one.id not in ids]:
            family += below
            ids |= {one.id for one in below}
        return family

    async def _revoke(self, asker: Asker, ids: frozenset[AgentId]) -> bool:
        keys = [key for key in await self.tokens.all(asker) if key.agent_id in ids]
        for key in keys:
            try:
                await self.tokens.revoke(asker, key.name)
            except NotFound:
                continue  # somebody else was faster
        return bool(keys)

    async def _end_worker(self, worker: Agent, *, quarantine: bool, reason: str, by: str) -> list[str]:
        """Fence a worker's lease and end its process; in quarantine its task is held and its process frozen."""
        by_whom = f"{by}: {reason}" if reason else by
        done = ["lease_fenced"] if worker.current_task is not None else []
        if quarantine and await self._hold(worker, reason=reason, by=by):
            done.append("task_held")
        if not quarantine:
            await self.town.kill(worker.id, by=by_whom)
            requeued = ["task_requeued"] if worker.current_task is not None else []
            return [*done, *requeued, "worker_ended"]
        frozen = await self.town.quarantine(worker.id, by=by_whom)
        return [*done, "worker_frozen" if frozen else "worker_fenced"]

    async def _hold(self, worker: Agent, *, reason: str, by: str) -> bool:
        """Take the task of a worker out of everybody's hands, for whoever retries it."""
        if worker.current_task is None:
            return False
        try:
            await self.tasks.cancel(worker.current_task, reason=f"held: {reason or 'quarantined'}", by=by)
        except (Conflict, NotFound):
            return False  # it has ended meanwhile
        return True

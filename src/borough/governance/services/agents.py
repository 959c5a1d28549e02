"""Agents: started, looked at, moved, paused, ended. The ledger tells of each."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from hashlib import sha256

from borough.core.clock import utc_now
from borough.core.errors import Conflict, Forbidden, NotFound
from borough.core.ids import AgentId
from borough.governance.access import Standing, Verb
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.budgets import Spent
from borough.governance.canonical import Json
from borough.governance.courses import Course, new_run
from borough.governance.lifecycle import Exit, Mover, Phase, Status, change_status, move
from borough.governance.manifests import Manifest
from borough.governance.ports.confinement import AgentRunner, Enforcement
from borough.governance.ports.courses import Courses
from borough.governance.ports.register import Agents
from borough.governance.services.asking import Asker
from borough.governance.services.endings import LIVE, Ending, Endings, OnEnd, Processes, wall_time_s
from borough.governance.services.gate import Gate
from borough.governance.services.patience import LONGEST_WAIT_S, nobody_leaves, patiently
from borough.governance.services.preparing import Prepared, Preparer, SpawnOrder
from borough.governance.services.recording import Recorder
from borough.governance.services.starting import OnStart, Starter, check_runs
from borough.governance.services.supervision import Supervision
from borough.governance.services.turns import Chores, Turns
from borough.governance.tokens import Role

__all__ = ["AgentDetails", "AgentService", "SpawnOrder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDetails:
    """All that is known of one agent now."""

    agent: GovernedAgent
    manifest: Manifest
    course: Course
    spent: Spent
    """With the wall time of the present run."""
    enforcement: Enforcement | None
    """``None`` for an agent that ended before this daemon began."""
    has_process: bool
    pending_approvals: int


class AgentService:
    """The use cases around agents' lives."""

    def __init__(
        self,
        *,
        gate: Gate,
        agents: Agents,
        courses: Courses,
        recorder: Recorder,
        runner: AgentRunner,
        preparer: Preparer,
        starter: Starter,
        endings: Endings,
        supervision: Supervision,
        processes: Processes,
    ) -> None:
        self.on_start: list[OnStart] = starter.on_start
        """Called for each run once its process is there, before it is in ``Plan``."""
        self.on_end: list[OnEnd] = endings.on_end
        """Called for each run that ends, once it is in ``Terminate`` and nothing of it runs."""
        self.count_approvals: list[Callable[[AgentId], Awaitable[int]]] = []
        """Each tells how many requests for agreement wait for an agent."""
        self._gate = gate
        self._agents = agents
        self._courses = courses
        self._recorder = recorder
        self._runner = runner
        self._preparer = preparer
        self._starter = starter
        self._endings = endings
        self._supervision = supervision
        self._processes = processes
        self._turns = Turns()
        self._chores = Chores()

    # -- starting ------------------------------------------------------------------------------------------------------

    async def spawn(self, asker: Asker, order: SpawnOrder) -> GovernedAgent:
        """Start an agent and return it once it is in ``Plan``; the same one when the request is repeated.

        Raises:
            Forbidden: the caller may not: ``scope_missing``, ``denied``, ``not_related``; and what ``prepare`` raises.
            Invalid: the manifest is none; see ``prepare``.
            NotFound: the parent (``agent_not_found``), or what is to be run (``agent_not_installed``).
            Conflict: the parent has ended (``agent_not_running``).
            Unavailable: it could not be started (``start_failed``, ``enforcement_missing``); nothing is left of it.
        """
        agent_id = AgentId(asker.derived("agent"))
        if order.elsewhere:
            self._processes.elsewhere.add(agent_id)
        return await self._chores.finish(self._spawn_once(asker, order, agent_id), f"spawn {agent_id}")

    async def _spawn_once(self, asker: Asker, order: SpawnOrder, agent_id: AgentId) -> GovernedAgent:
        async with self._turns.of(agent_id):
            return await self._spawn(asker, order, agent_id)

    async def _spawn(self, asker: Asker, order: SpawnOrder, agent_id: AgentId) -> GovernedAgent:
        parent, standing = await self._parent(asker, order)
        known = await self._known(agent_id)
        if known is not None and not (order.elsewhere and known.phase is Phase.INIT and known.status in LIVE):
            return known  # else an earlier daemon ended in the middle of this, and its keeper asks for it again
        try:
            prepared = await self._preparer.prepare(order, standing=standing, parent=parent)
        except Forbidden as refusal:
            await self._recorder.denied(asker, "spawn", refusal, target=parent)
            raise
        agent = known or _new_agent(agent_id, asker.derived("agent", "run"), prepared)
        data: dict[str, Json] = {
            "name": agent.name,
            "version": agent.version,
            "trust_level": agent.trust_level.value,
            "manifest_digest": agent.manifest_digest,
            "parent_id": agent.parent_id,
        }
        detail = f"{agent.name} {agent.version}"
        async with self._recorder.act(asker, Action.AGENT_SPAWN, detail=detail, target=agent, data=data):
            await self._add(agent, prepared.text, elsewhere=order.elsewhere)
            started = await self._starter.start(asker, agent, prepared.manifest)
            self._supervision.watch(started)  # before its outcome is told: it runs whether or not that can be
        return started

    async def _add(self, agent: GovernedAgent, text: str, *, elsewhere: bool) -> None:
        """Register an agent; that its program is elsewhere is on disk no later than the agent itself."""
        if not elsewhere:
            await self._agents.add(agent, text)
            return

        def is_elsewhere(course: Course) -> Course:
            return replace(new_run(course, run_id=agent.run_id, nonce_sha256=None), elsewhere=True)

        await asyncio.gather(self._courses.change(agent.id, is_elsewhere), self._agents.add(agent, text))

    async def _parent(self, asker: Asker, order: SpawnOrder) -> tuple[GovernedAgent | None, Standing]:
        if order.parent_id is None:
            standing = await self._gate.admit(asker, Verb.SPAWN)
            return (await self._gate.agent(asker.caller.agent_id) if standing.live else None), standing
        parent = await self._gate.agent(order.parent_id)
        standing = await self._gate.admit(asker, Verb.SPAWN, parent)
        check_runs(parent)
        return parent, standing

    async def _known(self, agent_id: AgentId) -> GovernedAgent | None:
        try:
            return await self._agents.get(agent_id)
        except NotFound:
            return None

    # -- looking -------------------------------------------------------------------------------------------------------

    async def listing(self, asker: Asker, *, ended: bool = False) -> tuple[GovernedAgent, ...]:
        """Return the agents that the caller may see, oldest first: those that run, or also those that have ended.

        Raises:
            Forbidden: the caller may see none (``scope_missing``, ``denied``).
        """
        agents = await self._agents.all(ended=ended)
        shown = [agent for agent in agents if ended or agent.phase is not Phase.TERMINATE]
        return await self._gate.visible(asker, Verb.LIST, shown)

    async def details(self, asker: Asker, agent_id: AgentId) -> AgentDetails:
        """Return all that is known of an agent, also of one that has ended and is still kept.

        Raises:
            NotFound: there is none (``agent_not_found``).
            Forbidden: the caller may not see it (``scope_missing``, ``denied``, ``not_related``).
        """
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.INSPECT, agent)
        return AgentDetails(
            agent=agent,
            manifest=await self._agents.manifest(agent_id),
            course=await self._courses.get(agent_id),
            spent=replace(agent.spent, wall_time_s=wall_time_s(agent)),
            enforcement=self._starter.reports.by_agent.get(agent_id),
            has_process=self._processes.has(agent),
            pending_approvals=sum([await count(agent_id) for count in self.count_approvals]),
        )

    # -- ending and moving ---------------------------------------------------------------------------------------------

    async def kill(self, asker: Asker, agent_id: AgentId) -> None:
        """End an agent and what descends from it; return once it is in ``Terminate``. One that has ended stays so,
        and is not started again.

        Raises:
            NotFound: there is none (``agent_not_found``).
            Forbidden: the caller may not (``scope_missing``, ``denied``, ``not_related``).
            Unavailable: it could not be recorded (``ledger_unavailable``); it runs on.
        """
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.TERMINATE, agent)
        await self._kill(asker, agent, by="kill")

    async def _kill(self, asker: Asker, agent: GovernedAgent, *, by: str) -> GovernedAgent:
        ending = Ending(detail=by, asked_for=True)
        if self._endings.is_under_way(agent.id):
            await self._endings.end(asker, agent, ending)  # it may end by itself, and then a restart may follow
        await self._supervision.call_off_restart(asker, agent)
        agent = await self._gate.agent(agent.id)
        return await self._endings.begin(asker, agent, ending) if agent.status in LIVE else agent

    def lives_elsewhere(self, agent_id: AgentId) -> None:
        """Note that an agent's program is none of this daemon's, as it was told when the agent was started."""
        self._processes.elsewhere.add(agent_id)

    async def conclude(self, asker: Asker, agent_id: AgentId, ending: Ending) -> None:
        """End an agent whose program has run elsewhere, by its keeper's own word; one that has ended stays as it is.

        Raises:
            NotFound: there is none (``agent_not_found``).
            Unavailable: it could not be recorded (``ledger_unavailable``); it is as it was.
        """
        agent = await self._gate.agent(agent_id)
        if agent.status in LIVE:
            await self._endings.end(asker, agent, ending)
        self._processes.elsewhere.discard(agent_id)

    async def transition(self, asker: Asker, agent_id: AgentId, to: Phase) -> GovernedAgent:
        """Move an agent. An agent moves itself along the table; operators, and agents above it, may force it. One whose
        program runs elsewhere only says that it ends: its keeper ends it when that program has.

        Raises:
            NotFound: there is none (``agent_not_found``).
            Forbidden: the caller may not (``scope_missing``, ``denied``, ``not_related``).
            Conflict: it is not a legal move (``illegal_transition``); nothing changed.
        """
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.TRANSITION, agent)
        own = asker.caller.agent_id == agent_id and asker.caller.role is Role.AGENT
        if own:
            await self._begun(agent_id)
        async with self._turns.of(agent_id):
            agent = await self._gate.agent(agent_id)
            move(agent.phase, to, by=Mover.AGENT if own else Mover.OPERATOR)
            if agent.phase is to:
                return agent
            if to is Phase.TERMINATE and not own:
                return await self._kill(asker, agent, by="transition to Terminate")
            if to is Phase.TERMINATE and agent_id not in self._processes.elsewhere:
                return await self._endings.begin(asker, agent, Ending(detail="it said that it ends", by_itself=True))
            moved = replace(agent, phase=to)
            await self._starter.tell_move(asker, moved, was=agent.phase)
            return await self._agents.move(agent_id, run_id=agent.run_id, was=agent.phase, to=to, at=utc_now())

    async def _begun(self, agent_id: AgentId) -> None:
        """Wait for an agent that is being started, and is faster than its start."""

        async def look() -> Phase:
            return (await self._gate.agent(agent_id)).phase

        await patiently(look, lambda phase: phase is not Phase.INIT, wait_s=LONGEST_WAIT_S, gone=nobody_leaves)

    async def pause(self, asker: Asker, agent_id: AgentId) -> GovernedAgent:
        """Stop an agent where it is; pausing it again changes nothing.

        Raises:
            NotFound: there is none (``agent_not_found``).
            Forbidden: the caller may not (``scope_missing``, ``denied``, ``not_related``).
            Conflict: it has ended (``agent_not_running``).
        """
        return await self._set_paused(asker, agent_id, Status.PAUSED)

    async def resume(self, asker: Asker, agent_id: AgentId) -> GovernedAgent:
        """Let a paused agent go on; see ``pause``."""
        return await self._set_paused(asker, agent_id, Status.RUNNING)

    async def _set_paused(self, asker: Asker, agent_id: AgentId, to: Status) -> GovernedAgent:
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.PAUSE, agent)
        async with self._turns.of(agent_id):
            agent = await self._gate.agent(agent_id)
            if agent.status not in LIVE or agent.phase in (Phase.INIT, Phase.TERMINATE):
                raise Conflict(
                    "the agent does not run",
                    code="agent_not_running",
                    reason=f"it is in {agent.phase.value} and its status is {agent.status.value}",
                    resolution="look at the agents that run: ash list",
                )
            if agent.status is to:
                return agent
            action = Action.AGENT_PAUSE if to is Status.PAUSED else Action.AGENT_RESUME
            async with self._recorder.act(asker, action, target=agent):
                if self._processes.has(agent):
                    await (self._runner.pause(agent_id) if to is Status.PAUSED else self._runner.resume(agent_id))
                return await self._agents.set_status(
                    agent_id,
                    run_id=agent.run_id,
                    was=agent.status,
                    to=change_status(agent.status, to),
                    at=utc_now(),
                    ended=Exit(code=agent.exit_code),
                    last_error=agent.last_error,
                )

    # -- sessions ------------------------------------------------------------------------------------------------------

    async def run_of(self, nonce: str) -> GovernedAgent:
        """Return the agent whose present run was handed ``nonce``.

        Raises:
            Forbidden: no run was, or one that is over (``invalid_nonce``).
        """
        digest = sha256(nonce.encode()).hexdigest()
        for agent_id, course in (await self._courses.all()).items():
            if course.nonce_sha256 == digest:
                agent = await self._known(agent_id)
                if agent is not None and agent.run_id == course.run_id and agent.status in LIVE:
                    return agent
        raise Forbidden(
            "no run was handed this nonce",
            code="invalid_nonce",
            resolution="connect from within the agent's own process, with what it was handed at its start",
        )

    async def session_opened(self, agent_id: AgentId, run_id: str) -> None:
        """Note that a run spoke to the daemon: from now on its process's end is the run's end.

        Raises:
            Conflict: it is another run by now (``stale_agent``).
        """
        agent = await self._gate.agent(agent_id)
        if agent.run_id != run_id:
            raise Conflict(
                "the agent has another run by now", code="stale_agent", resolution="end the process that asked"
            )
        if not (await self._courses.get(agent_id)).connected:
            await self._courses.change(
                agent_id, lambda course: replace(course, connected=True) if course.run_id == run_id else course
            )

    async def settled(self) -> None:
        """Return when nothing that was begun here is under way."""
        await self._chores.all_done()
        await self._endings.all_done()


def _new_agent(agent_id: AgentId, run_id: str, prepared: Prepared) -> GovernedAgent:
    manifest, now = prepared.manifest, utc_now()
    return GovernedAgent(
        id=agent_id,
        run_id=run_id,
        name=manifest.name,
        version=manifest.version,
        manifest_digest=prepared.digest,
        trust_level=manifest.trust_level,
        phase=Phase.INIT,
        status=Status.RUNNING,
        spawned_at=now,
        run_started_at=now,
        parent_id=None if prepared.parent is None else prepared.parent.id,
        depth=prepared.depth,
        task=prepared.task,
        model=manifest.model,
        budget=prepared.budget,
    )

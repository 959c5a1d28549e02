"""Starting a run: its workspace, its process, what is attached to it; and undoing all of that when a step fails."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import sha256
from secrets import token_hex

import structlog

from borough.core.clock import utc_now
from borough.core.errors import BoroughError, Conflict
from borough.core.ids import AgentId
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.courses import new_run
from borough.governance.lifecycle import Phase, Status, backoff
from borough.governance.manifests import Manifest
from borough.governance.ports.confinement import AgentOrder, AgentRunner, Enforcement
from borough.governance.ports.courses import Courses
from borough.governance.ports.register import Agents
from borough.governance.ports.workspaces import Workspaces
from borough.governance.services.asking import Asker
from borough.governance.services.endings import LIVE, OnEnd, Processes
from borough.governance.services.recording import Recorder

log = structlog.get_logger(__name__)

OnStart = Callable[[GovernedAgent, Manifest], Awaitable[None]]
NONCE_BYTES = 32


@dataclass(slots=True)
class Reports:
    """What really holds for each run of this daemon's time."""

    by_agent: dict[AgentId, Enforcement] = field(default_factory=dict)


class Starter:
    """Brings runs from ``Init`` to ``Plan``."""

    def __init__(
        self,
        *,
        agents: Agents,
        courses: Courses,
        runner: AgentRunner,
        workspaces: Workspaces,
        recorder: Recorder,
        processes: Processes,
        on_end: list[OnEnd],
        socket: str,
    ) -> None:
        """``socket``: where agents find the daemon, as they see it."""
        self.on_start: list[OnStart] = []
        """Called in ``Init`` once the process is there: what the manifest has attached. One that fails is told and
        keeps the agent from nothing else."""
        self.reports = Reports()
        self._agents = agents
        self._courses = courses
        self._runner = runner
        self._workspaces = workspaces
        self._recorder = recorder
        self._processes = processes
        self._on_end = on_end
        self._socket = socket

    async def start(self, asker: Asker, agent: GovernedAgent, manifest: Manifest) -> GovernedAgent:
        """Bring a registered run to ``Plan``.

        Raises:
            Conflict: the agent above it has ended (``agent_not_running``).
            BoroughError: a step failed. Nothing is left of the run then, and the register says that it failed.
        """
        try:
            await self._check_parent(agent)
            async with AsyncExitStack() as undo:
                if agent.restarts == 0:
                    undo.push_async_callback(self._workspaces.discard, agent.id)
                await self._workspaces.create(agent.id, manifest)
                undo.push_async_callback(self._give_back, agent)
                await self._begin(agent, manifest)
                for hook in self.on_start:
                    await self._call(hook, agent, manifest)
                await self.tell_move(asker, replace(agent, phase=Phase.PLAN), was=Phase.INIT)
                moved = await self._agents.move(
                    agent.id, run_id=agent.run_id, was=Phase.INIT, to=Phase.PLAN, at=utc_now()
                )
                undo.pop_all()
        except BaseException as error:
            await asyncio.shield(asyncio.ensure_future(self._conclude_failed(agent, manifest, error)))
            raise
        return moved

    async def tell_move(self, asker: Asker, agent: GovernedAgent, *, was: Phase) -> None:
        """Record that an agent was moved."""
        data = {"from": was.value, "to": agent.phase.value}
        told = f"{was.value} -> {agent.phase.value}"
        await self._recorder.event(asker, Action.LIFECYCLE_TRANSITION, detail=told, target=agent, data=data)

    async def _check_parent(self, agent: GovernedAgent) -> None:
        # The row is in the register by now: a parent that ends from here on finds this agent among its children.
        if agent.parent_id is not None:
            check_runs(await self._agents.get(agent.parent_id))

    async def _begin(self, agent: GovernedAgent, manifest: Manifest) -> None:
        if agent.id in self._processes.elsewhere:
            self.reports.by_agent[agent.id] = await self._runner.probe()
            return
        nonce = token_hex(NONCE_BYTES)
        digest = sha256(nonce.encode()).hexdigest()
        await self._courses.change(agent.id, lambda course: new_run(course, run_id=agent.run_id, nonce_sha256=digest))
        order = AgentOrder(
            agent_id=agent.id,
            run_id=agent.run_id,
            manifest=manifest,
            task=agent.task,
            model=agent.model,
            socket=self._socket,
            nonce=nonce,
        )
        process = await self._runner.start(order)
        if process is None:
            self.reports.by_agent[agent.id] = await self._runner.probe()
            return
        self._processes.by_agent[agent.id] = agent.run_id
        self.reports.by_agent[agent.id] = process.enforcement
        await self._courses.change(agent.id, lambda course: replace(course, has_process=True))

    async def _give_back(self, agent: GovernedAgent) -> None:
        """Take back what was begun of a run; each step whether or not the others work."""
        if self._processes.has(agent):
            await self._runner.end(agent.id, grace=timedelta(0))
            self._processes.gone(agent)
        for hook in self._on_end:
            await self._guarded(hook(agent), agent)

    async def _conclude_failed(self, agent: GovernedAgent, manifest: Manifest, error: BaseException) -> None:
        """Let the register say that a run never came to be, and when another try follows, if one does."""
        told = error.message if isinstance(error, BoroughError) else "the daemon could not start it"
        now, lifecycle = utc_now(), manifest.lifecycle
        current = await self._agents.get(agent.id)
        if current.phase is Phase.TERMINATE:
            return  # it was ended while it was being started: whoever did so concludes it
        again = now + backoff(agent.restarts) if 0 < agent.restarts < lifecycle.max_restarts else None
        await self._courses.change(agent.id, lambda course: replace(course, restart_at=again))
        try:
            if current.status in LIVE:
                await self._agents.set_status(
                    agent.id, run_id=agent.run_id, was=current.status, to=Status.FAILED, at=now, last_error=told
                )
            await self._agents.move(agent.id, run_id=agent.run_id, was=current.phase, to=Phase.TERMINATE, at=now)
        except Conflict as overtaken:
            log.info("agent.end_overtaken", agent_id=agent.id, error=overtaken.message)

    async def _call(self, hook: OnStart, agent: GovernedAgent, manifest: Manifest) -> None:
        await self._guarded(hook(agent, manifest), agent)

    async def _guarded(self, step: Awaitable[None], agent: GovernedAgent) -> None:
        try:
            await step
        except BoroughError as error:
            log.warning("agent.hook_failed", agent_id=agent.id, error=error.message, code=error.code)
        except Exception:
            log.exception("agent.hook_broken", agent_id=agent.id)


def check_runs(parent: GovernedAgent) -> None:
    """Let an agent pass under which another may be started; raises ``Conflict`` (``agent_not_running``)."""
    if parent.phase is Phase.TERMINATE:
        raise Conflict(
            "the agent above it has ended",
            code="agent_not_running",
            resolution="start it under an agent that runs, or as an operator",
        )

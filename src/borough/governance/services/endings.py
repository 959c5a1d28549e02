"""Ending agents: the phase first, then what descends from them, their processes, and what others hold for them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from borough.core.clock import utc_now
from borough.core.errors import BoroughError, Conflict
from borough.core.ids import AgentId
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.budgets import Spent
from borough.governance.courses import Course
from borough.governance.ledger import Outcome
from borough.governance.lifecycle import AfterExit, Exit, Lifecycle, Phase, Status, after_exit, kill_grace
from borough.governance.ports.confinement import AgentRunner
from borough.governance.ports.courses import Courses
from borough.governance.ports.register import Agents
from borough.governance.services.asking import Asker
from borough.governance.services.recording import Act, Recorder
from borough.governance.services.turns import Chores

log = structlog.get_logger(__name__)

OnEnd = Callable[[GovernedAgent], Awaitable[None]]
LIVE = frozenset({Status.RUNNING, Status.PAUSED})
_TRIES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Why and how a run ends."""

    detail: str
    asked_for: bool = False
    """Whether somebody told the agent to end; it is not started again then."""
    timed_out: bool = False
    by_itself: bool = False
    """Whether the agent said that it ends; its process is given time to do so."""
    exit: Exit | None = None
    """How its process ended, where it has."""
    error: str | None = None
    """What to keep as its last error, where the exit does not say it all."""
    is_final: bool = False
    """Whether it is not started again whatever its restart policy says."""


@dataclass(slots=True, kw_only=True)
class _Under:
    """An ending under way."""

    terminated: "asyncio.Future[GovernedAgent]"
    done: "asyncio.Task[GovernedAgent]"


@dataclass(slots=True)
class Processes:
    """Which runs have a process now."""

    by_agent: dict[AgentId, str] = field(default_factory=dict)
    elsewhere: set[AgentId] = field(default_factory=set)
    """Agents whose programs are none of this daemon's: it neither starts them nor ends them with itself."""

    def has(self, agent: GovernedAgent) -> bool:
        """Tell whether this run of the agent has one."""
        return self.by_agent.get(agent.id) == agent.run_id

    def gone(self, agent: GovernedAgent) -> None:
        """Note that it has none any more."""
        if self.has(agent):
            del self.by_agent[agent.id]


class Endings:
    """Ends runs, each once, however many ask for it."""

    def __init__(
        self, *, agents: Agents, courses: Courses, runner: AgentRunner, recorder: Recorder, processes: Processes
    ) -> None:
        self.on_end: list[OnEnd] = []
        """Called with an agent at the end of each of its runs, before its status says so: what was held for the run
        is given back. Each has to be idempotent; one that fails is told and keeps no other from being called."""
        self._agents = agents
        self._courses = courses
        self._runner = runner
        self._recorder = recorder
        self._processes = processes
        self._under: dict[AgentId, _Under] = {}
        self.chores = Chores()

    def is_under_way(self, agent_id: AgentId) -> bool:
        """Tell whether an agent is being ended."""
        return agent_id in self._under

    async def begin(self, asker: Asker, agent: GovernedAgent, ending: Ending) -> GovernedAgent:
        """Bring a run to ``Terminate`` and return then; the rest goes on. A run that is being ended already is left
        to that.

        Raises:
            Unavailable: it could not be recorded or stored; the agent is as it was.
        """
        return await asyncio.shield(self._begin(asker, agent, ending).terminated)

    async def end(self, asker: Asker, agent: GovernedAgent, ending: Ending) -> GovernedAgent:
        """Do the same, and return when nothing of the run is left."""
        return await asyncio.shield(self._begin(asker, agent, ending).done)

    async def all_done(self) -> None:
        """Return when no ending is under way."""
        await self.chores.all_done()

    def _begin(self, asker: Asker, agent: GovernedAgent, ending: Ending) -> _Under:
        known = self._under.get(agent.id)
        if known is not None:
            return known
        terminated: asyncio.Future[GovernedAgent] = asyncio.get_running_loop().create_future()
        done = self.chores.task(self._end(asker, agent, ending, terminated), f"end {agent.id}")
        under = self._under[agent.id] = _Under(terminated=terminated, done=done)

        def over(task: "asyncio.Task[GovernedAgent]") -> None:
            del self._under[agent.id]
            if not terminated.done():
                terminated.set_exception(_error(task))
            # Not everyone waits for the whole ending: that it failed was told, and is mended by the next look.
            terminated.exception()
            if not task.cancelled() and (error := task.exception()) is not None:
                log.warning("agent.end_failed", agent_id=agent.id, error=str(error))

        done.add_done_callback(over)
        return under

    async def _end(
        self, asker: Asker, agent: GovernedAgent, ending: Ending, terminated: "asyncio.Future[GovernedAgent]"
    ) -> GovernedAgent:
        manifest = await self._agents.manifest(agent.id)
        async with self._recorder.act(
            asker, Action.AGENT_TERMINATE, detail=ending.detail, target=agent, data={"name": agent.name}
        ) as act:
            agent = await self._terminate(asker, agent)
            terminated.set_result(agent)
            await self._end_children(asker, agent)
            exit_ = await self._end_process(agent, manifest.lifecycle, ending)
            for hook in self.on_end:
                await self._call(hook, agent)
            return await self._conclude(agent, manifest.lifecycle, ending, exit_, act)

    async def _terminate(self, asker: Asker, agent: GovernedAgent) -> GovernedAgent:
        """Move a run to ``Terminate`` from wherever it is by now."""
        for _ in range(_TRIES):
            if agent.phase is Phase.TERMINATE:
                return agent
            try:
                moved = await self._agents.move(
                    agent.id, run_id=agent.run_id, was=agent.phase, to=Phase.TERMINATE, at=utc_now()
                )
            except Conflict:
                agent = await self._agents.get(agent.id)
                continue
            data = {"from": agent.phase.value, "to": Phase.TERMINATE.value}
            told = f"{agent.phase.value} -> {Phase.TERMINATE.value}"
            await self._recorder.event(asker, Action.LIFECYCLE_TRANSITION, detail=told, target=moved, data=data)
            return moved
        raise Conflict("the agent moves too fast to be ended", code="stale_agent", resolution="try again")

    async def _end_children(self, asker: Asker, agent: GovernedAgent) -> None:
        children = [one for one in await self._agents.all(ended=False) if one.parent_id == agent.id]
        ending = Ending(detail="its parent ended", asked_for=True, error="its parent ended")
        await asyncio.gather(*(self.end(asker, child, ending) for child in children))

    async def _end_process(self, agent: GovernedAgent, lifecycle: Lifecycle, ending: Ending) -> Exit:
        if ending.exit is not None:
            self._processes.gone(agent)
            return ending.exit
        if not self._processes.has(agent):
            return Exit(code=agent.exit_code)
        grace = kill_grace(lifecycle)
        if ending.by_itself:
            exit_ = await self._leaves(agent, grace) or await self._runner.end(agent.id, grace=timedelta(0))
        else:
            if agent.status is Status.PAUSED:
                await self._runner.resume(agent.id)  # what is stopped cannot end in order
            exit_ = await self._runner.end(agent.id, grace=grace)
        self._processes.gone(agent)
        return exit_

    async def _leaves(self, agent: GovernedAgent, grace: timedelta) -> Exit | None:
        try:
            async with asyncio.timeout(grace.total_seconds()):
                return await self._runner.exited(agent.id)
        except TimeoutError:
            return None

    async def _conclude(
        self, agent: GovernedAgent, lifecycle: Lifecycle, ending: Ending, exit_: Exit, act: Act
    ) -> GovernedAgent:
        after = _after(agent, lifecycle, ending, exit_)
        now = utc_now()
        restart_at = None if after.restart_after is None or ending.is_final else now + after.restart_after
        await self._courses.change(agent.id, lambda course: _with_restart(course, agent, restart_at))
        await self._agents.charge(agent.id, Spent(wall_time_s=wall_time_s(agent)))
        agent = await self._agents.get(agent.id)
        if agent.status in LIVE:
            agent = await self._agents.set_status(
                agent.id,
                run_id=agent.run_id,
                was=agent.status,
                to=after.status,
                at=now,
                ended=exit_,
                last_error=ending.error or after.last_error,
            )
        if ending.timed_out:
            act.outcome = Outcome.TIMEOUT
        act.data["status"] = agent.status.value
        act.data["exit_code"] = agent.exit_code
        if agent.last_error:
            act.data["last_error"] = agent.last_error
        return agent

    async def _call(self, hook: OnEnd, agent: GovernedAgent) -> None:
        try:
            await hook(agent)
        except BoroughError as error:
            log.warning("agent.end_hook_failed", agent_id=agent.id, error=error.message, code=error.code)
        except Exception:
            log.exception("agent.end_hook_broken", agent_id=agent.id)


def wall_time_s(agent: GovernedAgent) -> int:
    """Return how long all runs of an agent took together, the present one until now."""
    if agent.status not in LIVE:
        return agent.spent.wall_time_s
    return agent.spent.wall_time_s + max(0, int((utc_now() - agent.run_started_at).total_seconds()))


def _after(agent: GovernedAgent, lifecycle: Lifecycle, ending: Ending, exit_: Exit) -> AfterExit:
    seen = replace(exit_, asked_for=ending.asked_for, timed_out=ending.timed_out)
    if ending.by_itself and seen.code is None and seen.signal is None:
        seen = replace(seen, code=0)  # an agent without a process, which said that it is done
    return after_exit(lifecycle, seen, restarts=agent.restarts)


def _with_restart(course: Course, agent: GovernedAgent, restart_at: datetime | None) -> Course:
    return replace(course, restart_at=restart_at, connected=False) if course.run_id == agent.run_id else course


def _error(task: "asyncio.Task[GovernedAgent]") -> BaseException:
    return asyncio.CancelledError() if task.cancelled() else task.exception() or RuntimeError("the ending told nothing")

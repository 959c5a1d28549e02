"""Supervision: what becomes of runs while nobody asks. Exits, restarts, timeouts, budgets, the daemon's own restart."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import datetime

import structlog

from borough.core.clock import utc_now
from borough.core.errors import BoroughError, Conflict, NotFound, Unavailable
from borough.core.ids import AgentId, new_id
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.budgets import Limits, Spent, exhausted
from borough.governance.ledger import Outcome
from borough.governance.lifecycle import Exit, Lifecycle, Phase, RestartPolicy, after_exit, deadline
from borough.governance.ports.confinement import AgentRunner
from borough.governance.ports.courses import Courses
from borough.governance.ports.register import Agents
from borough.governance.ports.workspaces import Workspaces
from borough.governance.services.asking import Asker, daemon
from borough.governance.services.endings import LIVE, Ending, Endings, Processes, wall_time_s
from borough.governance.services.recording import Recorder
from borough.governance.services.standing import Standings
from borough.governance.services.starting import Starter
from borough.governance.services.turns import Chores, Turns

log = structlog.get_logger(__name__)

_RETRY_S = 0.5


class Supervision:
    """Watches over every run. All it knows for good is in the stores; the rest is found again after a restart."""

    def __init__(
        self,
        *,
        agents: Agents,
        courses: Courses,
        runner: AgentRunner,
        workspaces: Workspaces,
        recorder: Recorder,
        standings: Standings,
        processes: Processes,
        endings: Endings,
        starter: Starter,
    ) -> None:
        self._agents = agents
        self._courses = courses
        self._runner = runner
        self._workspaces = workspaces
        self._recorder = recorder
        self._standings = standings
        self._processes = processes
        self._endings = endings
        self._starter = starter
        self._watches = Chores()
        self._turns = Turns()
        self._starting: set[AgentId] = set()
        endings.on_end.append(self._let_go)

    async def _let_go(self, agent: GovernedAgent) -> None:
        self._standings.forget(agent.id)

    # -- exits ---------------------------------------------------------------------------------------------------------

    def watch(self, agent: GovernedAgent) -> None:
        """Wait for the run's process to end, if it has one, and do then what follows."""
        if self._processes.has(agent):
            self._watches.begin(self._watch(agent), f"watch {agent.id}")

    async def _watch(self, agent: GovernedAgent) -> None:
        exit_ = await self._runner.exited(agent.id)
        while True:
            try:
                await self._exited(agent, exit_)
            except Unavailable as error:
                log.warning("agent.exit_waits", agent_id=agent.id, error=error.message)
                await asyncio.sleep(_RETRY_S)
            except (Conflict, NotFound) as error:
                log.info("agent.exit_overtaken", agent_id=agent.id, error=error.message)
                return
            else:
                return

    async def _exited(self, agent: GovernedAgent, exit_: Exit) -> None:
        current = await self._agents.get(agent.id)
        if current.run_id != agent.run_id or self._endings.is_under_way(agent.id) or current.status not in LIVE:
            return
        lifecycle = (await self._agents.manifest(agent.id)).lifecycle
        course = await self._courses.get(agent.id)
        self._processes.gone(current)
        told = _told(exit_)
        if course.connected or lifecycle.restart_policy is not RestartPolicy.NEVER:
            asker = daemon(f"exit:{agent.id}:{agent.run_id}")
            await self._endings.end(asker, current, Ending(detail=told, exit=exit_))
        else:
            await self._goes_on_without(current, lifecycle, exit_, told)

    async def _goes_on_without(self, agent: GovernedAgent, lifecycle: Lifecycle, exit_: Exit, told: str) -> None:
        """Keep an agent whose process never spoke to the daemon: it lives on until it is killed or timed out."""
        asker = daemon(f"exit:{agent.id}:{agent.run_id}")
        data = {"exit_code": exit_.code, "signal": exit_.signal}
        await self._recorder.event(asker, Action.PROCESS_EXIT, detail=told, target=agent, data=data)
        await self._courses.change(agent.id, lambda course: replace(course, has_process=False))
        await self._agents.set_status(
            agent.id,
            run_id=agent.run_id,
            was=agent.status,
            to=agent.status,
            at=utc_now(),
            ended=exit_,
            last_error=after_exit(lifecycle, exit_, restarts=agent.restarts).last_error,
        )

    # -- what is due ---------------------------------------------------------------------------------------------------

    async def start_due(self) -> None:
        """Start again whatever is to be started again by now."""
        now = utc_now()
        for agent_id, course in (await self._courses.all()).items():
            if course.restart_at is not None and course.restart_at <= now and agent_id not in self._starting:
                self._starting.add(agent_id)
                self._watches.begin(self._restart(agent_id), f"restart {agent_id}")

    async def _restart(self, agent_id: AgentId) -> None:
        try:
            agent = await self._agents.get(agent_id)
            if agent.phase is Phase.TERMINATE and agent.status not in LIVE and not self._endings.is_under_way(agent_id):
                await self._start_again(agent)
        except NotFound:
            await self._courses.forget(agent_id)
        except BoroughError as error:
            log.warning("agent.restart_failed", agent_id=agent_id, error=error.message, code=error.code)
        except Exception:
            log.exception("agent.restart_broken", agent_id=agent_id)
        finally:
            self._starting.discard(agent_id)

    async def _start_again(self, agent: GovernedAgent) -> None:
        manifest = await self._agents.manifest(agent.id)
        run_id, asker = new_id(), daemon(f"restart:{agent.id}:{agent.restarts + 1}")
        detail = f"restart {agent.restarts + 1} of {manifest.lifecycle.max_restarts}"
        target = replace(agent, run_id=run_id)
        async with self._recorder.act(asker, Action.AGENT_SPAWN, detail=detail, target=target) as act:
            async with self._turns.of(agent.id):
                if (await self._courses.get(agent.id)).restart_at is None:
                    act.detail, act.outcome = "it was called off", Outcome.FAILURE
                    return
                begun = await self._agents.begin_run(agent.id, run_id=run_id, at=utc_now())
            self.watch(await self._starter.start(asker, begun, manifest))

    async def call_off_restart(self, asker: Asker, agent: GovernedAgent) -> None:
        """See to it that an agent that has ended is not started again, if that has not begun yet."""
        async with self._turns.of(agent.id):
            if (await self._courses.get(agent.id)).restart_at is None:
                return
            told = "its restart was called off"
            await self._recorder.event(asker, Action.AGENT_TERMINATE, detail=told, target=agent)
            await self._courses.change(agent.id, lambda course: replace(course, restart_at=None))

    async def end_overdue(self) -> None:
        """End runs that last longer than they may, and agents whose budget of wall time is used up."""
        now = utc_now()
        for agent in await self._agents.all(ended=False):
            if agent.phase is Phase.INIT or self._endings.is_under_way(agent.id) or agent.status not in LIVE:
                continue
            ending = await self._overdue(agent, now)
            if ending is not None:
                asker = daemon(f"overdue:{agent.id}:{agent.run_id}")
                await self._endings.begin(asker, agent, ending)

    async def _overdue(self, agent: GovernedAgent, now: datetime) -> Ending | None:
        lifecycle = (await self._agents.manifest(agent.id)).lifecycle
        latest = deadline(lifecycle, started_at=agent.run_started_at)
        if latest is not None and now >= latest:
            return Ending(detail=f"it ran longer than {lifecycle.timeout_s} s", timed_out=True)
        if agent.budget.wall_time_s is None:
            return None
        over = exhausted(Limits(wall_time_s=agent.budget.wall_time_s), Spent(wall_time_s=wall_time_s(agent)))
        if over is None:
            return None
        asker = daemon(f"budget:{agent.id}:{agent.run_id}")
        await self._recorder.event(
            asker, Action.BUDGET_EXCEEDED, outcome=Outcome.DENIED, detail=str(over), target=agent
        )
        return Ending(detail="its budget is used up", asked_for=True, error=str(over))

    async def forget(self, *, ended_before: datetime) -> int:
        """Drop agents that ended before then, with their workspaces; return how many."""
        forgotten = await self._agents.forget(ended_before=ended_before)
        for agent_id in forgotten:
            await self._courses.forget(agent_id)
            await self._workspaces.discard(agent_id)
            self._standings.forget(agent_id)
            self._starter.reports.by_agent.pop(agent_id, None)
        return len(forgotten)

    # -- the daemon's own start and end --------------------------------------------------------------------------------

    async def recover(self) -> None:
        """Take up whatever an earlier daemon left: adopt what runs, conclude what does not. To be called before
        anything else is asked for.
        """
        agents = await self._agents.all(ended=True)
        found = [agent for agent in agents if agent.status in LIVE and await self._adopt(agent)]
        running = {agent.id for agent in found}
        await asyncio.gather(*(self._settle(agent, runs=agent.id in running) for agent in agents))

    async def settle_leftovers(self) -> None:
        """End anew whatever could not be ended whole, as when a store did not answer; whose program runs elsewhere is
        ended by its keeper.
        """
        for agent in await self._agents.all(ended=True):
            halfway = (agent.phase is Phase.TERMINATE) == (agent.status in LIVE)
            if agent.id in self._processes.elsewhere:
                continue
            if halfway and not self._endings.is_under_way(agent.id) and agent.id not in self._starting:
                await self._settle(agent, runs=self._processes.has(agent))

    async def _adopt(self, agent: GovernedAgent) -> bool:
        between = agent.phase in (Phase.INIT, Phase.TERMINATE)
        if not between and not (await self._courses.get(agent.id)).has_process:
            return False  # it has none
        process = await self._runner.adopt(agent.id, agent.run_id)
        if process is None:
            return False
        self._processes.by_agent[agent.id] = agent.run_id
        self._starter.reports.by_agent[agent.id] = process.enforcement
        return True

    async def _settle(self, agent: GovernedAgent, *, runs: bool) -> None:
        if (await self._courses.get(agent.id)).elsewhere:
            self._processes.elsewhere.add(agent.id)
        ending = await self._leftover(agent, runs=runs)
        if ending is not None:
            await self._endings.end(daemon(f"recover:{agent.id}:{agent.run_id}"), agent, ending)
            if agent.phase is Phase.INIT and agent.restarts == 0:
                await self._workspaces.discard(agent.id)
        elif runs:
            self.watch(agent)
        elif (await self._courses.get(agent.id)).has_process and agent.status in LIVE:
            await self._exited(agent, await self._runner.exited(agent.id))
        elif agent.status in LIVE:
            self._starter.reports.by_agent[agent.id] = await self._runner.probe()

    async def _leftover(self, agent: GovernedAgent, *, runs: bool) -> Ending | None:
        """Return how a run is concluded that an earlier daemon left, or ``None`` when it goes on (or is over)."""
        course, how = await self._courses.get(agent.id), None if runs else Exit()
        if agent.phase is Phase.TERMINATE:
            if agent.status not in LIVE:
                return None
            told = "the daemon ended while it was being ended"
            return Ending(detail=told, exit=how, asked_for=course.restart_at is None, error=told)
        if agent.status not in LIVE:
            return Ending(detail="its end was not told", exit=how)
        if agent.phase is Phase.INIT:
            told = "the daemon ended while it was being started"
            ending = Ending(detail=told, exit=how, error=told, is_final=agent.restarts == 0)
            return None if course.elsewhere else ending  # whoever keeps it asks for it again, or ends it
        if course.has_process and not runs and await self._is_lost(agent):
            told = "it ended while the daemon was down"
            return Ending(detail=told, exit=how, error=told)
        return None

    async def _is_lost(self, agent: GovernedAgent) -> bool:
        """Tell whether nobody knows how a process ended."""
        exit_ = await self._runner.exited(agent.id)
        return exit_.code is None and exit_.signal is None

    async def stop(self, *, end_agents: bool) -> None:
        """Stop supervising. ``end_agents``: end every agent in order first; else their processes run on and are
        adopted by the next daemon.
        """
        if end_agents:
            living = [one for one in await self._agents.all(ended=False) if one.phase is not Phase.TERMINATE]
            roots = [one for one in living if one.id not in self._processes.elsewhere]
            ending = Ending(detail="the daemon stops", asked_for=True, error="the daemon was stopped")
            waits: list[Awaitable[object]] = [
                self._endings.end(daemon(f"stop:{agent.id}:{agent.run_id}"), agent, ending) for agent in roots
            ]
            for outcome in await asyncio.gather(*waits, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    log.warning("agent.not_ended", error=str(outcome))
        await self._endings.all_done()
        await self._watches.cancel()


def _told(exit_: Exit) -> str:
    if exit_.code is not None:
        return f"its process ended with exit code {exit_.code}"
    return "its process is gone" if exit_.signal is None else f"its process was ended by signal {exit_.signal}"

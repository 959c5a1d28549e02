"""Priorities, deadlines and budgets: how agents stand to one another, and changing that; and their declared plans."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from borough.core.clock import rfc3339, utc_now
from borough.core.errors import Conflict, Forbidden
from borough.core.ids import AgentId
from borough.governance.access import Verb
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.budgets import NOTHING_SPENT, Limits, Spent, narrower
from borough.governance.canonical import Json
from borough.governance.courses import (
    Course,
    Plan,
    PlanStep,
    effective_priority,
    with_deadline,
    with_plan,
    with_priority,
)
from borough.governance.lifecycle import Phase
from borough.governance.ports.courses import Courses
from borough.governance.ports.register import Agents
from borough.governance.services.asking import Asker
from borough.governance.services.endings import LIVE, wall_time_s
from borough.governance.services.gate import Gate
from borough.governance.services.recording import Recorder
from borough.governance.tokens import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """How much one tool was used since the daemon began."""

    tool: str
    calls: int
    cost_micros: int
    mean_latency_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one agent stands."""

    agent: GovernedAgent
    course: Course
    effective_priority: int
    spent: Spent
    """With the wall time of the present run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """How all agents stand, and what their calls took."""

    agents: tuple[Standing, ...]
    tools: tuple[ToolUse, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleChange:
    """What is to be changed; what is not named stays."""

    priority: int | None = None
    deadline: datetime | None = None
    clear_deadline: bool = False
    budget: Limits | None = field(default=None)
    """The whole new budget."""


class ScheduleService:
    """Steers how agents run.

    All raise ``NotFound`` (``agent_not_found``) and ``Forbidden`` (``scope_missing``, ``denied``, ``not_related``).
    """

    def __init__(self, *, gate: Gate, agents: Agents, courses: Courses, recorder: Recorder) -> None:
        self.tool_use: list[Callable[[], Awaitable[tuple[ToolUse, ...]]]] = []
        """Each tells how much tools were used."""
        self._gate = gate
        self._agents = agents
        self._courses = courses
        self._recorder = recorder

    async def overview(self, asker: Asker) -> Overview:
        """Return how the running agents that the caller may see stand, the most urgent first."""
        running = [agent for agent in await self._agents.all(ended=False) if agent.phase is not Phase.TERMINATE]
        seen = [await self._standing(agent) for agent in await self._gate.visible(asker, Verb.LIST, running)]
        tools = [use for told in self.tool_use for use in await told()]
        return Overview(
            agents=tuple(sorted(seen, key=lambda one: (-one.effective_priority, one.agent.spawned_at))),
            tools=tuple(sorted(tools, key=lambda use: use.tool)),
        )

    async def show(self, asker: Asker, agent_id: AgentId) -> Standing:
        """Return how one agent stands."""
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.INSPECT, agent)
        return await self._standing(agent)

    async def change(self, asker: Asker, agent_id: AgentId, wanted: ScheduleChange) -> Standing:
        """Change an agent's priority, deadline or budget. An agent itself may only lower what it has, and set a
        deadline where no operator did.

        Raises:
            Invalid: there is no such priority (``invalid_priority``).
            Forbidden: the agent asks for more than it has (``not_by_itself``).
        """
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.SCHEDULE, agent)
        narrow = asker.caller.role is Role.AGENT
        own = narrow and asker.caller.agent_id == agent_id
        budget = await self._budget(agent, wanted.budget, narrow=narrow)
        now = _changed(await self._courses.get(agent_id), wanted, own=own)
        data: dict[str, Json] = {
            "priority": now.priority,
            "deadline": None if now.deadline is None else rfc3339(now.deadline),
        }
        if budget is not None:
            data["budget"] = {name: getattr(budget, name) for name in ("calls", "tokens", "cost_micros", "wall_time_s")}
        await self._recorder.event(asker, Action.SCHEDULE_CHANGE, target=agent, data=data)
        if budget is not None:
            agent = await self._agents.set_budget(agent_id, budget)
        await self._courses.change(agent_id, lambda course: _changed(course, wanted, own=own))
        return await self._standing(agent)

    async def _budget(self, agent: GovernedAgent, wanted: Limits | None, *, narrow: bool) -> Limits | None:
        """Return the new budget: an operator's word, or what lies within the agent's own."""
        if wanted is None or not narrow:
            return wanted
        if narrower(wanted, agent.budget, NOTHING_SPENT) != wanted:
            raise Forbidden(
                "an agent cannot widen a budget",
                code="not_by_itself",
                resolution="have an operator do so",
            )
        return wanted

    async def _standing(self, agent: GovernedAgent) -> Standing:
        course = await self._courses.get(agent.id)
        return Standing(
            agent=agent,
            course=course,
            effective_priority=effective_priority(course, at=utc_now()),
            spent=replace(agent.spent, wall_time_s=wall_time_s(agent)),
        )

    # -- plans ---------------------------------------------------------------------------------------------------------

    async def plan(self, asker: Asker, agent_id: AgentId) -> Plan | None:
        """Return what the agent's present run declared."""
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.INSPECT, agent)
        return (await self._courses.get(agent_id)).plan

    async def declare_plan(
        self, asker: Asker, agent_id: AgentId, steps: tuple[PlanStep, ...], *, reason: str | None
    ) -> Plan:
        """Declare a plan, or revise the one that is there.

        Raises:
            Invalid: it is too long (``invalid_plan``).
            Conflict: the agent does not run (``agent_not_running``).
        """
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.REPORT, agent)
        if agent.status not in LIVE:
            raise Conflict("the agent does not run", code="agent_not_running", resolution="start it again")
        at = utc_now()
        before = await self._courses.get(agent_id)
        planned = with_plan(before, steps, at=at)
        action = Action.PLAN_DECLARE if before.plan is None else Action.PLAN_REVISE
        data: dict[str, Json] = {"steps": [{"description": step.description, "tool": step.tool} for step in steps]}
        told = reason or f"{len(steps)} steps"
        await self._recorder.event(asker, action, detail=told, target=agent, data=data)
        await self._courses.change(agent_id, lambda course: replace(course, plan=planned.plan))
        if planned.plan is None:
            raise TypeError("a declared plan is a plan")
        return planned.plan


def _changed(course: Course, wanted: ScheduleChange, *, own: bool) -> Course:
    if wanted.priority is not None:
        course = with_priority(course, wanted.priority, own=own)
    if wanted.deadline is not None or wanted.clear_deadline:
        course = with_deadline(course, wanted.deadline, own=own)
    return course

"""Priorities, deadlines, budgets and plans: ``/scheduler``, ``/agents/{id}/schedule``, ``/agents/{id}/plan``."""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from borough.core.errors import Unavailable
from borough.governance.budgets import Limits, from_micros, to_micros
from borough.governance.courses import LEAST_PRIORITY, MOST_PRIORITY, MOST_STEPS, Plan, PlanStep
from borough.governance.services.schedule import ScheduleChange, Standing
from borough.http.governance.agent_wire import Amounts, PlannedStep, limits, spent
from borough.http.governance.common import (
    AGENT_ERRORS,
    LEDGER_ERRORS,
    REFUSALS,
    agent_id,
    asker,
    moment,
    parse_moment,
)
from borough.http.operations import Access, Answer, Call, Operation

_Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]


class BudgetRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """The whole new budget; what is left out is not limited."""

    calls: _Count | None = None
    tokens: _Count | None = None
    cost: Annotated[float, Meta(ge=0)] | None = None
    wall_time_secs: Annotated[int, Meta(ge=1, le=2**53 - 1)] | None = None


class ScheduleRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """What is to be changed; what is left out stays."""

    priority: Annotated[int, Meta(ge=LEAST_PRIORITY, le=MOST_PRIORITY)] | UnsetType = UNSET
    deadline: Annotated[str, Meta(description="RFC 3339; null clears it")] | UnsetType | None = UNSET
    budget: BudgetRequest | UnsetType = UNSET


class ScheduleShown(Struct, kw_only=True):
    agent_id: str
    name: str
    state: str
    status: str
    priority: int
    effective_priority: int
    """With what a near deadline adds."""
    deadline: str | None
    budget: Amounts
    spent: Amounts


class ToolUseShown(Struct, kw_only=True):
    tool: str
    calls: int
    cost: float
    mean_latency_ms: float


class Scheduler(Struct, kw_only=True):
    agents: list[ScheduleShown]
    """The most urgent first."""
    tools: list[ToolUseShown]


class PlanRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    steps: Annotated[list[PlannedStep], Meta(max_length=MOST_STEPS)]
    reason: Annotated[str, Meta(max_length=4096)] | None = None


class PlanShown(Struct, kw_only=True):
    steps: list[PlannedStep]
    revision: int
    """0: none was declared."""
    declared_at: str | None


async def overview(call: Call) -> object:
    found = await call.state.schedule.overview(asker(call))
    return Scheduler(
        agents=[_shown(one) for one in found.agents],
        tools=[
            ToolUseShown(
                tool=use.tool,
                calls=use.calls,
                cost=from_micros(use.cost_micros),
                mean_latency_ms=use.mean_latency_ms,
            )
            for use in found.tools
        ],
    )


async def show(call: Call) -> object:
    return _shown(await call.state.schedule.show(asker(call), agent_id(call)))


async def change(call: Call) -> object:
    return _shown(await call.state.schedule.change(asker(call), agent_id(call), _wanted(call.body)))


async def plan(call: Call) -> object:
    return _plan(await call.state.schedule.plan(asker(call), agent_id(call)))


async def declare_plan(call: Call) -> object:
    body: PlanRequest = call.body
    steps = tuple(PlanStep(description=step.description, tool=step.tool) for step in body.steps)
    return _plan(await call.state.schedule.declare_plan(asker(call), agent_id(call), steps, reason=body.reason))


async def not_available(_: Call) -> object:
    raise Unavailable(
        "not available in this version",
        code="not_available",
        reason="this version neither replays what agents did nor looks for anomalies",
        resolution="read the agent's entries in the ledger instead: GET /agents/{id}/audit",
    )


def _wanted(body: ScheduleRequest) -> ScheduleChange:
    deadline = None if body.deadline is UNSET or body.deadline is None else parse_moment(body.deadline, "deadline")
    return ScheduleChange(
        priority=None if body.priority is UNSET else body.priority,
        deadline=deadline,
        clear_deadline=body.deadline is None,
        budget=None if body.budget is UNSET else _budget(body.budget),
    )


def _budget(body: BudgetRequest) -> Limits:
    return Limits(
        calls=body.calls,
        tokens=body.tokens,
        cost_micros=None if body.cost is None else to_micros(body.cost),
        wall_time_s=body.wall_time_secs,
    )


def _shown(one: Standing) -> ScheduleShown:
    agent = one.agent
    return ScheduleShown(
        agent_id=agent.id,
        name=agent.name,
        state=agent.phase.value,
        status=agent.status.value,
        priority=one.course.priority,
        effective_priority=one.effective_priority,
        deadline=moment(one.course.deadline),
        budget=limits(agent.budget),
        spent=spent(one.spent),
    )


def _plan(of: Plan | None) -> PlanShown:
    if of is None:
        return PlanShown(steps=[], revision=0, declared_at=None)
    return PlanShown(
        steps=[PlannedStep(description=step.description, tool=step.tool) for step in of.steps],
        revision=of.revision,
        declared_at=moment(of.declared_at),
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/scheduler",
        handler=overview,
        access=Access.CALLER,
        summary="How the agents that run stand to one another, and what their calls took",
        tag="schedule",
        answers=(Answer(status=200, body=Scheduler, description="agents and tools"),),
        errors=REFUSALS,
    ),
    Operation(
        method="GET",
        path="/agents/{id}/schedule",
        handler=show,
        access=Access.CALLER,
        summary="An agent's priority, deadline and budget",
        tag="schedule",
        answers=(Answer(status=200, body=ScheduleShown, description="how it stands"),),
        errors=AGENT_ERRORS,
    ),
    Operation(
        method="PATCH",
        path="/agents/{id}/schedule",
        handler=change,
        access=Access.CALLER,
        summary="Change an agent's priority, deadline or budget",
        tag="schedule",
        body=ScheduleRequest,
        answers=(Answer(status=200, body=ScheduleShown, description="how it stands now"),),
        errors={
            **AGENT_ERRORS,
            **LEDGER_ERRORS,
            "invalid_priority": 422,
            "invalid_query": 400,
            "invalid_amount": 422,
            "not_by_itself": 403,
        },
    ),
    Operation(
        method="GET",
        path="/agents/{id}/plan",
        handler=plan,
        access=Access.CALLER,
        summary="What the agent's present run declared to do",
        tag="schedule",
        answers=(Answer(status=200, body=PlanShown, description="the plan"),),
        errors=AGENT_ERRORS,
    ),
    Operation(
        method="PUT",
        path="/agents/{id}/plan",
        handler=declare_plan,
        access=Access.CALLER,
        summary="Declare a plan, or revise it; it binds to nothing",
        tag="schedule",
        body=PlanRequest,
        answers=(Answer(status=200, body=PlanShown, description="the plan"),),
        errors={**AGENT_ERRORS, **LEDGER_ERRORS, "invalid_plan": 422, "agent_not_running": 409},
    ),
    *(
        Operation(
            method="GET",
            path=path,
            handler=not_available,
            access=Access.CALLER,
            summary=f"{what}; not available in this version",
            tag="schedule",
            answers=(Answer(status=200, body=None, description="never, in this version"),),
            errors={"not_available": 501},
        )
        for path, what in (("/agents/{id}/timeline", "What an agent did, in order"), ("/anomalies", "Anomalies"))
    ),
)

"""Every state answers why, since when, what next."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from borough.core.ids import AgentId, TaskId
from borough.town.agents import Agent, AgentState
from borough.town.explain import TaskContext, explain_agent, explain_task
from borough.town.tasks import Task, TaskKind, TaskState

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
AGENT = Agent(
    id=AgentId("a1"),
    name="ada",
    nickname=None,
    role_id="backend",
    parent_agent_id=None,
    spawn_mode="fresh",
    cli="claude",
    state=AgentState.IDLE,
    state_since=NOW,
    reason=None,
    current_task=None,
    current_scope=None,
    created_at=NOW,
    last_heartbeat=NOW,
    last_active_at=NOW,
    tasks_completed=0,
    rounds_completed=0,
    inbox_len=0,
    urgent_len=0,
    incarnation=1,
    lease_expires_at=NOW + timedelta(seconds=15),
    process=None,
)
TASK = Task(
    id=TaskId("t1"),
    description="do",
    kind=TaskKind.ASSIGNMENT,
    state=TaskState.PENDING,
    sender=AgentId("s"),
    role=None,
    urgent=False,
    tags=(),
    parent_id=None,
    assigned_to=None,
    attempts=0,
    max_attempts=3,
    epoch=0,
    timeout_s=None,
    created_at=NOW,
    updated_at=NOW,
    started_at=None,
    completed_at=None,
    not_before=None,
    lease_expires_at=None,
    result=None,
    last_error=None,
)


def context(task: Task, *, agent: Agent | None = None, matching: int = 0, idle: int = 0, ahead: int = 0) -> TaskContext:
    return TaskContext(
        task=task,
        at=NOW,
        state_since=NOW,
        agent=agent,
        ahead=ahead,
        matching_agents=matching,
        idle_matching_agents=idle,
    )


@pytest.mark.parametrize("state", list(TaskState))
@pytest.mark.parametrize("agent", [None, AGENT, replace(AGENT, state=AgentState.ERROR, reason="gone")])
def test_every_task_state_is_explained(state: TaskState, agent: Agent | None) -> None:
    told = explain_task(context(replace(TASK, state=state), agent=agent))
    assert told.state == state.value
    assert told.why
    assert told.next
    assert told.since == NOW


@pytest.mark.parametrize("state", list(AgentState))
def test_every_agent_state_is_explained(state: AgentState) -> None:
    told = explain_agent(replace(AGENT, state=state, reason="because"), now=NOW)
    assert "because" in told.why
    assert told.next


def test_a_task_that_no_agent_may_take_says_so_and_how_to_start_one() -> None:
    told = explain_task(context(replace(TASK, role="backend")))
    assert "backend" in told.why
    assert any("tt spawn NAME --role backend" in step for step in told.next)


def test_a_delayed_task_says_when_it_is_tried_again() -> None:
    due = NOW + timedelta(seconds=4)
    told = explain_task(context(replace(TASK, state=TaskState.DELAYED, not_before=due, last_error="exit code 2")))
    assert told.deadline == due
    assert "exit code 2" in told.why


def test_a_silent_agent_is_called_silent() -> None:
    told = explain_agent(replace(AGENT, lease_expires_at=NOW - timedelta(seconds=1)), now=NOW)
    assert "nothing was heard" in told.why

"""Why a task or an agent stands where it stands, since when, and what comes next."""

from dataclasses import dataclass
from datetime import datetime

from borough.core.clock import rfc3339
from borough.town.agents import Agent, AgentState, is_live
from borough.town.names import DEFAULT_ROLE
from borough.town.tasks import Task, TaskState


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskContext:
    """A task with what explains where it stands."""

    task: Task
    at: datetime
    state_since: datetime
    agent: Agent | None
    """Its assignee, if that is still registered."""
    ahead: int
    """Entries of the same queue that come before it, while it waits."""
    matching_agents: int
    """Live agents that could take it from the backlog."""
    idle_matching_agents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What, why, since when, what next."""

    subject: str
    state: str
    why: str
    since: datetime
    deadline: datetime | None
    """When this ends by itself at the latest, if it does."""
    next: tuple[str, ...]


def explain_task(context: TaskContext) -> Explanation:
    """Explain where a task stands."""
    why, deadline, steps = _TASK_EXPLAINERS[context.task.state](context)
    return Explanation(
        subject=f"task {context.task.id}",
        state=context.task.state.value,
        why=why,
        since=context.state_since,
        deadline=deadline,
        next=steps,
    )


_Answer = tuple[str, datetime | None, tuple[str, ...]]


def _pending(context: TaskContext) -> _Answer:
    task = context.task
    wanted = f"of role {task.role!r}" if task.role else "of any role"
    queue = f"{context.ahead} task(s) of its queue come first" if context.ahead else "it is next in its queue"
    if context.matching_agents == 0:
        role = f" --role {task.role}" if task.role else ""
        return (
            f"it waits in the backlog for an agent {wanted}, and no such agent runs; {queue}",
            None,
            (f"start one: tt spawn NAME{role}", f"or give it to somebody: tt backlog claim {task.id} AGENT"),
        )
    if context.idle_matching_agents == 0:
        return (
            f"all {context.matching_agents} agent(s) {wanted} are busy; {queue}",
            None,
            ("the first of them to finish takes the next task", "more agents make it faster: tt spawn NAME"),
        )
    return f"an idle agent {wanted} is about to take it; {queue}", None, ("nothing to do",)


def _assigned(context: TaskContext) -> _Answer:
    task, agent = context.task, context.agent
    to_backlog = f"give it to whoever is free: tt reclaim --from {agent.name if agent else ''} --to-backlog --yes"
    if agent is None:
        return "its agent is no longer registered", None, ("tt reclaim --orphan-tasks --to-backlog --yes",)
    if agent.state in (AgentState.STOPPED, AgentState.ERROR):
        return (
            f"it waits in the inbox of {agent.name}, which has ended ({agent.reason or agent.state.value})",
            None,
            (f"start the agent again: tt restart {agent.name}", to_backlog),
        )
    if agent.state is AgentState.PAUSED:
        return (
            f"it waits in the inbox of {agent.name}, which is paused",
            None,
            (f"tt resume {agent.name}",),
        )
    busy = f", which works on {agent.current_task}" if agent.current_task else f", which is {agent.state.value}"
    return (
        f"it waits in the inbox of {agent.name}{busy}; {context.ahead} task(s) come first",
        None,
        ("it is taken when its turn comes", f"take it back: tt task cancel {task.id}"),
    )


def _running(context: TaskContext) -> _Answer:
    task = context.task
    who = context.agent.name if context.agent else "a worker"
    return (
        f"{who} works on it: attempt {task.attempts} of {task.max_attempts}, epoch {task.epoch}",
        task.lease_expires_at,
        (
            "its lease is renewed while the worker lives; when it ends, the task is tried again",
            f"watch it: tt task log {task.id} -f",
        ),
    )


def _delayed(context: TaskContext) -> _Answer:
    task = context.task
    return (
        f"attempt {task.attempts} of {task.max_attempts} failed: {task.last_error or 'no reason given'}",
        task.not_before,
        ("it is tried again by itself then", f"do not wait: tt task retry {task.id}"),
    )


def _completed(context: TaskContext) -> _Answer:
    done = context.task.completed_at
    return f"it was completed{f' at {rfc3339(done)}' if done else ''}", None, ("nothing to do",)


def _failed(context: TaskContext) -> _Answer:
    task = context.task
    return (
        f"it is a dead letter after {task.attempts} attempt(s): {task.last_error or task.result or 'no reason given'}",
        None,
        (f"mend the cause, then: tt task retry {task.id}", f"read what happened: tt task log {task.id}"),
    )


def _cancelled(context: TaskContext) -> _Answer:
    task = context.task
    return f"it was cancelled: {task.result or 'no reason given'}", None, (f"revive it: tt task retry {task.id}",)


_TASK_EXPLAINERS = {
    TaskState.PENDING: _pending,
    TaskState.ASSIGNED: _assigned,
    TaskState.RUNNING: _running,
    TaskState.DELAYED: _delayed,
    TaskState.COMPLETED: _completed,
    TaskState.FAILED: _failed,
    TaskState.CANCELLED: _cancelled,
}


def explain_agent(agent: Agent, *, now: datetime) -> Explanation:
    """Explain where an agent stands."""
    why, deadline, steps = _agent_reason(agent, now)
    return Explanation(
        subject=f"agent {agent.name}",
        state=agent.state.value.capitalize(),
        why=why if agent.reason is None else f"{why} ({agent.reason})",
        since=agent.state_since,
        deadline=deadline,
        next=steps,
    )


def _agent_reason(agent: Agent, now: datetime) -> _Answer:  # noqa: PLR0911 - one answer a state
    live = is_live(agent.state, lease_expires_at=agent.lease_expires_at, last_heartbeat=agent.last_heartbeat, now=now)
    waiting = agent.inbox_len + agent.urgent_len
    silent = "" if live else "; nothing was heard of it for too long, it is about to be declared lost"
    match agent.state:
        case AgentState.STARTING:
            return (
                f"its process was started and has not reported yet{silent}",
                agent.lease_expires_at,
                (f"read what it says: .tt/logs/{agent.name}.log",),
            )
        case AgentState.IDLE:
            role = "any role" if agent.role == DEFAULT_ROLE else f"role {agent.role!r}"
            return (
                f"it waits for work of {role}{silent}",
                agent.lease_expires_at,
                ("it takes the next task that fits, or leaves when its idle time is over",),
            )
        case AgentState.WORKING:
            return (
                f"it works on {agent.current_task}: {agent.current_scope or ''}{silent}".rstrip(": "),
                agent.lease_expires_at,
                (f"watch it: tt task log {agent.current_task} -f",),
            )
        case AgentState.PAUSED:
            return f"somebody paused it; {waiting} entries wait in its inbox", None, (f"tt resume {agent.name}",)
        case AgentState.DRAINING:
            return "it finishes what it has and then leaves", agent.lease_expires_at, ("nothing to do",)
        case AgentState.ERROR:
            return (
                f"its process ended or fell silent; {waiting} entries wait in its inbox",
                None,
                (f"tt restart {agent.name}", f"read what it said: .tt/logs/{agent.name}.log"),
            )
        case AgentState.COLD | AgentState.STOPPED:
            return (
                f"it does not run; {waiting} entries wait in its inbox",
                None,
                (f"tt restart {agent.name}", "or forget it: tt prune --yes"),
            )

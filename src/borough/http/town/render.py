"""Values of the town → its JSON."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from borough.core.clock import rfc3339
from borough.core.events import Event
from borough.core.paging import Page, encode_cursor
from borough.http.town import views, wire
from borough.town.agents import Agent, Confinement, is_live
from borough.town.explain import Explanation
from borough.town.messages import Inbox, Message, summary
from borough.town.ports.tasks import Assignment
from borough.town.tasks import HistoryEntry, Task


def moment(at: datetime | None) -> str | None:
    """Return a time as it goes over the wire."""
    return None if at is None else rfc3339(at)


def cursor(page: Page[Any]) -> str | None:
    """Return the cursor of the page after ``page``."""
    return None if page.after is None else encode_cursor(page.after)


def task_view(task: Task) -> views.TaskView:
    """Return a task as our own routes show it."""
    return views.TaskView(**_task_fields(task))


def task_detail(task: Task, history: Iterable[HistoryEntry]) -> views.TaskDetail:
    """Return a task with what happened to it."""
    return views.TaskDetail(**_task_fields(task), history=[history_entry(entry) for entry in history])


def _task_fields(task: Task) -> dict[str, Any]:
    return {
        "task_id": task.id,
        "description": task.description,
        "kind": task.kind.value,
        "state": task.state.value,
        "role": task.role,
        "urgent": task.urgent,
        "tags": list(task.tags),
        "sender": task.sender,
        "parent_id": task.parent_id,
        "agent_id": task.assigned_to,
        "attempts": task.attempts,
        "max_attempts": task.max_attempts,
        "epoch": task.epoch,
        "timeout_secs": task.timeout_s,
        "created_at": rfc3339(task.created_at),
        "updated_at": rfc3339(task.updated_at),
        "started_at": moment(task.started_at),
        "completed_at": moment(task.completed_at),
        "not_before": moment(task.not_before),
        "lease_expires_at": moment(task.lease_expires_at),
        "result": task.result,
        "last_error": task.last_error,
    }


def history_entry(entry: HistoryEntry) -> wire.HistoryEntry:
    """Return one line of a history."""
    return wire.HistoryEntry(
        at=rfc3339(entry.at),
        event=entry.event,
        old_state=entry.old_state,
        new_state=entry.new_state,
        agent_id=entry.agent_id,
        attempt=entry.attempt,
        reason=entry.reason,
    )


def agent_summary(agent: Agent) -> wire.AgentSummary:
    """Return an agent as the reference lists it."""
    return wire.AgentSummary(**_summary_fields(agent))


def agent_full(agent: Agent, confinement: Confinement | None, *, now: datetime) -> wire.AgentFull:
    """Return an agent as the reference's status shows it, and more."""
    return wire.AgentFull(**_full_fields(agent, confinement, now))


def agent_detail(
    agent: Agent, confinement: Confinement | None, history: Iterable[HistoryEntry], *, now: datetime
) -> wire.AgentDetail:
    """Return an agent with what happened to it."""
    return wire.AgentDetail(
        **_full_fields(agent, confinement, now), history=[history_entry(entry) for entry in history]
    )


def _summary_fields(agent: Agent) -> dict[str, Any]:
    return {
        "id": agent.id,
        "name": agent.name,
        "nickname": agent.nickname,
        "role_id": agent.role_id,
        "parent_agent_id": agent.parent_agent_id,
        "spawn_mode": agent.spawn_mode,
        "cli": agent.cli,
        "state": agent.state.value.capitalize(),
        "current_scope": agent.current_scope,
    }


def _full_fields(agent: Agent, confinement: Confinement | None, now: datetime) -> dict[str, Any]:
    return {
        **_summary_fields(agent),
        "rounds_completed": agent.rounds_completed,
        "tasks_completed": agent.tasks_completed,
        "inbox_len": agent.inbox_len,
        "urgent_len": agent.urgent_len,
        "label": agent.label,
        "state_since": rfc3339(agent.state_since),
        "reason": agent.reason,
        "current_task": agent.current_task,
        "created_at": rfc3339(agent.created_at),
        "last_heartbeat": rfc3339(agent.last_heartbeat),
        "last_active_at": rfc3339(agent.last_active_at),
        "lease_expires_at": moment(agent.lease_expires_at),
        "live": is_live(
            agent.state, lease_expires_at=agent.lease_expires_at, last_heartbeat=agent.last_heartbeat, now=now
        ),
        "incarnation": agent.incarnation,
        "host": agent.process.host if agent.process else None,
        "pid": agent.process.pid if agent.process else None,
        "boxed": confinement.boxed if confinement else None,
        "not_boxed_because": confinement.reason if confinement else None,
    }


def assigned(assignment: Assignment) -> wire.Assigned:
    """Return whom a task went to."""
    return wire.Assigned(task_id=assignment.task.id, agent_id=assignment.agent_id, agent_name=assignment.agent_name)


def pending_task(assignment: Assignment) -> wire.PendingTask:
    """Return work that waits for one agent."""
    return wire.PendingTask(
        task_id=assignment.task.id,
        description=assignment.task.description,
        agent_id=assignment.agent_id,
        agent_name=assignment.agent_name,
    )


def inbox(asked_for: str, found: Inbox) -> wire.InboxList:
    """Return an inbox as the reference lists it."""
    return wire.InboxList(
        agent=asked_for,
        total=found.total,
        urgent=found.urgent,
        messages=[
            wire.InboxEntry(
                id=message.id,
                from_=message.sender,
                type=message.type,
                summary=summary(message),
                urgent=message.urgent,
            )
            for message in found.messages
        ],
    )


def message_view(message: Message) -> views.MessageView:
    """Return a message whole."""
    return views.MessageView(
        id=message.id,
        from_=message.sender,
        to=message.to,
        type=message.type,
        text=message.text,
        urgent=message.urgent,
        created_at=rfc3339(message.created_at),
    )


def explanation(found: Explanation) -> views.Explanation:
    """Return why something stands where it stands."""
    return views.Explanation(
        subject=found.subject,
        state=found.state,
        why=found.why,
        since=rfc3339(found.since),
        deadline=moment(found.deadline),
        next=list(found.next),
    )


_EVENT_NUMBERS = frozenset({"attempt", "epoch"})
_EVENT_MEMBERS = frozenset(views.EventView.__struct_fields__) - {"id", "event_type", "message", "timestamp"}


def event_view(event: Event) -> views.EventView:
    """Return an event as the reference writes it; members that do not apply are left out."""
    return views.EventView(
        id=event.id,
        event_type=event.type,
        message=event.message,
        timestamp=rfc3339(event.at),
        **event_members(event.subjects),
    )


def event_members(subjects: Mapping[str, str]) -> dict[str, Any]:
    """Return what an event is about, by the names of the reference."""
    return {
        name: int(value) if name in _EVENT_NUMBERS else value
        for name, value in subjects.items()
        if name in _EVENT_MEMBERS
    }

"""Flat answers of the server, read into frozen values."""

import json
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from borough.core.clock import from_ms
from borough.core.events import Event
from borough.core.ids import AgentId, MessageId, TaskId
from borough.town.agents import Agent, AgentState, WorkerProcess
from borough.town.messages import Message
from borough.town.ports.tasks import Assignment
from borough.town.tasks import HistoryEntry, Task, TaskKind, TaskState

TASK_FIELDS = tuple(field.name for field in fields(Task))
"""A task's record has a field for each attribute, under its name."""

AGENT_FIELDS = (
    *(
        field.name
        for field in fields(Agent)
        if field.name not in {"current_scope", "inbox_len", "urgent_len", "process"}
    ),
    "process_host",
    "process_pid",
    "process_started_ticks",
)
"""What is stored of an agent; after these an answer has ``inbox_len``, ``urgent_len`` and ``current_scope``."""

MESSAGE_FIELDS = ("id", "type", "text", "sender", "to", "urgent", "created_at")

Raw = Sequence[Any]


def text(value: bytes) -> str:
    """Return text as the town means it: UTF-8."""
    return value.decode()


def optional_text(value: bytes | None) -> str | None:
    """Return text, or ``None`` where a record lacks the field."""
    return None if value is None else value.decode()


def moment(value: bytes | int) -> datetime:
    """Return the time that a stored number of milliseconds stands for."""
    return from_ms(int(value))


def optional_moment(value: bytes | int | None) -> datetime | None:
    """Return the time, or ``None`` where a record lacks the field."""
    return None if value is None else from_ms(int(value))


def task(raw: Raw) -> Task:
    """Read a task in the order of ``TASK_FIELDS``."""
    values = dict(zip(TASK_FIELDS, raw, strict=True))
    parent, assignee = optional_text(values["parent_id"]), optional_text(values["assigned_to"])
    return Task(
        id=TaskId(text(values["id"])),
        description=text(values["description"]),
        kind=TaskKind(text(values["kind"])),
        state=TaskState(text(values["state"])),
        sender=AgentId(text(values["sender"])),
        role=optional_text(values["role"]),
        urgent=values["urgent"] == b"1",
        tags=tuple(json.loads(values["tags"])),
        parent_id=None if parent is None else TaskId(parent),
        assigned_to=None if assignee is None else AgentId(assignee),
        attempts=int(values["attempts"]),
        max_attempts=int(values["max_attempts"]),
        epoch=int(values["epoch"]),
        timeout_s=None if values["timeout_s"] is None else int(values["timeout_s"]),
        created_at=moment(values["created_at"]),
        updated_at=moment(values["updated_at"]),
        started_at=optional_moment(values["started_at"]),
        completed_at=optional_moment(values["completed_at"]),
        not_before=optional_moment(values["not_before"]),
        lease_expires_at=optional_moment(values["lease_expires_at"]),
        result=optional_text(values["result"]),
        last_error=optional_text(values["last_error"]),
    )


def agent(raw: Raw) -> Agent:
    """Read an agent in the order of ``AGENT_FIELDS`` and what follows them."""
    values = dict(zip((*AGENT_FIELDS, "inbox_len", "urgent_len", "current_scope"), raw, strict=True))
    parent, current = optional_text(values["parent_agent_id"]), optional_text(values["current_task"])
    return Agent(
        id=AgentId(text(values["id"])),
        name=text(values["name"]),
        nickname=optional_text(values["nickname"]),
        role_id=optional_text(values["role_id"]),
        parent_agent_id=None if parent is None else AgentId(parent),
        spawn_mode=text(values["spawn_mode"]),
        cli=text(values["cli"]),
        state=AgentState(text(values["state"])),
        state_since=moment(values["state_since"]),
        reason=optional_text(values["reason"]),
        current_task=None if current is None else TaskId(current),
        current_scope=optional_text(values["current_scope"]),
        created_at=moment(values["created_at"]),
        last_heartbeat=moment(values["last_heartbeat"]),
        last_active_at=moment(values["last_active_at"]),
        tasks_completed=int(values["tasks_completed"]),
        rounds_completed=int(values["rounds_completed"]),
        inbox_len=values["inbox_len"],
        urgent_len=values["urgent_len"],
        incarnation=int(values["incarnation"]),
        lease_expires_at=optional_moment(values["lease_expires_at"]),
        process=_process(values["process_host"], values["process_pid"], values["process_started_ticks"]),
    )


def _process(host: bytes | None, pid: bytes | None, ticks: bytes | None) -> WorkerProcess | None:
    if host is None or pid is None or ticks is None:
        return None
    return WorkerProcess(host=text(host), pid=int(pid), started_ticks=int(ticks))


def message(raw: Raw) -> Message:
    """Read a message in the order of ``MESSAGE_FIELDS``."""
    values = dict(zip(MESSAGE_FIELDS, raw, strict=True))
    return Message(
        id=MessageId(text(values["id"])),
        type=text(values["type"]),
        text=text(values["text"]),
        sender=AgentId(text(values["sender"])),
        to=AgentId(text(values["to"])),
        urgent=values["urgent"] == b"1",
        created_at=moment(values["created_at"]),
    )


def assignment(raw: Raw) -> Assignment:
    """Read a task, whose it is, and that agent's name."""
    record, agent_id, name = raw
    return Assignment(task=task(record), agent_id=AgentId(text(agent_id)), agent_name=text(name))


def history(raw: Raw) -> tuple[HistoryEntry, ...]:
    """Read a history list."""
    return tuple(_history_entry(json.loads(entry)) for entry in raw)


def _history_entry(values: dict[str, Any]) -> HistoryEntry:
    return HistoryEntry(
        at=from_ms(values["at"]),
        event=values["event"],
        old_state=values.get("old_state"),
        new_state=values.get("new_state"),
        agent_id=values.get("agent_id"),
        attempt=values.get("attempt"),
        reason=values.get("reason"),
    )


def event(raw: Raw) -> Event:
    """Read an entry of an event stream: its id, and fields of which ``data`` is the event as JSON."""
    event_id, pairs = raw
    values = json.loads(pairs[pairs.index(b"data") + 1])
    known = {"event_type", "message", "timestamp"}
    return Event(
        id=text(event_id),
        type=values["event_type"],
        at=datetime.fromisoformat(values["timestamp"]),
        message=values["message"],
        subjects={name: str(value) for name, value in values.items() if name not in known},
    )


def tasks(raw: Raw) -> tuple[Task, ...]:
    """Read several tasks."""
    return tuple(task(record) for record in raw)


def task_ids(raw: Raw) -> tuple[TaskId, ...]:
    """Read several ids of tasks."""
    return tuple(TaskId(text(value)) for value in raw)

"""What the town's own routes answer: tasks, messages, events."""

import msgspec
from msgspec import Struct

from borough.http.town.wire import HistoryEntry, Timestamp, Uuid


class TaskView(Struct, kw_only=True):
    task_id: Uuid
    description: str
    kind: str
    state: str
    role: str | None
    urgent: bool
    tags: list[str]
    sender: Uuid
    parent_id: Uuid | None
    agent_id: Uuid | None
    attempts: int
    max_attempts: int
    epoch: int
    timeout_secs: int | None
    created_at: Timestamp
    updated_at: Timestamp
    started_at: Timestamp | None
    completed_at: Timestamp | None
    not_before: Timestamp | None
    lease_expires_at: Timestamp | None
    result: str | None
    last_error: str | None


class TaskDetail(TaskView, kw_only=True):
    history: list[HistoryEntry]


class TaskList(Struct, kw_only=True):
    tasks: list[TaskView]
    count: int
    next_cursor: str | None


class Explanation(Struct, kw_only=True):
    subject: str
    state: str
    why: str
    since: Timestamp
    deadline: Timestamp | None
    """When this ends by itself at the latest, if it does."""
    next: list[str]
    """What happens next, or what somebody can do."""


class Replayed(Struct, kw_only=True):
    replayed: int
    tasks: list[Uuid]


class MessageView(Struct, kw_only=True):
    id: Uuid
    from_: Uuid = msgspec.field(name="from")
    to: Uuid
    type: str
    text: str
    urgent: bool
    created_at: Timestamp


class Acknowledged(Struct, kw_only=True):
    acknowledged: int


class EventView(Struct, kw_only=True, omit_defaults=True):
    """The reference's event: absent members are left out."""

    id: str
    event_type: str
    message: str
    timestamp: Timestamp
    agent_id: Uuid | None = None
    task_id: Uuid | None = None
    mission_id: Uuid | None = None
    message_id: Uuid | None = None
    old_state: str | None = None
    new_state: str | None = None
    parent_agent_id: Uuid | None = None
    child_agent_id: Uuid | None = None
    attempt: int | None = None
    epoch: int | None = None
    reason: str | None = None
    by: str | None = None


class EventList(Struct, kw_only=True):
    events: list[EventView]
    count: int


class ResetDone(Struct, kw_only=True):
    removed: int

"""The town's JSON: one struct per body. Field names and their order are those of the reference page.

Reference bodies ignore unknown members; bodies of our own routes (``Strict``) refuse them. ``null`` is present,
never left out, except where a struct says otherwise.
"""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

Text = Annotated[str, Meta(min_length=1, max_length=1_048_576, description="1 byte to 1 MiB of UTF-8")]
Ref = Annotated[
    str,
    Meta(min_length=1, max_length=256, description="an agent: id, name, nickname, label, short id, or 'supervisor'"),
]
Tag = Annotated[str, Meta(min_length=1, max_length=63)]
Role = Annotated[str, Meta(min_length=1, max_length=63)]
Epoch = Annotated[int, Meta(ge=1, le=9_007_199_254_740_991, description="the fencing token of a lease")]
Uuid = Annotated[str, Meta(description="a UUID")]
Timestamp = Annotated[str, Meta(description="RFC 3339, UTC, ends in Z")]


class Strict(Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of bodies that the reference does not have."""


# -- requests of the reference -----------------------------------------------------------------------------------------


class WorkOptions(Struct, kw_only=True):
    """What may be said of new work, beyond the reference."""

    role: Role | None = None
    urgent: bool = False
    max_attempts: Annotated[int, Meta(ge=1, le=20)] | None = None
    """``null``: as the town's settings say."""
    timeout_secs: Annotated[int, Meta(ge=1, le=604_800)] | None = None
    parent_id: Uuid | None = None


class AssignRequest(WorkOptions, kw_only=True):
    agent: Ref
    task: Text
    tags: Annotated[list[Tag], Meta(max_length=32)] = []


class BacklogRequest(WorkOptions, kw_only=True):
    description: Text
    tags: Annotated[list[Tag], Meta(max_length=32)] = []


class AgentRequest(Struct, kw_only=True):
    """The body of claim and assign-all."""

    agent: Ref


class SendRequest(Struct, kw_only=True):
    to: Ref
    message: Text
    from_: Ref | None = msgspec.field(name="from", default=None)
    kind: str = "task"
    """``task``, ``query``, ``info`` or ``ack``; anything else is 422."""
    urgent: bool = False


class SpawnRequest(Struct, kw_only=True):
    name: Annotated[str, Meta(min_length=1, max_length=256)]
    cli: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    role_id: Role | None = None
    nickname: Annotated[str, Meta(min_length=1, max_length=63)] | None = None
    parent_agent_id: Uuid | None = None


class PruneRequest(Struct, kw_only=True):
    all: bool = False
    dry_run: bool = False


class ReclaimRequest(Struct, kw_only=True):
    to_backlog: bool = False
    to: Ref | None = None
    from_: Ref | None = msgspec.field(name="from", default=None)


class OrphansRequest(Struct, kw_only=True):
    action: str = "list"
    """``list`` (also ''), ``to_backlog`` or ``backlog``, ``cancel``, ``delete``; anything else is 400."""


# -- requests of our own -----------------------------------------------------------------------------------------------


class CompleteRequest(Strict, kw_only=True):
    result: Annotated[str, Meta(max_length=1_048_576)] = "Completed"
    epoch: Epoch | None = None


class FailRequest(Strict, kw_only=True):
    reason: Text
    epoch: Epoch | None = None
    final: bool = False
    """Do not try again, whatever attempts are left."""


class CancelRequest(Strict, kw_only=True):
    reason: Annotated[str, Meta(max_length=1_048_576)] = "Cancelled"


class ReplayRequest(Strict, kw_only=True):
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class AcknowledgeRequest(Strict, kw_only=True):
    message_ids: Annotated[list[Uuid], Meta(max_length=1000)] | None = None
    """``null``: all mail."""


class ResetRequest(Strict, kw_only=True):
    confirm: str
    """The town's name, typed."""
    agents_only: bool = False


# -- answers of the reference ------------------------------------------------------------------------------------------


class Health(Struct, kw_only=True):
    status: str
    uptime_secs: int


class Ready(Struct, kw_only=True):
    status: str
    redis: str
    redis_latency_ms: float
    dispatcher: str
    town: str
    durability: str
    fleet: str | UnsetType = UNSET
    """How the fleet stands that is served beside the town; its trouble is not the town's."""
    ledger: str | UnsetType = UNSET
    """Who writes the ledger that the town shares with other programs."""


class NotReady(Struct, kw_only=True):
    status: str
    redis: str
    dispatcher: str
    town: str
    detail: str
    fleet: str | UnsetType = UNSET
    ledger: str | UnsetType = UNSET


class Scaling(Struct, kw_only=True):
    town: str
    timestamp: Timestamp
    queue_depth: int
    pending_tasks: int
    in_flight_tasks: int
    active_agents: int
    cold_agents: int
    desired_agents: int
    max_agents: int
    scaling_recommendation: str


class Town(Struct, kw_only=True):
    name: str
    root: str
    redis_url: str


class AgentSummary(Struct, kw_only=True):
    id: Uuid
    name: str
    nickname: str | None
    role_id: str | None
    parent_agent_id: Uuid | None
    spawn_mode: str
    cli: str
    state: str
    current_scope: str | None


class AgentFull(AgentSummary, kw_only=True):
    rounds_completed: int
    tasks_completed: int
    inbox_len: int
    urgent_len: int
    label: str
    state_since: Timestamp
    reason: str | None
    current_task: Uuid | None
    created_at: Timestamp
    last_heartbeat: Timestamp
    last_active_at: Timestamp
    lease_expires_at: Timestamp | None
    live: bool
    incarnation: int
    host: str | None
    pid: int | None
    boxed: bool | None
    """Whether its worker is in a box; null where it has none, or none on the server's machine."""
    not_boxed_because: str | None


class HistoryEntry(Struct, kw_only=True):
    at: Timestamp
    event: str
    old_state: str | None
    new_state: str | None
    agent_id: Uuid | None
    attempt: int | None
    reason: str | None


class AgentDetail(AgentFull, kw_only=True):
    history: list[HistoryEntry]


class Status(Town, kw_only=True):
    agent_count: int
    agents: list[AgentFull]
    tasks: dict[str, int] | None = None
    """Counts by state; with ``deep=true``."""


class AgentList(Struct, kw_only=True):
    agents: list[AgentSummary]
    count: int


class PendingTask(Struct, kw_only=True):
    task_id: Uuid
    description: str
    agent_id: Uuid
    agent_name: str


class PendingList(Struct, kw_only=True):
    tasks: list[PendingTask]
    count: int
    next_cursor: str | None


class BacklogEntry(Struct, kw_only=True):
    task_id: Uuid
    description: str
    tags: list[str]
    role: str | None
    urgent: bool


class BacklogList(Struct, kw_only=True):
    backlog: list[BacklogEntry]
    count: int
    next_cursor: str | None


class InboxEntry(Struct, kw_only=True):
    id: Uuid
    from_: Uuid = msgspec.field(name="from")
    type: str
    summary: str
    urgent: bool


class InboxList(Struct, kw_only=True):
    agent: str
    """As it was asked for."""
    total: int
    urgent: int
    messages: list[InboxEntry]


class Assigned(Struct, kw_only=True):
    task_id: Uuid
    agent_id: Uuid
    agent_name: str


class BacklogAdded(Struct, kw_only=True):
    task_id: Uuid
    description: str


class AssignedAll(Struct, kw_only=True):
    assigned: int
    tasks: list[Uuid]


class Removed(Struct, kw_only=True):
    removed: bool
    task_id: Uuid


class Sent(Struct, kw_only=True):
    message_id: Uuid
    to_agent: Uuid
    urgent: bool


class Spawned(Struct, kw_only=True):
    agent_id: Uuid
    name: str
    cli: str
    role_id: str | None
    nickname: str | None
    parent_agent_id: Uuid | None


class AgentStatus(Struct, kw_only=True):
    status: str
    agent: str
    """The agent's name."""


class Pruned(Struct, kw_only=True):
    removed: int
    agents: list[str]
    dry_run: bool


class Recovered(Struct, kw_only=True):
    checked: int
    recovered: int
    agents: list[str]


class Reclaimed(Struct, kw_only=True):
    reclaimed: int
    destination: str
    tasks: list[PendingTask]


class Orphan(Struct, kw_only=True):
    task_id: Uuid
    assigned_to: Uuid
    state: str
    reason: str


class Orphans(Struct, kw_only=True):
    action: str
    count: int
    orphans: list[Orphan]

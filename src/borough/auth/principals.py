"""A principal is who a request speaks for, once its credential was verified."""

from dataclasses import dataclass

from borough.auth.scopes import ALL_SCOPES, Scope
from borough.core.ids import AgentId, TaskId


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerGrant:
    """What a worker's token binds it to: one agent, one incarnation of it, and perhaps one attempt."""

    agent_id: AgentId
    incarnation: int
    task_id: TaskId | None = None
    """Set for the agent CLI's own token, which speaks for one attempt only."""
    epoch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A verified caller. ``id`` is what logs, events and rate limits know it by; it is never a secret."""

    id: str
    scopes: frozenset[Scope]
    worker: WorkerGrant | None = None
    caller: object | None = None
    """What a context of its own knows of the caller; only that context reads it."""


LOCAL = Principal(id="local", scopes=ALL_SCOPES)
"""Everybody, where the town's mode is ``none``."""

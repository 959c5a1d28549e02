"""Operations: long work with a name, that goes on when its caller has left and says how far it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from borough.core.errors import Unavailable

_TOLD = 3
"""How many machines' errors are in one message; all are in the operation."""


class OperationKind(StrEnum):
    """What is done."""

    CREATE = "create"
    DELETE = "delete"
    STOP = "stop"
    START = "start"
    PAUSE = "pause"
    SNAPSHOT = "snapshot"
    RESTORE = "restore"
    CLONE = "clone"
    DRAIN = "drain"
    FETCH_IMAGE = "fetch_image"


class OperationState(StrEnum):
    """How it stands."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    """Some of the machines are as wanted, others are not; ``errors`` says which and why."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Work on an environment, a machine or a host."""

    id: str
    kind: OperationKind
    subject: str
    """The id of what is worked on."""
    state: OperationState
    started_at: datetime
    ended_at: datetime | None = None
    total: int = 0
    done: int = 0
    errors: Mapping[str, str] = field(default_factory=dict)
    """By machine (or host): what went wrong."""
    warnings: tuple[str, ...] = ()
    """What is to be known of it while it goes on."""
    doing: str | None = None
    """What is done just now, where that takes long; known while it runs, and not kept."""
    arguments: Mapping[str, str] = field(default_factory=dict)
    """What was chosen when it was begun, for when it is taken up again."""


def progressed(operation: Operation, *, ok: bool, what: str, error: str | None = None) -> Operation:
    """Return ``operation`` one step further; ``what`` is the machine that the step was about."""
    errors = operation.errors if ok else {**operation.errors, what: error or "it failed"}
    return replace(operation, done=operation.done + 1, errors=errors)


def concluded(operation: Operation, *, at: datetime) -> Operation:
    """Return ``operation`` ended, by how its steps went."""
    failed = len(operation.errors)
    if not failed:
        state = OperationState.SUCCEEDED
    else:
        state = OperationState.FAILED if failed >= max(operation.total, 1) else OperationState.PARTIAL
    return replace(operation, state=state, ended_at=at)


def not_done(operation: Operation) -> Unavailable:
    """Return the error for an operation that did not come to what was asked for, with what each machine said."""
    told = "; ".join(list(operation.errors.values())[:_TOLD])
    if len(operation.errors) > _TOLD:
        told += f"; and {len(operation.errors) - _TOLD} more"
    return Unavailable(
        f"{operation.kind.value} of {operation.subject} is not done: {told}",
        code="operation_failed",
        resolution=f"see GET /api/operations/{operation.id}; what is being deleted is tried again by itself",
        details={"operation": operation.id},
    )

"""Workspaces: ``/agents/{id}/workspace/…``."""

from typing import Annotated

from msgspec import Meta, Struct

from borough.core.clock import rfc3339
from borough.governance.ports.workspaces import Snapshot
from borough.governance.services.workspaces import MOST_DESCRIPTION
from borough.http.governance.common import AGENT_ERRORS, LEDGER_ERRORS, agent_id, asker
from borough.http.operations import Access, Answer, Call, Operation, Reply

WORKSPACE_ERRORS = {**AGENT_ERRORS, **LEDGER_ERRORS}


class DescribedRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    description: Annotated[str, Meta(max_length=MOST_DESCRIPTION)] = ""


class RollbackRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    index: Annotated[int, Meta(ge=0, description="of the snapshot, counted from the oldest")]


class SnapshotShown(Struct, kw_only=True):
    index: int
    created_at: str
    description: str
    size_bytes: int


class ChangeShown(Struct, kw_only=True):
    path: str
    change: str
    """``added``, ``modified`` or ``deleted``."""


async def history(call: Call) -> object:
    return [_shown(one) for one in await call.state.workspaces.history(asker(call), agent_id(call))]


async def snapshot(call: Call) -> object:
    made = await call.state.workspaces.snapshot(asker(call), agent_id(call), description=call.body.description)
    return Reply(status=201, body=_shown(made))


async def diff(call: Call) -> object:
    changes = await call.state.workspaces.diff(asker(call), agent_id(call))
    return [ChangeShown(path=change.path, change=change.kind.value) for change in changes]


async def rollback(call: Call) -> object:
    return _shown(await call.state.workspaces.rollback(asker(call), agent_id(call), call.body.index))


async def commit(call: Call) -> object:
    made = await call.state.workspaces.commit(asker(call), agent_id(call), description=call.body.description)
    return Reply(status=201, body=_shown(made))


def _shown(one: Snapshot) -> SnapshotShown:
    return SnapshotShown(
        index=one.index,
        created_at=rfc3339(one.created_at),
        description=one.description,
        size_bytes=one.size_bytes,
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/agents/{id}/workspace/snapshots",
        handler=history,
        access=Access.CALLER,
        summary="The snapshots of a workspace",
        tag="workspaces",
        answers=(Answer(status=200, body=list[SnapshotShown], description="oldest first"),),
        errors=AGENT_ERRORS,
    ),
    Operation(
        method="POST",
        path="/agents/{id}/workspace/snapshots",
        handler=snapshot,
        access=Access.CALLER,
        summary="Keep the present state of a workspace",
        tag="workspaces",
        body=DescribedRequest,
        body_optional=True,
        answers=(Answer(status=201, body=SnapshotShown, description="the snapshot"),),
        errors=WORKSPACE_ERRORS,
    ),
    Operation(
        method="GET",
        path="/agents/{id}/workspace/diff",
        handler=diff,
        access=Access.CALLER,
        summary="What differs from the last snapshot, or from the base",
        tag="workspaces",
        answers=(Answer(status=200, body=list[ChangeShown], description="by path"),),
        errors=AGENT_ERRORS,
    ),
    Operation(
        method="POST",
        path="/agents/{id}/workspace/rollback",
        handler=rollback,
        access=Access.CALLER,
        summary="Return to a snapshot; the agent is stopped where it is meanwhile",
        tag="workspaces",
        body=RollbackRequest,
        answers=(Answer(status=200, body=SnapshotShown, description="the snapshot that is there again"),),
        errors={**WORKSPACE_ERRORS, "snapshot_not_found": 404},
    ),
    Operation(
        method="POST",
        path="/agents/{id}/workspace/commit",
        handler=commit,
        access=Access.CALLER,
        summary="Make the present state a lasting snapshot on which later changes are counted anew",
        tag="workspaces",
        body=DescribedRequest,
        body_optional=True,
        answers=(Answer(status=201, body=SnapshotShown, description="the snapshot"),),
        errors=WORKSPACE_ERRORS,
    ),
)

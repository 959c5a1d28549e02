"""Tools: ``/agents/{id}/tools``, ``/tools``, and an agent's endorsement."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from borough.governance.budgets import from_micros
from borough.governance.services.calls import Invocation, error_text
from borough.governance.tools import Tool
from borough.http.governance.common import AGENT_ERRORS, LEDGER_ERRORS, agent_id, asker, optional_agent_id
from borough.http.governance.dialect import ErrorBody
from borough.http.operations import Access, Answer, Call, Operation, Reply, Response

BARE_TYPE = "application/vnd.scarab.output+json"

INVOKE_ERRORS: Mapping[str, int] = {
    **AGENT_ERRORS,
    **LEDGER_ERRORS,
    "invalid_body": 400,
    "invalid_request": 400,
    "not_canonical": 400,
    "tainted": 403,
    "network_denied": 403,
    "condition_not_met": 403,
    "outside_time_window": 403,
    "expired": 403,
    "canary_leak": 403,
    "no_matching_policy": 403,
    "policy_expired": 403,
    "policy_exhausted": 403,
    "human_denied": 403,
    "approval_mismatch": 403,
    "mcp_tool_changed": 403,
    "approval_timeout": 408,
    "tool_not_found": 404,
    "secret_not_found": 404,
    "mcp_not_attached": 404,
    "agent_ended": 409,
    "agent_paused": 409,
    "approval_cancelled": 409,
    "approval_not_usable": 409,
    "tool_error": 422,
    "store_locked": 423,
    "budget_exceeded": 429,
    "rate_exceeded": 429,
    "enforcement_missing": 503,
    "start_failed": 503,
    "tool_unavailable": 503,
    "mcp_unavailable": 503,
}


class ToolInfo(Struct, kw_only=True):
    name: str
    description: str
    requires_approval: bool
    approval_timeout_secs: int | None
    estimated_cost: float
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    category: str
    source: str


class ToolOutput(Struct, kw_only=True):
    """What a call gave."""

    status: str
    output: Any
    cost: float
    duration_ms: int
    request_id: str


class PendingCall(Struct, kw_only=True):
    """A call that people have to agree to; ``GET /approvals/{request_id}`` tells how it went."""

    status: str
    request_id: str


class ToolFailure(ErrorBody, kw_only=True, omit_defaults=True):
    """A tool that ran and failed: an error of the usual form, and what the tool gave."""

    status: str = ""
    output: Any = None
    cost: float = 0.0
    duration_ms: int = 0


class InvokeQuery(Struct, kw_only=True):
    raw: str | None = None


class ToolQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    agent_id: str | None = None


class EndorseBody(Struct, kw_only=True, forbid_unknown_fields=True):
    reason: str = ""


class Endorsed(Struct, kw_only=True):
    id: str
    tainted: bool


def info(tool: Tool) -> ToolInfo:
    """Return a tool as it is shown."""
    return ToolInfo(
        name=tool.name,
        description=tool.description,
        requires_approval=tool.requires_approval,
        approval_timeout_secs=tool.approval_timeout_s if tool.requires_approval else None,
        estimated_cost=from_micros(tool.estimated_cost_micros),
        input_schema=dict(tool.input_schema),
        output_schema=dict(tool.output_schema),
        category=tool.category.value,
        source=tool.source.value,
    )


def answer(made: Invocation, *, bare: bool = False) -> object:
    """Return how a call went, as it is answered."""
    if made.status == "pending":
        return Reply(status=202, body=PendingCall(status="pending", request_id=made.request_id))
    if made.status != "success":
        return Reply(status=422, body=_failure(made))
    if bare:
        return Response(msgspec.json.encode(made.output), media_type=BARE_TYPE)
    return output_of(made)


def output_of(made: Invocation) -> ToolOutput:
    """Return what a call gave, as it is shown."""
    return ToolOutput(
        status=made.status,
        output=made.output,
        cost=from_micros(made.cost_micros),
        duration_ms=made.duration_ms,
        request_id=made.request_id,
    )


def _failure(made: Invocation) -> ToolFailure:
    return ToolFailure(
        error=error_text(made.output),
        code="tool_error",
        request_id=made.request_id,
        status=made.status,
        output=made.output,
        cost=from_micros(made.cost_micros),
        duration_ms=made.duration_ms,
    )


async def listing(call: Call) -> object:
    return [info(tool) for tool in await call.state.tooling.tools.list(asker(call), agent_id(call))]


async def invoke(call: Call) -> object:
    wait = "respond-async" not in call.headers.get("prefer", "")
    bare = call.query.raw not in {None, "", "0", "false"} or BARE_TYPE in call.headers.get("accept", "")
    made = await call.state.tooling.tools.invoke(asker(call), agent_id(call), call.path["name"], call.body, wait=wait)
    return answer(made, bare=bare)


async def every(call: Call) -> object:
    tools = await call.state.tooling.tools.all(asker(call), optional_agent_id(call.query.agent_id))
    return [info(tool) for tool in tools]


async def describe(call: Call) -> object:
    found = await call.state.tooling.tools.describe(
        asker(call), call.path["name"], optional_agent_id(call.query.agent_id)
    )
    return info(found)


async def endorse(call: Call) -> object:
    agent = await call.state.tooling.endorsing.endorse(asker(call), agent_id(call), reason=call.body.reason)
    return Endorsed(id=agent.id, tainted=agent.tainted)


OPERATIONS = (
    Operation(
        method="GET",
        path="/agents/{id}/tools",
        handler=listing,
        access=Access.CALLER,
        summary="The tools that an agent may use",
        tag="tools",
        answers=(Answer(status=200, body=list[ToolInfo], description="built-in, dynamic and MCP tools"),),
        errors=AGENT_ERRORS,
    ),
    Operation(
        method="POST",
        path="/agents/{id}/tools/{name}",
        handler=invoke,
        access=Access.CALLER,
        summary="Call a tool on behalf of an agent",
        description=(
            "The body is the tool's input; without one it is `{}`. A call that people have to agree to is answered "
            "once they have decided; with `Prefer: respond-async` at once. With `?raw=1`, or "
            f"`Accept: {BARE_TYPE}`, the answer is the tool's bare output."
        ),
        tag="tools",
        query=InvokeQuery,
        body=dict[str, Any],
        body_optional=True,
        streaming=True,
        body_limit_bytes=8 * 1_048_576,
        answers=(
            Answer(status=200, body=ToolOutput, description="what the tool gave"),
            Answer(status=200, body=Any, description="what the tool gave", content_type=BARE_TYPE),
            Answer(status=202, body=PendingCall, description="people have to agree first"),
            Answer(status=422, body=ToolFailure, description="the tool ran and failed"),
        ),
        errors=INVOKE_ERRORS,
    ),
    Operation(
        method="GET",
        path="/tools",
        handler=every,
        access=Access.CALLER,
        summary="Every tool that there is, for one agent or for all",
        tag="tools",
        query=ToolQuery,
        answers=(Answer(status=200, body=list[ToolInfo], description="whether they may be called or not"),),
        errors=AGENT_ERRORS,
    ),
    Operation(
        method="GET",
        path="/tools/{name}",
        handler=describe,
        access=Access.CALLER,
        summary="One tool with its schemas",
        tag="tools",
        query=ToolQuery,
        answers=(Answer(status=200, body=ToolInfo, description="the tool"),),
        errors={**AGENT_ERRORS, "tool_not_found": 404},
    ),
    Operation(
        method="POST",
        path="/agents/{id}/endorse",
        handler=endorse,
        access=Access.CALLER,
        summary="Let an agent that has read data from outside send things out again",
        tag="tools",
        body=EndorseBody,
        body_optional=True,
        answers=(Answer(status=200, body=Endorsed, description="the agent is not tainted any more"),),
        errors={**AGENT_ERRORS, **LEDGER_ERRORS},
    ),
)

"""Proposed tools: ``/tool-proposals``."""

from typing import Any, Literal

from msgspec import Struct, field

from borough.core.ids import AgentId
from borough.governance.budgets import to_micros
from borough.governance.tools import (
    DEFAULT_APPROVAL_TIMEOUT_S,
    Category,
    Implementation,
    Proposal,
    ProposalState,
    Source,
    Tool,
)
from borough.http.governance.common import AGENT_ERRORS, LEDGER_ERRORS, asker, moment, parse_agent
from borough.http.governance.tools import ToolInfo, info
from borough.http.operations import Access, Answer, Call, Operation

_ERRORS = {**AGENT_ERRORS, "proposal_not_found": 404}


def _any_object() -> dict[str, Any]:
    return {"type": "object"}


class ProposedTool(Struct, kw_only=True, forbid_unknown_fields=True):
    name: str
    description: str
    input_schema: dict[str, Any] = field(default_factory=_any_object)
    output_schema: dict[str, Any] = field(default_factory=_any_object)
    category: Category = Category.INTERNAL
    estimated_cost: float = 0.0
    requires_approval: bool = False
    approval_timeout_secs: int = DEFAULT_APPROVAL_TIMEOUT_S


class ProposedCode(Struct, kw_only=True, forbid_unknown_fields=True):
    """How the tool runs: code that reads its input as JSON and prints its output as JSON."""

    kind: Literal["sandbox", "agent"]
    runtime: str | None = None
    code: str | None = None
    agent_id: str | None = None


class ProposalBody(Struct, kw_only=True, forbid_unknown_fields=True):
    agent_id: str
    tool: ProposedTool
    impl: ProposedCode


class ProposalQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    state: ProposalState | None = None


class ApproveBody(Struct, kw_only=True, forbid_unknown_fields=True):
    everywhere: bool = False
    """Whether every agent gets the tool, or only the one that proposed it."""


class ProposalView(Struct, kw_only=True):
    proposal_id: str
    agent_id: str
    tool: ToolInfo
    kind: str
    runtime: str | None
    code: str | None
    code_sha256: str | None
    state: str
    created_at: str
    decided_by: str | None
    decided_at: str | None
    everywhere: bool


def shown(proposal: Proposal) -> ProposalView:
    """Return a proposal as it is shown: with its code, since somebody has to read it before agreeing."""
    how = proposal.implementation
    return ProposalView(
        proposal_id=proposal.id,
        agent_id=proposal.agent_id,
        tool=info(proposal.tool),
        kind=how.kind,
        runtime=how.runtime,
        code=how.code,
        code_sha256=how.code_sha256,
        state=proposal.state.value,
        created_at=moment(proposal.created_at) or "",
        decided_by=proposal.decided_by,
        decided_at=moment(proposal.decided_at),
        everywhere=proposal.everywhere,
    )


def _tool(body: ProposedTool) -> Tool:
    return Tool(
        name=body.name,
        description=body.description,
        category=body.category,
        input_schema=body.input_schema,
        output_schema=body.output_schema,
        estimated_cost_micros=to_micros(body.estimated_cost),
        requires_approval=body.requires_approval,
        approval_timeout_s=body.approval_timeout_secs,
        source=Source.DYNAMIC,
    )


async def listing(call: Call) -> object:
    found = await call.state.tooling.proposals.all(asker(call), state=call.query.state)
    return [shown(proposal) for proposal in found]


async def show(call: Call) -> object:
    return shown(await call.state.tooling.proposals.get(asker(call), call.path["proposal_id"]))


async def propose(call: Call) -> object:
    body: ProposalBody = call.body
    how = Implementation(
        kind=body.impl.kind,
        runtime=body.impl.runtime,
        code=body.impl.code,
        agent_id=None if body.impl.agent_id is None else AgentId(body.impl.agent_id),
    )
    made = await call.state.tooling.proposals.propose(asker(call), parse_agent(body.agent_id), _tool(body.tool), how)
    return shown(made)


async def approve(call: Call) -> object:
    proposals = call.state.tooling.proposals
    return shown(await proposals.approve(asker(call), call.path["proposal_id"], everywhere=call.body.everywhere))


async def deny(call: Call) -> object:
    return shown(await call.state.tooling.proposals.deny(asker(call), call.path["proposal_id"]))


OPERATIONS = (
    Operation(
        method="GET",
        path="/tool-proposals",
        handler=listing,
        access=Access.CALLER,
        summary="Tools that agents would like to have",
        tag="tools",
        query=ProposalQuery,
        answers=(Answer(status=200, body=list[ProposalView], description="oldest first"),),
        errors=AGENT_ERRORS,
    ),
    Operation(
        method="POST",
        path="/tool-proposals",
        handler=propose,
        access=Access.CALLER,
        summary="Propose a tool; it can be called once an operator agreed",
        tag="tools",
        body=ProposalBody,
        answers=(Answer(status=201, body=ProposalView, description="the proposal"),),
        errors={
            **AGENT_ERRORS,
            **LEDGER_ERRORS,
            "invalid_proposal": 422,
            "agent_tools_unavailable": 422,
            "invalid_schema": 422,
            "invalid_amount": 422,
            "tool_exists": 409,
        },
    ),
    Operation(
        method="GET",
        path="/tool-proposals/{proposal_id}",
        handler=show,
        access=Access.CALLER,
        summary="One proposal, with its code",
        tag="tools",
        answers=(Answer(status=200, body=ProposalView, description="the proposal"),),
        errors=_ERRORS,
    ),
    Operation(
        method="POST",
        path="/tool-proposals/{proposal_id}/approve",
        handler=approve,
        access=Access.CALLER,
        summary="Make a proposed tool one that can be called",
        tag="tools",
        body=ApproveBody,
        body_optional=True,
        answers=(Answer(status=200, body=ProposalView, description="the proposal as it is now"),),
        errors={**_ERRORS, **LEDGER_ERRORS, "already_decided": 409, "tool_exists": 409},
    ),
    Operation(
        method="POST",
        path="/tool-proposals/{proposal_id}/deny",
        handler=deny,
        access=Access.CALLER,
        summary="Refuse a proposed tool",
        tag="tools",
        answers=(Answer(status=200, body=ProposalView, description="the proposal as it is now"),),
        errors={**_ERRORS, **LEDGER_ERRORS, "already_decided": 409},
    ),
)

"""Agents seen together: who stands above whom, and who can do what."""

from typing import Annotated

from msgspec import Meta, Struct

from borough.http.governance.agent_wire import AgentSummary, HierarchyNode, node, summary_fields
from borough.http.governance.common import AGENT_ERRORS, REFUSALS, agent_id, asker
from borough.http.operations import Access, Answer, Call, Operation


class DiscoverQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    pattern: Annotated[str, Meta(min_length=1, max_length=1024, description="a capability, with * for anything")] = "*"


class Discovered(AgentSummary, kw_only=True):
    capabilities: list[str]
    """Those of its capabilities that are like the pattern."""


async def tree(call: Call) -> object:
    return [node(branch) for branch in await call.state.hierarchy.tree(asker(call))]


async def discover(call: Call) -> object:
    found = await call.state.hierarchy.discover(asker(call), agent_id(call), call.query.pattern)
    return [
        Discovered(**summary_fields(one.agent), capabilities=[*one.capabilities])  # type: ignore[arg-type] # by name
        for one in found
    ]


OPERATIONS = (
    Operation(
        method="GET",
        path="/hierarchy",
        handler=tree,
        access=Access.CALLER,
        summary="The agents that run, each below the one that started it",
        tag="hierarchy",
        answers=(Answer(status=200, body=list[HierarchyNode], description="the topmost, oldest first"),),
        errors=REFUSALS,
    ),
    Operation(
        method="GET",
        path="/agents/{id}/discover",
        handler=discover,
        access=Access.CALLER,
        summary="The agents that this one may discover, by what they can do",
        tag="hierarchy",
        query=DiscoverQuery,
        answers=(Answer(status=200, body=list[Discovered], description="oldest first"),),
        errors=AGENT_ERRORS,
    ),
)

"""Tools: what an agent can call, what kind of effect each has, and how a proposed tool becomes one."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from borough.core.errors import Conflict, Invalid
from borough.core.ids import AgentId
from borough.governance.canonical import fingerprint
from borough.governance.hosts import NetworkPolicy

DEFAULT_APPROVAL_TIMEOUT_S = 300
MCP_PREFIX = "mcp."
_TOOL_NAME = re.compile(r"[a-z][a-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_MOST_NAME = 128

Schema = Mapping[str, object]
ANY_OBJECT: Schema = MappingProxyType({"type": "object"})


class Category(StrEnum):
    """Which way a tool's data flows."""

    INTERNAL = "Internal"
    INPUT = "Input"
    """Brings data from outside in: who calls it is tainted afterwards."""
    OUTPUT = "Output"
    """Pushes effects out: a tainted agent may not call it."""


class Source(StrEnum):
    """Where a tool comes from."""

    BUILTIN = "builtin"
    DYNAMIC = "dynamic"
    MCP = "mcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """What is known of a tool before it is called."""

    name: str
    description: str
    category: Category = Category.INTERNAL
    input_schema: Schema = field(default_factory=lambda: ANY_OBJECT)
    output_schema: Schema = field(default_factory=lambda: ANY_OBJECT)
    estimated_cost_micros: int = 0
    requires_approval: bool = False
    approval_timeout_s: int = DEFAULT_APPROVAL_TIMEOUT_S
    source: Source = Source.BUILTIN

    @property
    def pin(self) -> str:
        """Return the hash of what the tool said of itself; when it changes, the tool has to be agreed to again."""
        return fingerprint([self.name, self.description, dict(self.input_schema), dict(self.output_schema)])


def category_of(tool: Tool, network: NetworkPolicy) -> Category:
    """Return the category that counts: code that can reach the network can push effects out."""
    runs_code = tool.name == "sandbox.exec" or tool.source is Source.DYNAMIC
    if runs_code and network is not NetworkPolicy.NONE:
        return Category.OUTPUT
    return tool.category


def is_blocked_by_taint(category: Category, *, tainted: bool) -> bool:
    """Tell whether a tainted agent is kept from the call."""
    return tainted and category is Category.OUTPUT


def tainted_after(category: Category, *, tainted: bool) -> bool:
    """Return whether the agent is tainted once the call was made. Nothing but a human or a new run clears it."""
    return tainted or category is Category.INPUT


class ProposalState(StrEnum):
    """How a proposed tool stands."""

    PROPOSED = "proposed"
    APPROVED = "approved"
    DENIED = "denied"


@dataclass(frozen=True, slots=True, kw_only=True)
class Implementation:
    """How a dynamic tool runs: as code in the sandbox, or by another agent."""

    kind: str
    """``sandbox`` or ``agent``."""
    runtime: str | None = None
    code: str | None = field(default=None, repr=False)
    agent_id: AgentId | None = None

    @property
    def code_sha256(self) -> str | None:
        """Return what the ledger knows the code by."""
        return None if self.code is None else fingerprint(self.code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A tool that an agent would like to have; of no use before an operator agrees."""

    id: str
    agent_id: AgentId
    tool: Tool
    implementation: Implementation
    created_at: datetime
    state: ProposalState = ProposalState.PROPOSED
    decided_by: str | None = None
    decided_at: datetime | None = None
    everywhere: bool = False
    """Whether all agents get it, or only the one that proposed it."""


PROPOSAL_MOVES: dict[ProposalState, frozenset[ProposalState]] = {
    ProposalState.PROPOSED: frozenset({ProposalState.APPROVED, ProposalState.DENIED}),
    ProposalState.APPROVED: frozenset(),
    ProposalState.DENIED: frozenset(),
}


def check_proposal(proposal: Proposal, taken: frozenset[str]) -> None:
    """Let a proposal pass if the tool's name is free and its own, and it says how it runs.

    Raises:
        Invalid: it is not so (``invalid_proposal``).
        Conflict: the name is taken (``tool_exists``).
    """
    name, how = proposal.tool.name, proposal.implementation
    if not _TOOL_NAME.fullmatch(name) or len(name) > _MOST_NAME or name.startswith(MCP_PREFIX):
        raise _invalid(
            f"{name[:80]!r} is not a name for a dynamic tool", "use lower-case words joined by dots, not mcp."
        )
    if proposal.tool.source is not Source.DYNAMIC:
        raise _invalid("only a dynamic tool can be proposed", "propose it with source 'dynamic'")
    complete = {"sandbox": bool(how.runtime and how.code), "agent": how.agent_id is not None}
    if not complete.get(how.kind, False):
        raise _invalid(
            "it does not say how it runs", "give kind sandbox with runtime and code, or kind agent with agent_id"
        )
    if name in taken:
        raise Conflict(f"there is a tool {name!r} already", code="tool_exists", resolution="choose another name")


def decide_proposal(
    proposal: Proposal, to: ProposalState, *, by: str, at: datetime, everywhere: bool = False
) -> Proposal:
    """Return ``proposal`` decided; deciding the same again changes nothing.

    Raises:
        Conflict: it was decided otherwise (``already_decided``).
    """
    if proposal.state is to:
        return proposal
    if to not in PROPOSAL_MOVES[proposal.state]:
        raise Conflict(
            f"the proposal is {proposal.state.value} already",
            code="already_decided",
            reason=f"{proposal.decided_by} decided it",
            resolution="have the tool proposed again",
        )
    return replace(proposal, state=to, decided_by=by, decided_at=at, everywhere=everywhere)


def _invalid(message: str, resolution: str) -> Invalid:
    return Invalid(message, code="invalid_proposal", resolution=resolution)

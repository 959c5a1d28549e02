"""Tools: proposals, approvals, and whoever runs a call."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from borough.core.ids import AgentId
from borough.governance.approvals import Approval, ApprovalState
from borough.governance.manifests import Manifest
from borough.governance.tools import Proposal, ProposalState, Tool


class Approvals(Protocol):
    """Requests for a human's agreement; they survive a restart."""

    async def add(self, approval: Approval) -> None:
        """Store a request; idempotent by id."""

    async def get(self, approval_id: str) -> Approval:
        """Return a request; raises ``NotFound`` (``approval_not_found``)."""

    async def waiting(self) -> tuple[Approval, ...]:
        """Return what waits for a decision, oldest first."""

    async def replace(self, approval: Approval, *, was: ApprovalState) -> None:
        """Store a changed request; raises ``Conflict`` (``stale_approval``) when its state is another by now, or when
        somebody has agreed meanwhile whose agreement would be lost.
        """

    async def decided(self, approval_id: str, *, timeout_s: float) -> Approval:
        """Return the request as soon as it is not pending, or as it is when the time is over."""


class Proposals(Protocol):
    """Tools that agents propose, and those that were agreed to."""

    async def add(self, proposal: Proposal) -> None:
        """Store a proposal; idempotent by id."""

    async def get(self, proposal_id: str) -> Proposal:
        """Return one; raises ``NotFound`` (``proposal_not_found``)."""

    async def all(self, *, state: ProposalState | None) -> tuple[Proposal, ...]:
        """Return proposals, oldest first."""

    async def replace(self, proposal: Proposal, *, was: ProposalState) -> None:
        """Store a decided proposal; raises ``Conflict`` (``already_decided``) when its state is another by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call that everything has agreed to. Arguments hold the secrets' values here and nowhere else."""

    id: str
    agent_id: AgentId
    tool: str
    arguments: Mapping[str, object] = field(repr=False)
    timeout_s: float
    manifest: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolReply:
    """How a call went: ``success`` or ``error``, with what it gave and what it really cost."""

    status: str
    output: object
    cost_micros: int | None = None
    """``None``: what was estimated."""
    tokens: int = 0


class ToolProvider(Protocol):
    """Runs the tools of one source: built in, dynamic, or an MCP server's."""

    async def tools(self, agent_id: AgentId) -> tuple[Tool, ...]:
        """Return what this offers to an agent."""

    async def call(self, call: ToolCall) -> ToolReply:
        """Make the call. Scopes that depend on a file or an address are enforced once more where it is opened.

        Raises:
            NotFound: there is no such tool (any more) (``tool_not_found``).
            Unavailable: it cannot be reached (``tool_unavailable``); whether it ran is not known.
        """

"""Proposals: tools that agents would like to have, and people's decisions about them."""

from borough.core.clock import utc_now
from borough.core.errors import Invalid
from borough.core.ids import AgentId
from borough.governance.access import Verb
from borough.governance.actions import Action
from borough.governance.builtin_tools import BUILTIN_TOOLS
from borough.governance.canonical import Json
from borough.governance.ledger import Outcome
from borough.governance.ports.register import Agents
from borough.governance.ports.tools import Proposals
from borough.governance.services.asking import Asker
from borough.governance.services.dynamic_tools import DynamicTools
from borough.governance.services.gate import Gate
from borough.governance.services.grants import giver
from borough.governance.services.recording import Recorder
from borough.governance.tool_schemas import check_schema
from borough.governance.tools import (
    Implementation,
    Proposal,
    ProposalState,
    Tool,
    check_proposal,
    decide_proposal,
)

MOST_CODE_CHARACTERS = 65_536
RUNTIMES = frozenset({"sh", "python3", "node"})


class ProposalService:
    """Takes proposals, and has them decided. Nothing can be called before a person agreed."""

    def __init__(
        self, *, proposals: Proposals, agents: Agents, dynamic: DynamicTools, gate: Gate, recorder: Recorder
    ) -> None:
        self._proposals = proposals
        self._agents = agents
        self._dynamic = dynamic
        self._gate = gate
        self._recorder = recorder

    async def propose(self, asker: Asker, agent_id: AgentId, tool: Tool, how: Implementation) -> Proposal:
        """Propose a tool for an agent; the caller needs ``tool.propose``.

        Raises:
            Invalid: it cannot be a tool (``invalid_proposal``, ``invalid_schema``).
            Conflict: its name is taken (``tool_exists``).
        """
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.PROPOSE_TOOL, agent)
        proposal = Proposal(
            id=asker.derived("proposal", agent_id, tool.name),
            agent_id=agent_id,
            tool=tool,
            implementation=how,
            created_at=utc_now(),
        )
        _check_implementation(how)
        check_schema(tool.input_schema)
        check_schema(tool.output_schema)
        check_proposal(proposal, await self._taken())
        async with self._recorder.act(asker, Action.TOOL_PROPOSE, detail=tool.name, target=agent, data=_told(proposal)):
            await self._proposals.add(proposal)
        return proposal

    async def all(self, asker: Asker, *, state: ProposalState | None = None) -> tuple[Proposal, ...]:
        """Return proposals, oldest first: to people all, to an agent its own."""
        await self._gate.admit(asker, Verb.LIST)
        found = await self._proposals.all(state=state)
        narrow = self._gate.is_narrow(asker)
        return tuple(one for one in found if not narrow or one.agent_id == asker.caller.agent_id)

    async def get(self, asker: Asker, proposal_id: str) -> Proposal:
        """Return one; raises ``NotFound`` (``proposal_not_found``)."""
        proposal = await self._proposals.get(proposal_id)
        await self._gate.admit(asker, Verb.INSPECT, await self._gate.agent(proposal.agent_id))
        return proposal

    async def approve(self, asker: Asker, proposal_id: str, *, everywhere: bool = False) -> Proposal:
        """Make a proposed tool one that can be called, by its proposer or by every agent.

        Raises:
            Conflict: it was decided otherwise (``already_decided``), or its name was taken meanwhile
                (``tool_exists``).
        """
        return await self._decide(asker, proposal_id, ProposalState.APPROVED, everywhere=everywhere)

    async def deny(self, asker: Asker, proposal_id: str) -> Proposal:
        """Refuse a proposed tool; raises ``Conflict`` (``already_decided``)."""
        return await self._decide(asker, proposal_id, ProposalState.DENIED)

    async def _decide(self, asker: Asker, proposal_id: str, to: ProposalState, *, everywhere: bool = False) -> Proposal:
        before = await self._proposals.get(proposal_id)
        agent = await self._gate.agent(before.agent_id)
        await self._gate.admit(asker, Verb.DECIDE_APPROVAL, agent)
        after = decide_proposal(before, to, by=giver(asker), at=utc_now(), everywhere=everywhere)
        if after is before:
            return before
        if to is ProposalState.APPROVED:
            check_proposal(before, await self._taken())
        async with self._recorder.act(
            asker, Action.TOOL_DECIDE, detail=f"{to.value} {after.tool.name}", target=agent, data=_told(after)
        ) as act:
            act.outcome = Outcome.SUCCESS if to is ProposalState.APPROVED else Outcome.DENIED
            await self._proposals.replace(after, was=before.state)
        await self._dynamic.load()
        return after

    async def _taken(self) -> frozenset[str]:
        approved = await self._proposals.all(state=ProposalState.APPROVED)
        return frozenset(BUILTIN_TOOLS) | {proposal.tool.name for proposal in approved}


def _check_implementation(how: Implementation) -> None:
    if how.kind == "agent":
        raise Invalid(
            "a tool that another agent runs cannot be proposed here",
            code="agent_tools_unavailable",
            reason="only code in the sandbox is run",
            resolution="propose kind sandbox, or have the agents speak over the bus",
        )
    if how.runtime is not None and how.runtime not in RUNTIMES:
        raise Invalid(
            f"there is no runtime {how.runtime[:40]!r}",
            code="invalid_proposal",
            resolution=f"choose from {', '.join(sorted(RUNTIMES))}",
        )
    if how.code is not None and len(how.code) > MOST_CODE_CHARACTERS:
        raise Invalid(
            "the code is too long",
            code="invalid_proposal",
            reason=f"{MOST_CODE_CHARACTERS} characters are the most",
            resolution="shorten it",
        )


def _told(proposal: Proposal) -> dict[str, Json]:
    return {
        "proposal_id": proposal.id,
        "tool": proposal.tool.name,
        "category": proposal.tool.category.value,
        "kind": proposal.implementation.kind,
        "code_sha256": proposal.implementation.code_sha256,
        "everywhere": proposal.everywhere,
    }

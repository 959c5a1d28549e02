"""Dynamic tools: code that an agent proposed and a person agreed to, run in the sandbox of whoever calls it.

The code gets its input as JSON on its standard input and prints its output as JSON.
"""

import orjson

from borough.core.errors import NotFound, Unavailable
from borough.core.ids import AgentId
from borough.governance.canonical import plain_text
from borough.governance.ports.outside import Execution, ExecutionResult, Sandbox
from borough.governance.ports.tools import Proposals, ToolCall, ToolReply
from borough.governance.services.tool_failures import failed, failed_with
from borough.governance.tools import Proposal, ProposalState, Tool

TIMEOUT_S = 30.0
_MOST_TOLD_CHARACTERS = 2000


class DynamicTools:
    """Provides what was agreed to: to its proposer, or to all agents."""

    def __init__(self, proposals: Proposals, sandbox: Sandbox) -> None:
        self._proposals = proposals
        self._sandbox = sandbox
        self._own: dict[AgentId, dict[str, Proposal]] = {}
        self._everywhere: dict[str, Proposal] = {}

    async def load(self) -> None:
        """Read what was agreed to; at the start, and whenever something was decided."""
        own: dict[AgentId, dict[str, Proposal]] = {}
        everywhere: dict[str, Proposal] = {}
        for proposal in await self._proposals.all(state=ProposalState.APPROVED):
            place = everywhere if proposal.everywhere else own.setdefault(proposal.agent_id, {})
            place[proposal.tool.name] = proposal
        self._own, self._everywhere = own, everywhere

    async def tools(self, agent_id: AgentId) -> tuple[Tool, ...]:
        """Return what this offers to an agent."""
        own = self._own.get(agent_id, {})
        return tuple(proposal.tool for proposal in (*own.values(), *self._everywhere.values()))

    async def call(self, call: ToolCall) -> ToolReply:
        """Run the tool's code with the caller's manifest, in the caller's workspace."""
        proposal = self._own.get(call.agent_id, {}).get(call.tool) or self._everywhere.get(call.tool)
        if proposal is None:
            raise NotFound(
                f"there is no tool {call.tool!r}", code="tool_not_found", resolution="list them: ash tools list"
            )
        execution = Execution(
            agent_id=call.agent_id,
            manifest=call.manifest,
            runtime=proposal.implementation.runtime or "sh",
            code=proposal.implementation.code or "",
            stdin=plain_text(dict(call.arguments)),
            timeout_s=TIMEOUT_S,
        )
        try:
            return _reply(await self._sandbox.execute(execution))
        except Unavailable as error:
            if error.code != "runtime_missing":
                raise
            return failed_with(error)


def _reply(result: ExecutionResult) -> ToolReply:
    if result.timed_out:
        return failed("timeout", "timeout")
    if result.exit_code != 0:
        told = result.stderr.strip()[-_MOST_TOLD_CHARACTERS:] or f"exit code {result.exit_code}"
        return failed(told, "exit_code")
    try:
        return ToolReply(status="success", output=orjson.loads(result.stdout))
    except orjson.JSONDecodeError:
        return failed("the tool printed something that is not JSON", "not_json")

"""The built-in tools: which code runs each."""

from collections.abc import Awaitable, Callable, Mapping

from borough.core.errors import NotFound
from borough.core.ids import AgentId
from borough.governance.builtin_tools import BUILTIN_TOOLS
from borough.governance.ports.register import Agents
from borough.governance.ports.tools import ToolCall, ToolReply
from borough.governance.services.code_tools import CodeTools
from borough.governance.services.file_tools import FileTools
from borough.governance.services.model_tools import ModelTools
from borough.governance.services.web_tools import WebTools
from borough.governance.tools import Tool

Handler = Callable[[ToolCall], Awaitable[ToolReply]]


class BuiltinTools:
    """Provides every tool of ``BUILTIN_TOOLS``."""

    def __init__(self, agents: Agents, *, files: FileTools, code: CodeTools, web: WebTools, models: ModelTools) -> None:
        self._agents = agents
        self._handlers: Mapping[str, Handler] = {
            "echo": _echo,
            "sensitive-op": _echo,
            "agent.info": self._info,
            **files.handlers(),
            **code.handlers(),
            **web.handlers(),
            **models.handlers(),
        }

    async def tools(self, agent_id: AgentId) -> tuple[Tool, ...]:  # noqa: ARG002 - every agent has the same
        """Return all of them: every agent has the same."""
        return tuple(BUILTIN_TOOLS.values())

    async def call(self, call: ToolCall) -> ToolReply:
        """Make the call; raises ``NotFound`` (``tool_not_found``)."""
        handler = self._handlers.get(call.tool)
        if handler is None:
            raise NotFound(
                f"there is no tool {call.tool!r}", code="tool_not_found", resolution="list them: ash tools list"
            )
        return await handler(call)

    async def _info(self, call: ToolCall) -> ToolReply:
        agent = await self._agents.get(call.agent_id)
        output = {
            "id": agent.id,
            "name": agent.name,
            "trust_level": agent.trust_level.value,
            "lifecycle_state": agent.phase.value.lower(),
        }
        return ToolReply(status="success", output=output)


async def _echo(call: ToolCall) -> ToolReply:
    return ToolReply(status="success", output=call.arguments)

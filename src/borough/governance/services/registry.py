"""The register of tools: what an agent can call, whoever provides it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from borough.core.ids import AgentId
from borough.governance.builtin_tools import BUILTIN_TOOLS
from borough.governance.ports.tools import ToolProvider
from borough.governance.tools import MCP_PREFIX, Tool


@dataclass(frozen=True, slots=True)
class Registered:
    """A tool, who runs it, and how long it may take."""

    tool: Tool
    provider: ToolProvider
    alone: Mapping[str, Tool]
    """The tool by its name: all that judging a call of it has to know of tools."""


class Registry:
    """Finds tools by name: built in, attached from MCP servers, or proposed and agreed to."""

    def __init__(self, builtin: ToolProvider, mcp: ToolProvider, dynamic: ToolProvider) -> None:
        self._mcp = mcp
        self._dynamic = dynamic
        self._builtin = {name: _registered(tool, builtin) for name, tool in BUILTIN_TOOLS.items()}

    async def find(self, agent_id: AgentId, name: str) -> Registered | None:
        """Return the tool that ``name`` is for an agent, if it is one."""
        found = self._builtin.get(name)
        if found is not None:
            return found
        provider = self._mcp if name.startswith(MCP_PREFIX) else self._dynamic
        tool = next((tool for tool in await provider.tools(agent_id) if tool.name == name), None)
        return None if tool is None else _registered(tool, provider)

    async def tools(self, agent_id: AgentId) -> tuple[Tool, ...]:
        """Return every tool that there is for an agent, built-in ones first."""
        return (
            *BUILTIN_TOOLS.values(),
            *await self._dynamic.tools(agent_id),
            *await self._mcp.tools(agent_id),
        )


def _registered(tool: Tool, provider: ToolProvider) -> Registered:
    return Registered(tool, provider, MappingProxyType({tool.name: tool}))

"""MCP servers: their definitions, their sessions with agents, and what was agreed to of their tools.

What a server says of its tools is pinned when it is first attached to an agent. A tool that says something else later
is withheld until an operator has agreed to it again: a description is read by a model, and could be changed to mislead
it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from borough.core.errors import BoroughError, Forbidden, NotFound
from borough.core.ids import AgentId
from borough.governance.access import Verb
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.canonical import Json
from borough.governance.capabilities import parse_capability
from borough.governance.manifest_attachments import check_server
from borough.governance.manifests import McpServer, Transport
from borough.governance.ports.outside import McpServers
from borough.governance.ports.register import Agents, McpDefinitions
from borough.governance.ports.tools import ToolCall, ToolReply
from borough.governance.rules import Effect, RuleBook
from borough.governance.secrets import handles_in, substitute
from borough.governance.services.asking import Asker, daemon
from borough.governance.services.gate import Gate
from borough.governance.services.recording import Recorder
from borough.governance.services.secret_use import SecretUses, lacks
from borough.governance.services.standing import Standings
from borough.governance.tool_needs import endpoint_of
from borough.governance.tools import MCP_PREFIX, Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """What attaching a server came to."""

    server: str
    tools: tuple[Tool, ...]
    withheld: tuple[str, ...] = ()
    """Tools that say of themselves something else than what was agreed to."""


class McpTools:
    """Provides the tools of attached servers."""

    def __init__(self, servers: McpServers) -> None:
        self._servers = servers

    async def tools(self, agent_id: AgentId) -> tuple[Tool, ...]:
        """Return what this offers to an agent; what is withheld is not among it."""
        attached = await self._servers.attached(agent_id)
        return tuple(tool for tools in attached.values() for tool in tools)

    async def call(self, call: ToolCall) -> ToolReply:
        """Call a tool by its server's own name for it."""
        server, _, tool = call.tool.removeprefix(MCP_PREFIX).partition(".")
        output, is_error = await self._servers.call(
            call.agent_id, server, tool, call.arguments, timeout_s=call.timeout_s
        )
        return ToolReply(status="error" if is_error else "success", output=output)


class AttachmentService:
    """Keeps definitions, attaches and detaches."""

    def __init__(
        self,
        *,
        definitions: McpDefinitions,
        servers: McpServers,
        agents: Agents,
        standings: Standings,
        secrets: SecretUses,
        gate: Gate,
        recorder: Recorder,
    ) -> None:
        self._definitions = definitions
        self._servers = servers
        self._agents = agents
        self._standings = standings
        self._secrets = secrets
        self._gate = gate
        self._recorder = recorder

    # -- definitions ---------------------------------------------------------------------------------------------------

    async def add(self, asker: Asker, server: McpServer) -> McpServer:
        """Keep a definition.

        Raises:
            Invalid: it cannot be used (``invalid_mcp_server``).
            Conflict: another has its name (``mcp_exists``).
        """
        await self._gate.admit(asker, Verb.MANAGE_SERVERS)
        check_server(server)
        async with self._recorder.act(asker, Action.MCP_ADD, detail=server.name, data=_told(server)):
            await self._definitions.add(server)
        return server

    async def all(self, asker: Asker) -> tuple[McpServer, ...]:
        """Return every definition, by name."""
        await self._gate.admit(asker, Verb.LIST)
        return await self._definitions.all()

    async def remove(self, asker: Asker, name: str) -> None:
        """Forget a definition; sessions go on. Raises ``NotFound`` (``mcp_not_found``)."""
        await self._gate.admit(asker, Verb.MANAGE_SERVERS)
        async with self._recorder.act(asker, Action.MCP_REMOVE, detail=name):
            await self._definitions.remove(name)

    # -- sessions ------------------------------------------------------------------------------------------------------

    async def attached(self, asker: Asker, agent_id: AgentId) -> tuple[Attached, ...]:
        """Return what is attached to an agent."""
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.LIST_TOOLS, agent)
        withheld = await self._servers.withheld(agent_id)
        found = await self._servers.attached(agent_id)
        return tuple(_attached(server, tools, withheld.get(server, ())) for server, tools in found.items())

    async def attach(self, asker: Asker, agent_id: AgentId, name: str, *, accept_changes: bool = False) -> Attached:
        """Open a session of an agent with a server. An operator may agree to tools that changed (``accept_changes``).

        Raises:
            NotFound: there is no such definition (``mcp_not_found``), or a secret it needs (``secret_not_found``).
            Forbidden: the agent may not use all of the server's tools and the caller is no operator (``denied``), or
                a secret that it needs may not be used.
            Unavailable: the server cannot be started or spoken to (``mcp_unavailable``).
        """
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.ATTACH_SERVER, agent)
        server = await self._definition(name)
        bypass = not self._gate.is_narrow(asker)
        if not bypass:
            await self._check_may(asker, agent, server)
        return await self._attach(asker, agent, server, bypass=bypass, accept_changes=bypass and accept_changes)

    async def detach(self, asker: Asker, agent_id: AgentId, name: str) -> tuple[str, ...]:
        """Close a session and return the names of the tools that went.

        Raises:
            NotFound: there is none (``mcp_not_attached``).
        """
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.ATTACH_SERVER, agent)
        return await self._detach(asker, agent, name)

    async def on_start(self, agent: GovernedAgent) -> tuple[str, ...]:
        """Attach what an agent's manifest names, and return the servers that could not be: that is recorded, and the
        agent starts all the same.
        """
        manifest = await self._agents.manifest(agent.id)
        failed: list[str] = []
        for server in manifest.mcp_servers:
            try:
                await self._attach(
                    daemon(f"start {agent.run_id} {server.name}"), agent, server, bypass=False, accept_changes=False
                )
            except BoroughError:
                # The entry of the attempt says why.
                failed.append(server.name)
        return tuple(failed)

    async def on_end(self, agent_id: AgentId) -> None:
        """Close every session of an agent that has ended."""
        agent = await self._agents.get(agent_id)
        for name in tuple(await self._servers.attached(agent_id)):
            await self._detach(daemon(f"end {agent.run_id} {name}"), agent, name)

    # -- how -----------------------------------------------------------------------------------------------------------

    async def _attach(
        self, asker: Asker, agent: GovernedAgent, server: McpServer, *, bypass: bool, accept_changes: bool
    ) -> Attached:
        async with self._recorder.act(
            asker, Action.MCP_ATTACH, detail=server.name, target=agent, data=_told(server)
        ) as act:
            env = await self._env(asker, agent, server, bypass=bypass)
            tools = await self._servers.attach(agent.id, server, env)
            withheld = (await self._servers.withheld(agent.id)).get(server.name, ())
            if withheld and accept_changes:
                await self._agree(agent, server, withheld)
                tools, withheld = (*tools, *withheld), ()
            act.data["tools"] = {tool.name: tool.pin for tool in tools if tool.name.isascii()}
            if withheld:
                act.data["withheld"] = {tool.name: tool.pin for tool in withheld if tool.name.isascii()}
        return _attached(server.name, tools, withheld)

    async def _agree(self, agent: GovernedAgent, server: McpServer, changed: tuple[Tool, ...]) -> None:
        for tool in changed:
            own_name = tool.name.removeprefix(f"{MCP_PREFIX}{server.name}.")
            await self._servers.approve(agent.id, server.name, own_name)

    async def _env(self, asker: Asker, agent: GovernedAgent, server: McpServer, *, bypass: bool) -> Mapping[str, str]:
        template = dict(server.env_template)
        names = handles_in(list(template.values()))
        if not names:
            return template
        if not bypass:
            rules = await self._standings.rules_of(agent)
            for name in names:
                if not _holds(rules, f"secret.use:{name}"):
                    raise lacks(name)
        host = endpoint_of(server.url)[0] if server.transport is Transport.HTTP and server.url else None
        values = await self._secrets.resolve(asker, agent, names, tool=f"{MCP_PREFIX}{server.name}", host=host)
        return {key: str(substitute(text, values)) for key, text in template.items()}

    async def _detach(self, asker: Asker, agent: GovernedAgent, name: str) -> tuple[str, ...]:
        if name not in await self._servers.attached(agent.id):
            raise NotFound(
                f"mcp server not attached: {name}",
                code="mcp_not_attached",
                resolution=f"attach it: ash mcp attach {agent.id} {name}",
            )
        async with self._recorder.act(asker, Action.MCP_DETACH, detail=name, target=agent) as act:
            gone = await self._servers.detach(agent.id, name)
            act.data["tools"] = list(gone)
        return gone

    async def _definition(self, name: str) -> McpServer:
        try:
            return await self._definitions.get(name)
        except NotFound:
            raise NotFound(
                f"mcp server not found: {name}", code="mcp_not_found", resolution="list them: ash mcp list"
            ) from None

    async def _check_may(self, asker: Asker, agent: GovernedAgent, server: McpServer) -> None:
        wanted = f"tool.invoke:{MCP_PREFIX}{server.name}.*"
        if _holds(await self._standings.rules_of(agent), wanted):
            return
        refusal = Forbidden(
            "permission denied",
            code="denied",
            reason=f"access denied: {wanted}",
            resolution=f"declare {wanted} under spec.capabilities, or have an operator attach it",
        )
        await self._recorder.denied(asker, f"attach {server.name}", refusal, target=agent)
        raise refusal


def _holds(rules: RuleBook, capability: str) -> bool:
    wanted = parse_capability(capability)
    if any(rule.effect is Effect.DENY and rule.capability.covers(wanted) for rule in rules.rules):
        return False
    return any(rule.effect is not Effect.DENY and rule.capability.covers(wanted) for rule in rules.rules)


def _attached(server: str, tools: tuple[Tool, ...], withheld: tuple[Tool, ...]) -> Attached:
    return Attached(server=server, tools=tools, withheld=tuple(tool.name for tool in withheld))


def _told(server: McpServer) -> dict[str, Json]:
    return {
        "server": server.name,
        "transport": server.transport.value,
        "env": [name for name, _ in server.env_template],
    }

"""What tools reach outside of the daemon: code in sandboxes, pages, models, MCP servers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from borough.core.ids import AgentId
from borough.governance.manifests import Manifest, McpServer, Network
from borough.governance.tools import Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """Code to be run once, in a sandbox of its own that sees the agent's workspace."""

    agent_id: AgentId
    manifest: Manifest
    runtime: str
    """``sh``, ``python3`` or ``node``."""
    code: str = field(repr=False)
    stdin: str = ""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Secrets, by the name of the variable. Nothing else of the daemon's environment is handed over."""
    timeout_s: float
    output_limit_bytes: int = 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResult:
    """How the code ended."""

    stdout: str
    stderr: str
    exit_code: int
    """128 + n when signal n ended it."""
    truncated: bool = False
    timed_out: bool = False


class Sandbox(Protocol):
    """Runs code in confinement."""

    async def execute(self, execution: Execution) -> ExecutionResult:
        """Run ``execution`` to its end, or to its timeout; nothing of it is left when this returns.

        Raises:
            Unavailable: a required layer does not hold here (``enforcement_missing``), the runtime is not on this
                host (``runtime_missing``), or the sandbox could not be set up (``start_failed``).
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What came back from an address."""

    status: int
    body: str
    truncated: bool
    headers: Mapping[str, str]


class Web(Protocol):
    """Fetches pages for agents, under their network policy at every hop."""

    async def fetch(
        self, network: Network, url: str, *, headers: Mapping[str, str], timeout_s: float, limit_bytes: int
    ) -> Page:
        """GET ``url``; redirects (at most 5) are judged anew, private addresses refused unless allowed.

        Raises:
            Forbidden: the policy denies a host or an address on the way (``network_denied``).
            Unavailable: it could not be reached in time (``connection_refused``, ``timeout``, ``not_resolved``).
        """

    async def search(self, network: Network, query: str, *, timeout_s: float) -> tuple[Mapping[str, str], ...]:
        """Return results with ``title``, ``link``, ``snippet``; raises what ``fetch`` does, and ``Unavailable``
        (``parse_error``).
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply:
    """What a model answered, and what it really took."""

    output: Mapping[str, object]
    """As the tool's output schema has it, without usage and cost."""
    model: str
    input_tokens: int
    output_tokens: int
    cost_micros: int


class Models(Protocol):
    """Language models behind one endpoint.

    All raise ``Unavailable`` (``model_unavailable``, ``model_rate_limited``, ``model_timeout``), ``Invalid``
    (``model_refused``: the endpoint does not accept the request), ``Forbidden`` (``model_key_refused``) and
    ``Unavailable`` (``model_not_configured``) where no key is set.
    """

    async def complete(self, *, model: str, prompt: str, system: str | None) -> ModelReply:
        """Answer a prompt: output ``text``."""

    async def chat(
        self,
        *,
        model: str,
        messages: tuple[Mapping[str, object], ...],
        tools: tuple[Mapping[str, object], ...],
        tool_choice: str | None,
    ) -> ModelReply:
        """Continue a conversation: output ``finish_reason`` with ``text`` or ``tool_calls`` (id, name, arguments)."""

    async def embed(self, *, model: str, inputs: tuple[str, ...]) -> ModelReply:
        """Turn texts into vectors: output ``embeddings``."""


class McpServers(Protocol):
    """Sessions with MCP servers, one for each agent and server."""

    async def attach(self, agent_id: AgentId, server: McpServer, env: Mapping[str, str]) -> tuple[Tool, ...]:
        """Open a session and return the server's tools as ``mcp.<server>.<tool>``; idempotent.

        Raises:
            Unavailable: the server cannot be started or spoken to (``mcp_unavailable``).
        """

    async def detach(self, agent_id: AgentId, server: str) -> tuple[str, ...]:
        """Close a session and return the names of the tools that went; empty when there was none."""

    async def attached(self, agent_id: AgentId) -> Mapping[str, tuple[Tool, ...]]:
        """Return the tools of each attached server."""

    async def call(
        self, agent_id: AgentId, server: str, tool: str, arguments: Mapping[str, object], *, timeout_s: float
    ) -> tuple[object, bool]:
        """Call a tool by the server's own name for it; return its output and whether it is an error.

        Raises:
            NotFound: it is not attached (``mcp_not_attached``), or has no such tool (``tool_not_found``).
            Forbidden: the tool has changed since it was agreed to (``mcp_tool_changed``).
            Unavailable: the server does not answer (``mcp_unavailable``).
        """

    async def withheld(self, agent_id: AgentId) -> Mapping[str, tuple[Tool, ...]]:
        """Return, for each attached server, the tools that are new or changed since they were agreed to."""

    async def approve(self, agent_id: AgentId, server: str, tool: str) -> Tool:
        """Agree to a tool as it is now, by the server's own name for it; idempotent.

        Raises:
            NotFound: it is not attached (``mcp_not_attached``), or has no such tool (``tool_not_found``).
        """

"""The register of agents: who runs, what was given to whom, what is installed."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from borough.core.ids import AgentId
from borough.governance.agents import GovernedAgent
from borough.governance.budgets import Limits, Spent
from borough.governance.grants import Grant
from borough.governance.lifecycle import Exit, Phase, Status
from borough.governance.manifests import Manifest, McpServer


class Agents(Protocol):
    """The register of governed agents.

    All but ``all`` and ``forget`` raise ``NotFound`` (``agent_not_found``) for an agent that is not kept. ``get``,
    ``all`` and ``ancestors`` cost no I/O, nor does ``manifest`` for an agent that runs; what they return was on
    disk before.
    """

    async def add(self, agent: GovernedAgent, manifest_yaml: str) -> None:
        """Register an agent before anything of it exists; idempotent by id and run id.

        Raises:
            Invalid: the text says no manifest.
            Conflict: an agent of this id has another run (``stale_agent``).
        """

    async def get(self, agent_id: AgentId) -> GovernedAgent:
        """Return an agent, also one that has ended and is still kept."""

    async def manifest(self, agent_id: AgentId) -> Manifest:
        """Return the manifest under which the agent runs."""

    async def manifest_text(self, agent_id: AgentId) -> str:
        """Return it as it was given; its SHA-256 is the agent's ``manifest_digest``."""

    async def all(self, *, ended: bool) -> tuple[GovernedAgent, ...]:
        """Return the agents that run (``ended``: also those that have ended), oldest first."""

    async def ancestors(self, agent_id: AgentId) -> tuple[AgentId, ...]:
        """Return the parent, its parent, and so on; ``forget`` keeps them as long as the agent itself."""

    async def move(self, agent_id: AgentId, *, run_id: str, was: Phase, to: Phase, at: datetime) -> GovernedAgent:
        """Change the phase; raises ``Conflict`` (``stale_agent``) when run or phase are others by now."""

    async def set_status(
        self,
        agent_id: AgentId,
        *,
        run_id: str,
        was: Status,
        to: Status,
        at: datetime,
        ended: Exit | None = None,
        last_error: str | None = None,
    ) -> GovernedAgent:
        """Change the status; raises ``Conflict`` (``stale_agent``) when run or status are others by now.

        A status that no other can follow ends the agent ``at`` then.
        """

    async def begin_run(self, agent_id: AgentId, *, run_id: str, at: datetime) -> GovernedAgent:
        """Start another run of an agent that has ended, under the same id, with restarts counted: from ``Init``, not
        tainted, without result or error, with what was spent so far. Idempotent by run id; raises ``Conflict``
        (``stale_agent``) when the agent has not ended.
        """

    async def taint(self, agent_id: AgentId, *, tainted: bool) -> None:
        """Set or clear the taint."""

    async def charge(self, agent_id: AgentId, more: Spent) -> Spent:
        """Add to what the agent has used, as ``budgets.charge`` does, and return the sum, which is on disk then.

        Writes that wait together are flushed together: charge beside other writes to the same file, not after them.
        """

    async def set_budget(self, agent_id: AgentId, budget: Limits) -> GovernedAgent:
        """Change what the agent may use."""

    async def set_result(self, agent_id: AgentId, *, run_id: str, result: str) -> None:
        """Keep what the agent handed back (JSON text); raises ``Conflict`` (``stale_agent``) for another run."""

    async def forget(self, *, ended_before: datetime) -> tuple[AgentId, ...]:
        """Drop agents that ended before then, with their grants and approvals, and return them; their ledger entries
        stay. An agent above one that is kept is kept too: what binds it binds that one.
        """


class Grants(Protocol):
    """Capabilities given for a time. ``of`` costs no I/O; what it returns was on disk before."""

    async def add(self, grant: Grant) -> None:
        """Store a grant; idempotent by id."""

    async def of(self, agent_id: AgentId) -> tuple[Grant, ...]:
        """Return an agent's grants that were not revoked, oldest first."""

    async def replace(self, grant: Grant) -> None:
        """Store a changed grant; raises ``NotFound`` (``grant_not_found``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledAgent:
    """A manifest in the store of agents."""

    name: str
    version: str
    manifest_yaml: str = field(repr=False)
    install_dir: str
    installed_at: datetime


class AgentStore(Protocol):
    """Installed agents, one for each name."""

    async def install(self, agent: InstalledAgent) -> None:
        """Store an agent, over an older one of its name; running ones are not touched."""

    async def get(self, name: str) -> InstalledAgent:
        """Return one; raises ``NotFound`` (``agent_not_installed``)."""

    async def all(self) -> tuple[InstalledAgent, ...]:
        """Return every one, by name."""

    async def remove(self, name: str) -> None:
        """Forget one; raises ``NotFound`` (``agent_not_installed``). Running ones are not touched."""


class McpDefinitions(Protocol):
    """MCP servers that can be attached to agents. Values of ``env_template`` keep their ``{{secret:name}}``: what they
    stand for is put in when a server is attached, and never stored.
    """

    async def add(self, server: McpServer) -> None:
        """Store a definition; idempotent. Raises ``Conflict`` (``mcp_exists``) when another has its name."""

    async def get(self, name: str) -> McpServer:
        """Return one; raises ``NotFound`` (``mcp_not_found``)."""

    async def all(self) -> tuple[McpServer, ...]:
        """Return every one, by name."""

    async def remove(self, name: str) -> None:
        """Forget one; raises ``NotFound`` (``mcp_not_found``). Attached sessions are not touched."""

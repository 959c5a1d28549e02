"""Everything about tools, put together from its ports; and what happens to it when agents start and end."""

from collections.abc import Sequence
from dataclasses import dataclass

from borough.core.ids import AgentId
from borough.governance.agents import GovernedAgent
from borough.governance.models import BUILT_IN, Model
from borough.governance.ports.escalations import Escalations
from borough.governance.ports.ledger import Ledger
from borough.governance.ports.outside import McpServers, Models, Sandbox, Web
from borough.governance.ports.records import Bus, Secrets
from borough.governance.ports.register import Agents, Grants, McpDefinitions
from borough.governance.ports.tools import Approvals, Proposals
from borough.governance.ports.workspaces import Files
from borough.governance.services.approvals import ApprovalService
from borough.governance.services.attachments import AttachmentService, McpTools
from borough.governance.services.builtins import BuiltinTools
from borough.governance.services.calls import Calls
from borough.governance.services.code_tools import CodeTools
from borough.governance.services.dynamic_tools import DynamicTools
from borough.governance.services.endorsing import Endorsing
from borough.governance.services.escalations import EscalationService
from borough.governance.services.file_tools import FileTools
from borough.governance.services.gate import Gate
from borough.governance.services.grants import GrantService
from borough.governance.services.judging import Judging
from borough.governance.services.model_tools import ModelTools
from borough.governance.services.policy import PolicyService
from borough.governance.services.proposals import ProposalService
from borough.governance.services.recording import Recorder
from borough.governance.services.registry import Registry
from borough.governance.services.scrubbing import Scrubber
from borough.governance.services.secret_use import SecretUses
from borough.governance.services.spending import Spending
from borough.governance.services.standing import Rates, Standings
from borough.governance.services.statistics import Statistics
from borough.governance.services.tools import ToolService
from borough.governance.services.trials import Trials
from borough.governance.services.web_tools import WebTools


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolPorts:
    """What tools need from outside."""

    agents: Agents
    grants: Grants
    approvals: Approvals
    proposals: Proposals
    escalations: Escalations
    definitions: McpDefinitions
    secrets: Secrets
    bus: Bus
    ledger: Ledger
    files: Files
    sandbox: Sandbox
    web: Web
    models: Models
    servers: McpServers


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    """What every service of the daemon shares."""

    gate: Gate
    recorder: Recorder
    scrubber: Scrubber
    standings: Standings
    rates: Rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Tooling:
    """The services about tools of one daemon."""

    tools: ToolService
    approvals: ApprovalService
    grants: GrantService
    escalations: EscalationService
    proposals: ProposalService
    attachments: AttachmentService
    policy: PolicyService
    endorsing: Endorsing
    agents: Agents
    secrets: SecretUses
    standings: Standings
    trials: Trials
    dynamic: DynamicTools

    async def open(self) -> None:
        """Read what was agreed to; once, before the first call."""
        await self.dynamic.load()

    async def on_start(self, agent: GovernedAgent) -> tuple[str, ...]:
        """Prepare for an agent that starts a run: its pre-approvals for secrets, its MCP servers. Return the servers
        that could not be attached; the run goes on without them.
        """
        await self.secrets.adopt(agent, await self.agents.manifest(agent.id))
        return await self.attachments.on_start(agent)

    async def on_end(self, agent_id: AgentId) -> None:
        """Clear up after an agent that has ended for good: requests, grants, sessions, pre-approvals, counts."""
        agent = await self.agents.get(agent_id)
        await self.approvals.on_end(agent_id)
        await self.escalations.on_end(agent_id)
        await self.grants.on_end(agent_id)
        await self.attachments.on_end(agent_id)
        await self.secrets.release(agent, await self.agents.manifest(agent_id))
        self.trials.end(agent_id)
        self.standings.forget(agent_id)

    async def sweep(self) -> None:
        """End what is over by time; for a loop."""
        await self.approvals.sweep()
        await self.grants.sweep()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What several of the services share."""

    trials: Trials
    secrets: SecretUses
    grants: GrantService
    escalations: EscalationService
    dynamic: DynamicTools
    registry: Registry


def tooling(
    ports: ToolPorts,
    shared: Foundation,
    *,
    default_model: str | None = None,
    known_models: Sequence[Model] = BUILT_IN,
) -> Tooling:
    """Return the services about tools, over their ports."""
    gate, recorder, agents = shared.gate, shared.recorder, ports.agents
    parts = _parts(ports, shared, ModelTools(agents, ports.models, default=default_model, known=known_models))
    trials, registry, dynamic = parts.trials, parts.registry, parts.dynamic
    approvals = ApprovalService(
        approvals=ports.approvals,
        agents=agents,
        gate=gate,
        recorder=recorder,
        scrubber=shared.scrubber,
        trials=trials,
    )
    return Tooling(
        tools=_tools(ports, shared, parts, approvals),
        approvals=approvals,
        grants=parts.grants,
        escalations=parts.escalations,
        proposals=ProposalService(
            proposals=ports.proposals, agents=agents, dynamic=dynamic, gate=gate, recorder=recorder
        ),
        attachments=AttachmentService(
            definitions=ports.definitions,
            servers=ports.servers,
            agents=agents,
            standings=shared.standings,
            secrets=parts.secrets,
            gate=gate,
            recorder=recorder,
        ),
        policy=PolicyService(
            ledger=ports.ledger, agents=agents, registry=registry, trials=trials, gate=gate, recorder=recorder
        ),
        endorsing=Endorsing(agents=agents, gate=gate, recorder=recorder),
        agents=agents,
        secrets=parts.secrets,
        standings=shared.standings,
        trials=trials,
        dynamic=dynamic,
    )


def _parts(ports: ToolPorts, shared: Foundation, models: ModelTools) -> _Parts:
    gate, recorder, agents = shared.gate, shared.recorder, ports.agents
    dynamic = DynamicTools(ports.proposals, ports.sandbox)
    builtin = BuiltinTools(
        agents,
        files=FileTools(ports.files),
        code=CodeTools(ports.sandbox),
        web=WebTools(ports.web),
        models=models,
    )
    grants = GrantService(grants=ports.grants, agents=agents, gate=gate, recorder=recorder)
    return _Parts(
        trials=Trials(),
        secrets=SecretUses(ports.secrets, recorder),
        grants=grants,
        escalations=EscalationService(
            escalations=ports.escalations, agents=agents, bus=ports.bus, gate=gate, grants=grants, recorder=recorder
        ),
        dynamic=dynamic,
        registry=Registry(builtin, McpTools(ports.servers), dynamic),
    )


def _tools(ports: ToolPorts, shared: Foundation, parts: _Parts, approvals: ApprovalService) -> ToolService:
    """Return the service of calls, with what judges and what makes them."""
    statistics = Statistics()
    spending = Spending(ports.agents, shared.recorder, parts.escalations)
    judging = Judging(
        agents=ports.agents,
        standings=shared.standings,
        registry=parts.registry,
        rates=shared.rates,
        spending=spending,
        trials=parts.trials,
    )
    calls = Calls(
        agents=ports.agents,
        recorder=shared.recorder,
        scrubber=shared.scrubber,
        secrets=parts.secrets,
        spending=spending,
        statistics=statistics,
        trials=parts.trials,
        escalations=parts.escalations,
    )
    return ToolService(
        gate=shared.gate,
        standings=shared.standings,
        registry=parts.registry,
        judging=judging,
        calls=calls,
        approvals=approvals,
        recorder=shared.recorder,
        scrubber=shared.scrubber,
        statistics=statistics,
        trials=parts.trials,
    )

"""Governance, put together: stores, services, loops, and the runs that may connect to the sockets."""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from borough.adapters.workspaces.homes import Homes
from borough.bootstrap.governance_agents import AgentServices, agent_services
from borough.bootstrap.governance_outside import Outside, open_outside
from borough.bootstrap.governance_stores import Stores, open_governance_stores
from borough.bootstrap.ledger_standing import TellsStanding, keeps_place
from borough.config.governance import GovernanceSettings
from borough.controllers import recording
from borough.controllers.governance import controllers
from borough.controllers.loops import Controller
from borough.core.clock import utc_now
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.ledger import Via
from borough.governance.manifests import Manifest
from borough.governance.services.asking import daemon
from borough.governance.services.audit import AuditService
from borough.governance.services.blackboard import BlackboardService
from borough.governance.services.bus import BusService
from borough.governance.services.events import EventService
from borough.governance.services.gate import Gate
from borough.governance.services.leftovers import conclude_open_intents
from borough.governance.services.logins import LoginService
from borough.governance.services.memory import MemoryService
from borough.governance.services.observations import ObservationService
from borough.governance.services.proofs import ProofService
from borough.governance.services.reads import ReadService
from borough.governance.services.recording import Recorder
from borough.governance.services.reports import ReportService
from borough.governance.services.schedule import ToolUse
from borough.governance.services.scrubbing import Scrubber
from borough.governance.services.secrets import SecretService
from borough.governance.services.standing import Rates, Standings
from borough.governance.services.tokens import TokenService
from borough.governance.services.tooling import Foundation, Tooling, ToolPorts, tooling
from borough.http.auth import OperatorVerifier
from borough.http.governance.authentication import GatewayAuthenticator
from borough.http.governance.common import note_read
from borough.http.governance.dialect import gateway_error
from borough.http.governance.health import DaemonFacts
from borough.http.governance.routes import is_gateways
from borough.http.governance.services import GovernanceServices
from borough.http.operations import Operation
from borough.http.surfaces import Surface
from borough.ipc.identity import NonceRegistry

log = structlog.get_logger(__name__)

SWEPT_AT_ONCE = 1000
CALLS_DRAIN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Governance:
    """Open governance: what serves it and what keeps it."""

    services: GovernanceServices
    controllers: tuple[Controller, ...]
    runs: NonceRegistry
    recorder: Recorder
    scrubber: Scrubber
    logins: LoginService
    stores: Stores
    lives: AgentServices
    homes: Homes
    """Which agents live in machines of the fleet."""

    def surface(self, operations: tuple[Operation, ...], *, operator: OperatorVerifier) -> Surface:
        """Return the gateway's surface over ``operations``."""
        authenticate = GatewayAuthenticator(
            tokens=self.services.tokens, operator=operator, on_failure=self.refused_login
        )

        async def no_worker(_grant: object) -> bool:
            return False

        return Surface(
            operations=operations,
            state=self.services,
            authenticate=authenticate,
            by_ticket=authenticate.by_ticket,
            grant_is_live=no_worker,
            dialect=gateway_error,
            note_read=note_read,
            covers=is_gateways,
        )

    def refused_login(self, address: str, kind: str) -> None:
        """Take note of a request that was not let in."""
        log.warning("login.refused", address=address, kind=kind)
        self.logins.failed(address, kind)

    def refused_connection(self, who: str, why: str) -> None:
        """Take note of a connection to a socket that was not let in."""
        log.warning("socket.refused", who=who, why=why)
        self.logins.failed(who, "socket", via=Via.IPC)

    async def started(self, detail: str) -> None:
        """Record that the daemon serves, conclude what an earlier one left, and take up its agents."""
        await conclude_open_intents(self.stores.ledger)
        await self.recorder.event(daemon(f"start:{secrets.token_hex(8)}"), Action.DAEMON_START, detail=detail)
        await self.services.tooling.open()
        await self.lives.supervision.recover()

    async def end_agents(self) -> None:
        """Bring every agent to its end."""
        await self.lives.supervision.stop(end_agents=True)
        await self.services.tooling.tools.drain(within_s=CALLS_DRAIN_S)

    async def stopped(self, detail: str) -> None:
        """Record what was only counted so far, and that the daemon ends."""
        await self.logins.flush(everything=True)
        await self.services.reads.flush(everything=True)
        await self.recorder.event(daemon(f"stop:{secrets.token_hex(8)}"), Action.DAEMON_STOP, detail=detail)


@asynccontextmanager
async def open_governance(settings: GovernanceSettings) -> AsyncIterator[Governance]:
    """Open the stores and put the services together over them; raises as ``open_governance_stores``."""
    async with AsyncExitStack() as undo:
        stores = await undo.enter_async_context(open_governance_stores(settings))
        shared = _foundation(settings, stores)
        reports = ReportService(stores.kept.agents, shared.recorder)
        outside = await undo.enter_async_context(open_outside(settings, reports, pins=stores.kept.tool_pins))
        yield _compose(settings, stores, outside, shared)


def _foundation(settings: GovernanceSettings, stores: Stores) -> Foundation:
    scrubber, rates = Scrubber(stores.tokens.knows), Rates()
    recorder = Recorder(stores.ledger, scrubber, stores.kept.agents)
    standings = Standings(stores.kept.agents, stores.kept.grants, rates)
    gate = Gate(stores.kept.agents, standings, recorder, strict=settings.strict)
    return Foundation(gate=gate, recorder=recorder, scrubber=scrubber, standings=standings, rates=rates)


def _compose(settings: GovernanceSettings, stores: Stores, outside: Outside, shared: Foundation) -> Governance:
    gate, recorder, scrubber = shared.gate, shared.recorder, shared.scrubber
    ledger, kept = stores.ledger, stores.kept
    lives = agent_services(settings, stores, outside, shared)
    tools = _tooling(settings, stores, outside, shared)
    _connect(lives, tools)
    logins, reads = LoginService(recorder), ReadService(recorder)
    services = GovernanceServices(
        facts=DaemonFacts(),
        gate=gate,
        reads=reads,
        audit=AuditService(ledger, gate),
        proofs=ProofService(ledger, gate, ledger.key),
        events=EventService(ledger, ledger.feed, gate),
        memory=MemoryService(kept.memory, gate, recorder, scrubber),
        observations=ObservationService(kept.observations, gate, recorder, scrubber),
        blackboard=BlackboardService(stores.board, gate, recorder, scrubber),
        bus=BusService(stores.bus, gate, recorder, scrubber),
        secrets=SecretService(kept.secrets, gate, recorder, scrubber),
        tokens=TokenService(stores.tokens, kept.agents, gate, recorder, random_bytes=secrets.token_bytes),
        agents=lives.agents,
        agent_store=lives.agent_store,
        hierarchy=lives.hierarchy,
        results=lives.results,
        schedule=lives.schedule,
        workspaces=lives.workspaces,
        tooling=tools,
        ledger=TellsStanding(ledger.standing) if settings.shares_ledger else None,
    )
    return Governance(
        services=services,
        controllers=_controllers(settings, stores, lives, services, logins),
        runs=lives.runs,
        recorder=recorder,
        scrubber=scrubber,
        logins=logins,
        stores=stores,
        lives=lives,
        homes=outside.homes,
    )


def _tooling(settings: GovernanceSettings, stores: Stores, outside: Outside, shared: Foundation) -> Tooling:
    kept = stores.kept
    ports = ToolPorts(
        agents=kept.agents,
        grants=kept.grants,
        approvals=kept.approvals,
        proposals=kept.proposals,
        escalations=kept.escalations,
        definitions=kept.mcp_definitions,
        secrets=kept.secrets,
        bus=stores.bus,
        ledger=stores.ledger,
        files=outside.files,
        sandbox=outside.sandbox,
        web=outside.web,
        models=outside.models,
        servers=outside.servers,
    )
    return tooling(ports, shared, default_model=settings.default_model, known_models=outside.known_models)


def _connect(lives: AgentServices, tools: Tooling) -> None:
    """Let what is held for an agent be prepared when a run starts, and given back when the agent has ended."""

    async def on_start(agent: GovernedAgent, _manifest: Manifest) -> None:
        lacking = await tools.on_start(agent)
        if lacking:
            log.warning("agent.servers_not_attached", agent_id=agent.id, servers=list(lacking))

    async def on_end(agent: GovernedAgent) -> None:
        await tools.on_end(agent.id)

    lives.agents.on_start.append(on_start)

    async def tool_use() -> tuple[ToolUse, ...]:
        return tuple(
            ToolUse(tool=one.tool, calls=one.count, cost_micros=one.cost_micros, mean_latency_ms=one.mean_ms)
            for one in tools.tools.stats()
        )

    lives.agents.on_end.append(on_end)
    lives.schedule.tool_use.append(tool_use)


def _controllers(
    settings: GovernanceSettings,
    stores: Stores,
    lives: AgentServices,
    services: GovernanceServices,
    logins: LoginService,
) -> tuple[Controller, ...]:
    async def sweep_memory() -> None:
        await stores.kept.memory.sweep(at=utc_now(), limit=SWEPT_AT_ONCE)
        await stores.board.sweep(at=utc_now(), limit=SWEPT_AT_ONCE)

    async def retain_ledger() -> None:
        if settings.ledger_kept is not None:
            await stores.ledger.retain(before=utc_now() - settings.ledger_kept, limit=SWEPT_AT_ONCE)

    return (
        *((keeps_place(stores.ledger),) if settings.shares_ledger else ()),
        recording.record("failed logins", logins.flush),
        recording.record("reads", services.reads.flush),
        recording.retain("ledger", retain_ledger),
        *controllers(
            lives.supervision,
            lives.workspaces,
            sweeps=(("memory", sweep_memory), ("tools", services.tooling.sweep)),
            retention=settings.ended_kept,
        ),
    )

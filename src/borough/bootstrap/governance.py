"""Governance, put together: stores, services, loops, and the runs that may connect to the sockets."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from borough.adapters.credentials.operator import OperatorToken
from borough.bootstrap.governance_stores import Stores, open_governance_stores
from borough.config.governance import GovernanceSettings
from borough.controllers import recording as loops
from borough.controllers.loops import Controller
from borough.core.clock import utc_now
from borough.governance.actions import Action
from borough.governance.ledger import Via
from borough.governance.services.asking import daemon
from borough.governance.services.audit import AuditService
from borough.governance.services.blackboard import BlackboardService
from borough.governance.services.bus import BusService
from borough.governance.services.events import EventService
from borough.governance.services.gate import Gate
from borough.governance.services.logins import LoginService
from borough.governance.services.memory import MemoryService
from borough.governance.services.observations import ObservationService
from borough.governance.services.proofs import ProofService
from borough.governance.services.reads import ReadService
from borough.governance.services.recording import Recorder
from borough.governance.services.scrubbing import Scrubber
from borough.governance.services.secrets import SecretService
from borough.governance.services.standing import Rates, Standings
from borough.governance.services.tokens import TokenService
from borough.http.governance.authentication import GatewayAuthenticator
from borough.http.governance.common import note_read
from borough.http.governance.dialect import gateway_error
from borough.http.governance.health import DaemonFacts
from borough.http.governance.services import GovernanceServices
from borough.http.operations import Operation
from borough.http.table import Surface
from borough.ipc.identity import NonceRegistry

log = structlog.get_logger(__name__)

SWEPT_AT_ONCE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Governance:
    """Open governance: what serves it and what keeps it."""

    services: GovernanceServices
    controllers: tuple[Controller, ...]
    runs: NonceRegistry
    recorder: Recorder
    logins: LoginService
    stores: Stores

    def surface(self, operations: tuple[Operation, ...], *, operator: OperatorToken) -> Surface:
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
        """Record that the daemon serves."""
        await self.recorder.event(daemon(f"start:{secrets.token_hex(8)}"), Action.DAEMON_START, detail=detail)

    async def stopped(self, detail: str) -> None:
        """Record what was only counted so far, and that the daemon ends."""
        await self.logins.flush(everything=True)
        await self.services.reads.flush(everything=True)
        await self.recorder.event(daemon(f"stop:{secrets.token_hex(8)}"), Action.DAEMON_STOP, detail=detail)


@asynccontextmanager
async def open_governance(settings: GovernanceSettings) -> AsyncIterator[Governance]:
    """Open the stores and put the services together over them; raises as ``open_governance_stores``."""
    async with open_governance_stores(settings) as stores:
        yield _compose(settings, stores)


def _compose(settings: GovernanceSettings, stores: Stores) -> Governance:
    scrubber = Scrubber(stores.tokens.knows)
    recorder = Recorder(stores.ledger, scrubber)
    standings = Standings(stores.kept.agents, stores.kept.grants, Rates())
    gate = Gate(stores.kept.agents, standings, recorder, strict=settings.strict)
    tokens = TokenService(stores.tokens, stores.kept.agents, gate, recorder, random_bytes=secrets.token_bytes)
    logins, reads = LoginService(recorder), ReadService(recorder)
    ledger, kept = stores.ledger, stores.kept
    return Governance(
        services=GovernanceServices(
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
            tokens=tokens,
        ),
        controllers=_controllers(settings, stores, logins=logins, reads=reads),
        runs=NonceRegistry(),
        recorder=recorder,
        logins=logins,
        stores=stores,
    )


def _controllers(
    settings: GovernanceSettings, stores: Stores, *, logins: LoginService, reads: ReadService
) -> tuple[Controller, ...]:
    async def sweep_memory() -> None:
        await stores.kept.memory.sweep(at=utc_now(), limit=SWEPT_AT_ONCE)
        await stores.board.sweep(at=utc_now(), limit=SWEPT_AT_ONCE)

    async def retain_ledger() -> None:
        if settings.ledger_kept is not None:
            await stores.ledger.retain(before=utc_now() - settings.ledger_kept, limit=SWEPT_AT_ONCE)

    return (
        loops.record("failed logins", logins.flush),
        loops.record("reads", reads.flush),
        loops.sweep("memory", sweep_memory),
        loops.retain("ledger", retain_ledger),
    )

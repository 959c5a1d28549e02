"""A daemon's records: real stores in one folder, the services over them, and agents to act."""

import secrets
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from borough.adapters.boards import Boards
from borough.adapters.bus import ProcessBus
from borough.adapters.sql.engine import Database
from borough.adapters.sql.ledger import MIGRATIONS as LEDGER_MIGRATIONS
from borough.adapters.sql.ledger import SqlLedger
from borough.adapters.sql.tokens import SqlTokens
from borough.core.clock import utc_now
from borough.core.ids import AgentId, new_id
from borough.governance.agents import GovernedAgent
from borough.governance.ledger import Via
from borough.governance.lifecycle import Phase, Status
from borough.governance.ports.ledger import EntryFilter
from borough.governance.services.asking import Asker
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
from borough.governance.tokens import OPERATOR, ROLE_SCOPES, Caller, Role
from borough.governance.trust import TrustLevel
from tests.contracts.governance_kit import House

MANIFEST = """\
apiVersion: scarab/v1
kind: AgentManifest
metadata: {{name: {name}, version: 1.0.0}}
spec:
  trust_level: {trust}
  capabilities: {capabilities}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """The services, over stores of their own."""

    house: House
    ledger_database: Database
    ledger: SqlLedger
    token_store: SqlTokens
    bus_store: ProcessBus
    gate: Gate
    recorder: Recorder
    scrubber: Scrubber
    audit: AuditService
    proofs: ProofService
    events: EventService
    memory: MemoryService
    observations: ObservationService
    blackboard: BlackboardService
    bus: BusService
    secrets: SecretService
    tokens: TokenService
    reads: ReadService
    logins: LoginService

    async def agent(
        self,
        *capabilities: str,
        name: str = "reader",
        trust: TrustLevel = TrustLevel.TRUSTED,
        parent: AgentId | None = None,
    ) -> GovernedAgent:
        """Register an agent that runs."""
        now = utc_now()
        agent = GovernedAgent(
            id=AgentId(new_id()),
            run_id=new_id(),
            name=name,
            version="1.0.0",
            manifest_digest=new_id(),
            trust_level=trust,
            phase=Phase.PLAN,
            status=Status.RUNNING,
            spawned_at=now,
            run_started_at=now,
            parent_id=parent,
        )
        text = MANIFEST.format(name=name, trust=trust.value, capabilities=orjson.dumps(list(capabilities)).decode())
        await self.house.stores.agents.add(agent, text)
        return agent

    async def end(self, agent: GovernedAgent) -> None:
        """Let an agent end."""
        await self.house.stores.agents.set_status(
            agent.id, run_id=agent.run_id, was=Status.RUNNING, to=Status.SUCCEEDED, at=utc_now()
        )
        await self.house.stores.agents.move(
            agent.id, run_id=agent.run_id, was=Phase.PLAN, to=Phase.TERMINATE, at=utc_now()
        )

    async def key(self, agent: GovernedAgent | AgentId, name: str = "ci", **more: Any) -> str:
        """Make a key for an agent, as an operator at the socket does."""
        agent_id = agent if isinstance(agent, str) else agent.id
        return (await self.tokens.create(operator(), name=name, agent_id=agent_id, **more)).token

    async def entries(self, *actions: str) -> list[dict[str, Any]]:
        """Return what the ledger tells, oldest first."""
        found = await self.ledger.newest(EntryFilter(actions=frozenset(actions)), limit=10_000)
        return [orjson.loads(entry.canonical) for entry in found]


def operator(via: Via = Via.IPC) -> Asker:
    """A person at the operators' door."""
    return Asker(caller=OPERATOR, via=via, request_id=new_id(), operation_key=new_id())


def as_agent(agent: GovernedAgent | AgentId, role: Role = Role.AGENT, via: Via = Via.IPC) -> Asker:
    """An agent (or with another role, somebody with a key of its) that asks."""
    agent_id = agent if isinstance(agent, str) else agent.id
    caller = Caller(token_name="key", agent_id=AgentId(agent_id), role=role, scopes=ROLE_SCOPES[role])
    return Asker(caller=caller, via=via, request_id=new_id(), operation_key=new_id())


async def open_records(folder: Path, undo: AsyncExitStack, *, strict: bool = False, capacity: int = 1024) -> Records:
    """Open everything in ``folder``; ``undo`` closes it."""
    house = House(folder / "governance.db")
    await house.open()
    undo.push_async_callback(house.close)
    database = await Database.open(folder / "ledger.db", LEDGER_MIGRATIONS)
    undo.push_async_callback(database.close)
    ledger = await SqlLedger.open(database)
    undo.push_async_callback(ledger.close)
    token_store = await SqlTokens.open(folder / "tokens.db")
    undo.push_async_callback(token_store.close)
    stores, scrubber = house.stores, Scrubber(token_store.knows)
    recorder, bus = Recorder(ledger, scrubber, stores.agents), ProcessBus()
    standings = Standings(stores.agents, stores.grants, Rates())
    gate = Gate(stores.agents, standings, recorder, strict=strict)
    return Records(
        house=house,
        ledger_database=database,
        ledger=ledger,
        token_store=token_store,
        bus_store=bus,
        gate=gate,
        recorder=recorder,
        scrubber=scrubber,
        audit=AuditService(ledger, gate),
        proofs=ProofService(ledger, gate, ledger.key),
        events=EventService(ledger, ledger.feed, gate, capacity=capacity),
        memory=MemoryService(stores.memory, gate, recorder, scrubber),
        observations=ObservationService(stores.observations, gate, recorder, scrubber),
        blackboard=BlackboardService(Boards(), gate, recorder, scrubber),
        bus=BusService(bus, gate, recorder, scrubber),
        secrets=SecretService(house.quick_secrets(), gate, recorder, scrubber),
        tokens=TokenService(token_store, stores.agents, gate, recorder, random_bytes=secrets.token_bytes),
        reads=ReadService(recorder),
        logins=LoginService(recorder),
    )


def told(entries: Sequence[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    """Return some fields of each entry."""
    return [tuple(entry.get(name) for name in names) for entry in entries]

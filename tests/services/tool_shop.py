"""Everything about tools over real stores: SQLite files, the ledger, the bus; what is outside is given by the test."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import orjson

from borough.adapters.bus import ProcessBus
from borough.adapters.engines.bubblewrap.engine import Bubblewrap
from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance.sealing import KdfParams
from borough.adapters.sql.governance.secrets import SqlSecrets
from borough.adapters.sql.governance.stores import GovernanceStores, open_stores
from borough.adapters.sql.governance.tables import MIGRATIONS
from borough.adapters.sql.ledger import SqlLedger
from borough.core.clock import utc_now
from borough.core.ids import AgentId, new_id
from borough.governance.agents import GovernedAgent
from borough.governance.canonical import fingerprint
from borough.governance.ledger import Via
from borough.governance.lifecycle import Phase, Status
from borough.governance.manifest_reading import parse_manifest
from borough.governance.ports.ledger import EntryFilter
from borough.governance.services.asking import Asker
from borough.governance.services.gate import Gate
from borough.governance.services.recording import Recorder
from borough.governance.services.scrubbing import Scrubber
from borough.governance.services.standing import Rates, Standings
from borough.governance.services.tooling import Foundation, Tooling, ToolPorts, tooling
from borough.governance.tokens import OPERATOR, ROLE_SCOPES, Caller, Role
from tests import boxes
from tests.services.absent import Absent


def operator() -> Asker:
    return asking(OPERATOR)


def asking(caller: Caller) -> Asker:
    request = new_id()
    return Asker(caller=caller, via=Via.HTTP, request_id=request, operation_key=request)


def agents_own(agent: GovernedAgent) -> Asker:
    """The agent itself, with a token of its own."""
    role = Role.AGENT
    return asking(Caller(token_name=f"{agent.name}-key", agent_id=agent.id, role=role, scopes=ROLE_SCOPES[role]))


def bound_operator(agent_id: AgentId, name: str = "ci") -> Asker:
    """A person's key that is bound to an agent, as the reference page has it."""
    role = Role.OPERATOR
    return asking(Caller(token_name=name, agent_id=agent_id, role=role, scopes=ROLE_SCOPES[role]))


def manifest(*capabilities: str, name: str = "worker", trust: str = "trusted", more: str = "") -> str:
    listed = orjson.dumps(list(capabilities)).decode()
    return f"""\
apiVersion: scarab/v1
kind: AgentManifest
metadata: {{name: {name}, version: 1.0.0}}
spec:
  trust_level: {trust}
  capabilities: {listed}
{more}"""


@dataclass(frozen=True, kw_only=True)
class Shop:
    """One daemon's worth of services about tools."""

    stores: GovernanceStores
    secrets: SqlSecrets
    ledger: SqlLedger
    bus: ProcessBus
    scrubber: Scrubber
    gate: Gate
    tooling: Tooling

    async def agent(self, text: str, *, parent: GovernedAgent | None = None, **other: Any) -> GovernedAgent:
        """Register a running agent under a manifest."""
        read = parse_manifest(text)
        now = utc_now()
        agent = GovernedAgent(
            id=AgentId(new_id()),
            run_id=new_id(),
            name=read.name,
            version=read.version,
            manifest_digest=fingerprint(text),
            trust_level=read.trust_level,
            phase=Phase.PLAN,
            status=Status.RUNNING,
            spawned_at=now,
            run_started_at=now,
            parent_id=None if parent is None else parent.id,
            depth=1 if parent is None else parent.depth + 1,
            budget=read.budget,
        )
        agent = replace(agent, **other)
        await self.stores.agents.add(agent, text)
        return agent

    async def echoing(self, *more: str, **other: Any) -> GovernedAgent:
        return await self.agent(manifest("tool.invoke:echo", *more), **other)

    async def know_secrets(self) -> None:
        """Tell the scrubber of every value, as the daemon does whenever the store changes."""
        self.scrubber.know(await self.secrets.every_value())

    async def entries(self, *actions: str) -> list[Mapping[str, Any]]:
        """Return the ledger's newest entries, of these actions or of all."""
        found = await self.ledger.newest(EntryFilter(actions=frozenset(actions)), limit=1000)
        return [cast("Mapping[str, Any]", orjson.loads(entry.canonical)) for entry in found]


@asynccontextmanager
async def opened(folder: Path, **outside: Any) -> AsyncIterator[Shop]:
    """Open a shop in ``folder``; ``outside`` gives ports that are not stores, by their names."""
    folder.mkdir(exist_ok=True, mode=0o700)
    database = await Database.open(folder / "governance.db", MIGRATIONS)
    ledger = await SqlLedger.open(database)
    try:
        stores = await open_stores(database)
        secrets = SqlSecrets(database, params=lambda: KdfParams(memory_kib=64, passes=1, lanes=1))
        shop = _shop(stores, secrets, ledger, outside)
        await shop.tooling.open()
        yield shop
        await shop.tooling.tools.drain(within_s=5)
    finally:
        await ledger.close()
        await database.close()


@asynccontextmanager
async def boxed(folder: Path, **outside: Any) -> AsyncIterator[tuple[Shop, Bubblewrap]]:
    """Open a shop whose files and sandboxes are real."""
    async with (
        boxes.engine(folder) as engine,
        opened(folder / "shop", files=engine.files, sandbox=engine.sandbox, **outside) as shop,
    ):
        yield shop, engine


def _shop(stores: GovernanceStores, secrets: SqlSecrets, ledger: SqlLedger, outside: Mapping[str, Any]) -> Shop:
    bus, scrubber, rates = ProcessBus(), Scrubber(lambda _: False), Rates()
    recorder = Recorder(ledger, scrubber, stores.agents)
    standings = Standings(stores.agents, stores.grants, rates)
    gate = Gate(stores.agents, standings, recorder, strict=False)
    absent: Any = Absent()
    ports = ToolPorts(
        agents=stores.agents,
        grants=stores.grants,
        approvals=stores.approvals,
        proposals=stores.proposals,
        escalations=stores.escalations,
        definitions=stores.mcp_definitions,
        secrets=secrets,
        bus=bus,
        ledger=ledger,
        **{name: outside.get(name, absent) for name in ("files", "sandbox", "web", "models", "servers")},
    )
    shared = Foundation(gate=gate, recorder=recorder, scrubber=scrubber, standings=standings, rates=rates)
    return Shop(
        stores=stores,
        secrets=secrets,
        ledger=ledger,
        bus=bus,
        scrubber=scrubber,
        gate=gate,
        tooling=tooling(ports, shared),
    )

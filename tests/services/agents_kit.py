"""A daemon's agents, put together over a folder as a real daemon's are, and put together anew after it is gone."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from borough.adapters.agent_folders import AgentFolders
from borough.adapters.engines.bubblewrap.engine import Bubblewrap, build
from borough.adapters.engines.bubblewrap.settings import BoxSettings
from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance.stores import GovernanceStores, open_stores
from borough.adapters.sql.governance.tables import MIGRATIONS
from borough.adapters.sql.ledger import SqlLedger
from borough.core.ids import AgentId, new_id
from borough.governance.ledger import Via
from borough.governance.ports.ledger import EntryFilter
from borough.governance.services.agent_store import AgentStoreService
from borough.governance.services.agents import AgentService, SpawnOrder
from borough.governance.services.asking import Asker
from borough.governance.services.endings import Endings, Processes
from borough.governance.services.gate import Gate
from borough.governance.services.hierarchy import HierarchyService
from borough.governance.services.leftovers import conclude_open_intents
from borough.governance.services.preparing import Preparer
from borough.governance.services.recording import Recorder
from borough.governance.services.results import ResultService
from borough.governance.services.schedule import ScheduleService
from borough.governance.services.scrubbing import Scrubber
from borough.governance.services.standing import Rates, Standings
from borough.governance.services.starting import Starter
from borough.governance.services.supervision import Supervision
from borough.governance.services.workspaces import WorkspaceService
from borough.governance.tokens import OPERATOR, ROLE_SCOPES, Caller, Role

SOCKET = "/run/agentd/agentd.sock.agents"


def manifest(
    name: str = "worker", *, trust: str = "trusted", capabilities: list[str] | None = None, **spec: Any
) -> str:
    """The text of a manifest; JSON is YAML too."""
    document = {
        "apiVersion": "scarab/v1",
        "kind": "AgentManifest",
        "metadata": {"name": name, "version": "1.0.0"},
        "spec": {"trust_level": trust, "capabilities": ["tool.invoke:echo"] if capabilities is None else capabilities}
        | spec,
    }
    return orjson.dumps(document).decode()


def shell(script: str, name: str = "worker", **spec: Any) -> str:
    """The text of a manifest whose program is a script of the shell."""
    return manifest(name, command="/bin/sh", args=["-c", script], **spec)


def operator(key: str | None = None) -> Asker:
    """A person at the operators' door."""
    request = key or new_id()
    return Asker(caller=OPERATOR, via=Via.IPC, request_id=request, operation_key=request)


def agent(agent_id: str, *, role: Role = Role.AGENT) -> Asker:
    """What an agent's own token asks, or an operator's that is bound to it."""
    caller = Caller(token_name="t", agent_id=AgentId(agent_id), role=role, scopes=ROLE_SCOPES[role])
    return replace(operator(), caller=caller, via=Via.HTTP)


def inline(text: str, **more: Any) -> SpawnOrder:
    return SpawnOrder(manifest_yaml=text, **more)


class Daemon:
    """Everything around agents over one folder."""

    database: Database
    ledger: SqlLedger
    stores: GovernanceStores
    engine: Bubblewrap
    gate: Gate
    service: AgentService
    supervision: Supervision
    endings: Endings
    agent_store: AgentStoreService
    hierarchy: HierarchyService
    results: ResultService
    schedule: ScheduleService
    workspaces: WorkspaceService
    concluded: int

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def open(self) -> None:
        self.database = await Database.open(self.folder / "state" / "governance.db", MIGRATIONS)
        self.ledger = await SqlLedger.open(self.database)
        self.stores = await open_stores(self.database)
        self.engine = build(BoxSettings(state=self.folder / "boxes"))
        self._put_together()
        self.concluded = await conclude_open_intents(self.ledger)
        await self.supervision.recover()

    def _put_together(self) -> None:
        stores, runner, workspaces = self.stores, self.engine.runner, self.engine.workspaces
        scrubber = Scrubber(lambda _: False)
        recorder = Recorder(self.ledger, scrubber, stores.agents)
        standings = Standings(stores.agents, stores.grants, Rates())
        self.gate = gate = Gate(stores.agents, standings, recorder, strict=False)
        processes, folders = Processes(), AgentFolders(self.folder / "agents")
        common: dict[str, Any] = {"agents": stores.agents, "courses": stores.courses, "recorder": recorder}
        self.endings = Endings(runner=runner, processes=processes, **common)
        starter = Starter(
            runner=runner,
            workspaces=workspaces,
            processes=processes,
            on_end=self.endings.on_end,
            socket=SOCKET,
            **common,
        )
        self.supervision = Supervision(
            runner=runner,
            workspaces=workspaces,
            standings=standings,
            processes=processes,
            endings=self.endings,
            starter=starter,
            **common,
        )
        self.service = AgentService(
            gate=gate,
            runner=runner,
            preparer=Preparer(stores.agents, stores.agent_store, folders),
            starter=starter,
            endings=self.endings,
            supervision=self.supervision,
            processes=processes,
            **common,
        )
        self.agent_store = AgentStoreService(gate=gate, store=stores.agent_store, folders=folders, recorder=recorder)
        self.hierarchy = HierarchyService(gate=gate, agents=stores.agents, standings=standings, recorder=recorder)
        self.results = ResultService(gate=gate, runner=runner, scrubber=scrubber, **common)
        self.schedule = ScheduleService(gate=gate, **common)
        self.workspaces = WorkspaceService(
            gate=gate,
            agents=stores.agents,
            workspaces=workspaces,
            runner=runner,
            recorder=recorder,
            processes=processes,
        )

    async def close(self, *, end_agents: bool = True) -> None:
        """Stop in order; without ``end_agents`` what runs goes on."""
        await self.supervision.stop(end_agents=end_agents)
        await self.engine.close()
        await self.ledger.close()
        await self.database.close()

    async def restart(self) -> None:
        """Be gone, with agents going on, and come back."""
        await self.close(end_agents=False)
        await self.open()

    async def spawn(self, text: str, asker: Asker | None = None, **more: Any) -> AgentId:
        return (await self.service.spawn(asker or operator(), inline(text, **more))).id

    async def told(self, agent_id: str, *actions: str) -> list[Mapping[str, Any]]:
        """The entries of an agent, oldest first."""
        wanted = EntryFilter(agents=frozenset({AgentId(agent_id)}), actions=frozenset(actions))
        return [orjson.loads(entry.canonical) for entry in await self.ledger.newest(wanted, limit=1000)]

"""All contexts seen as one, put together over a town that governs and houses."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from borough.bootstrap.governance_stores import Stores
from borough.bootstrap.governed_town import GovernedTown
from borough.bootstrap.pools import TownPools
from borough.bootstrap.runs import OpenRuns
from borough.bootstrap.town import Town
from borough.bootstrap.town_fleet import TownFleet
from borough.controllers.loops import Controller
from borough.controllers.outgoing import fleet_origin
from borough.fleet.ports.fleet import Fleet
from borough.governance.services.intake import entry_id
from borough.http.operations import Operation
from borough.http.overview.about import ABOUT
from borough.http.overview.routes import OPERATIONS
from borough.http.overview.services import OverviewServices
from borough.http.pages import page_operations
from borough.http.surfaces import Authenticate, GrantIsLive, Surface
from borough.overview.occurrences import Context
from borough.overview.ports import Needs, Things
from borough.overview.services.attention import AttentionService
from borough.overview.services.evidence import EvidenceService
from borough.overview.services.evidence_of_agents import AgentEvidence
from borough.overview.services.explaining import ExplainService
from borough.overview.services.figures import EVERY_S, FigureService
from borough.overview.services.needs_of_fleet import SilentHosts, TroubledMachines
from borough.overview.services.needs_of_law import Questions, SpentBudgets, WaitingCalls
from borough.overview.services.needs_of_pools import TroubledPools
from borough.overview.services.needs_of_town import DeadLetters, OrphanTasks, StuckLeases, SupervisorMail
from borough.overview.services.of_runs import FailedRuns, RunEvidence, RunThings
from borough.overview.services.sources import LedgerStream, NumberedStream, TownStream
from borough.overview.services.streams import EventStreamService
from borough.overview.services.things_of_fleet import EnvThings, HostThings, VmThings
from borough.overview.services.things_of_law import ApprovalThings, DecisionThings, GovernedAgentThings
from borough.overview.services.things_of_town import AgentThings, TaskThings
from borough.pools.ports import PoolStore
from borough.runs.ports import RunStore

MOST_EVENTS = 10_000
"""How many of the fleet's newest events are looked at for those about a run's machines."""
UNDER = "/overview"
"""Where the document is served beside the town's."""
READING_EVERY: Final = timedelta(seconds=EVERY_S)
PAGE = f"{UNDER}/docs"


class Overview:
    """What is served over all contexts."""

    other_pages: Final[Mapping[str, str]] = {"all contexts": PAGE}
    """Pages to be named on the town's."""

    def __init__(
        self, town: Town, governed: GovernedTown, fleet: TownFleet, runs: OpenRuns, pools: TownPools | None
    ) -> None:
        self._town = town
        self._fleet = fleet
        self._runs = runs
        self._pools = pools
        governance = governed.gateway.governance
        stores, ledger = governance.stores, governance.stores.ledger
        explain = ExplainService(self._things(stores))
        agents = AgentEvidence(stores.kept.agents, stores.kept.approvals, ledger)
        figures = FigureService(town.services.readings, self._opened)
        self.controller = Controller(name="figures", every=READING_EVERY, act=figures.take, first_after=READING_EVERY)
        """The loop that takes readings of how busy everything is."""
        self._services = OverviewServices(
            streams=EventStreamService(
                (
                    TownStream(town.events, town.feed),
                    NumberedStream(Context.FLEET, self._opened),
                    LedgerStream(ledger, ledger.feed),
                    NumberedStream(Context.RUNS, self._store_of_runs),
                )
            ),
            attention=AttentionService(self._needs(stores)),
            explain=explain,
            evidence=EvidenceService(
                explain,
                (agents, RunEvidence(runs.store, runs.files, agents.gather, self._entries_of)),
                ledger,
                governance.recorder,
                ledger.key,
            ),
            figures=figures,
            agent_id=self._agent_id,
        )

    def _needs(self, stores: Stores) -> Sequence[Needs]:
        town, kept = self._town, stores.kept
        return (
            WaitingCalls(kept.approvals, kept.proposals, kept.agents),
            Questions(kept.escalations, kept.agents),
            SpentBudgets(kept.escalations, kept.agents),
            SupervisorMail(town.mailbox),
            StuckLeases(town.tasks),
            OrphanTasks(town.agents),
            DeadLetters(town.tasks),
            SilentHosts(self._opened),
            TroubledMachines(self._opened),
            TroubledPools(self._opened_pools),
            FailedRuns(self._runs.store),
        )

    def _things(self, stores: Stores) -> Sequence[Things]:
        town, kept, ledger = self._town, stores.kept, stores.ledger
        return (
            TaskThings(town.tasks, town.agents),
            AgentThings(town.agents),
            GovernedAgentThings(kept.agents, kept.approvals, ledger),
            EnvThings(self._opened),
            VmThings(self._opened),
            HostThings(self._opened),
            ApprovalThings(kept.approvals, kept.agents),
            DecisionThings(ledger),
            RunThings(self._runs.store),
        )

    def operations(self, towns: Sequence[Operation]) -> tuple[Operation, ...]:
        """Return the town's operations but for those that are answered here for all contexts."""
        taken = {(row.method, row.path) for row in OPERATIONS}
        return tuple(row for row in towns if (row.method, row.path) not in taken)

    def surface(self, *, authenticate: Authenticate, grant_is_live: GrantIsLive) -> Surface:
        """Return the rows over all contexts, for whom the town lets in."""
        pages = page_operations(OPERATIONS, ABOUT, under=UNDER, others={"the town": "/docs"})
        return Surface(
            operations=(*OPERATIONS, *pages),
            state=self._services,
            authenticate=authenticate,
            grant_is_live=grant_is_live,
        )

    async def _opened(self) -> Fleet:
        return (await self._fleet.services()).fleet

    async def _opened_pools(self) -> PoolStore | None:
        return None if self._pools is None else await self._pools.store()

    async def _entries_of(self, environments: frozenset[str]) -> Sequence[str]:
        """Return the ids of entries about machines: of the newest events, which reach far beyond any run."""
        fleet = await self._fleet.controller()
        await self._fleet.recorded()
        origin = fleet_origin(fleet.store_id)
        _, newest = await fleet.services.fleet.event_bounds()
        found: list[str] = []
        after = str(max(0, int(newest) - MOST_EVENTS))
        while page := await fleet.services.fleet.events(after=after, limit=1000):
            ours = [event for event in page if event.subjects.get("env_id") in environments]
            found += [entry_id(origin.source, origin.happening(event).id) for event in ours]
            after = page[-1].id
        return found

    async def _store_of_runs(self) -> RunStore:
        return self._runs.store

    async def _agent_id(self, reference: str) -> str:
        return (await self._town.agents.get(reference)).id

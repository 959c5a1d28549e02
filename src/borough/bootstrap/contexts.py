"""The contexts that a server holds, opened one after the other: town, law, fleet, pools, runs, and what is over all."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from borough.bootstrap.store import open_store
from borough.bootstrap.town import Town, open_town
from borough.bootstrap.town_opening import TownOpening
from borough.bootstrap.worker_boxes import worker_boxes

if TYPE_CHECKING:
    from borough.bootstrap.governed_town import GovernedTown
    from borough.bootstrap.overview import Overview
    from borough.bootstrap.pools import TownPools
    from borough.bootstrap.runs import OpenRuns
    from borough.bootstrap.town_fleet import TownFleet
    from borough.controllers.outbox import Outbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """What is served."""

    town: Town
    governed: "GovernedTown | None" = None
    fleet: "TownFleet | None" = None
    runs: "OpenRuns | None" = None
    pools: "TownPools | None" = None
    record: "Outbox | None" = None
    """What hands in the acts of a town that shares a ledger."""
    overview: "Overview | None" = None
    """What is told over all of them, where all of them are."""

    @property
    def before_write(self) -> Callable[[], None] | None:
        """What lets something new begin, or refuses it."""
        if self.governed is not None:
            return self.governed.check_ledger
        return None if self.record is None else self.record.check


async def open_contexts(undo: AsyncExitStack, opening: TownOpening, stopping: asyncio.Event) -> Contexts:
    """Open all that is to be served, to be closed by ``undo``; nothing of it acts yet.

    Raises:
        BoroughError: a store cannot be opened.
    """
    store = await undo.enter_async_context(open_store(opening.settings))
    boxes, plain = worker_boxes(opening)
    opened = open_town(
        opening.settings,
        store,
        tokens=opening.tokens,
        server_url=opening.url,
        certificate=opening.plan.tls.cert_file if opening.plan.tls else None,
        boxes=boxes,
        plain=plain,
    )
    town = await undo.enter_async_context(opened)
    governed = await _govern(undo, opening, town, stopping)
    town, record = await _record(undo, opening, town)
    fleet = await _house(undo, opening, governed, stopping)
    pools = await _pool(undo, opening, town, fleet)
    contexts = Contexts(town=town, governed=governed, fleet=fleet, pools=pools, record=record)
    contexts = replace(contexts, runs=await _run(undo, opening, contexts))
    return replace(contexts, overview=_overview(contexts))


async def _govern(
    undo: AsyncExitStack, opening: TownOpening, town: Town, stopping: asyncio.Event
) -> "GovernedTown | None":
    """Open what a governed town needs, to be closed by ``undo``; a town alone needs nothing."""
    if opening.law is None:
        if opening.ledger is not None:
            return None
        await town.events.keep_until_read(keep=False)
        return None
    from borough.bootstrap.governed_town import govern  # noqa: PLC0415 - a town alone starts without it

    return await undo.enter_async_context(
        govern(opening.law, town, operator=opening.operators, url=opening.url, stopping=stopping)
    )


async def _record(undo: AsyncExitStack, opening: TownOpening, town: Town) -> "tuple[Town, Outbox | None]":
    """Hand in what a town alone does, where it shares a ledger; return it as it is to be served."""
    if opening.ledger is None:
        return town, None
    from borough.bootstrap.shared_ledger import recorded_town, shared_ledger  # noqa: PLC0415 - as above

    ledger = await undo.enter_async_context(shared_ledger(opening.ledger, program="townhall"))
    outbox = await undo.enter_async_context(recorded_town(ledger, town))
    return replace(town, services=replace(town.services, ledger=ledger)), outbox


async def _house(
    undo: AsyncExitStack, opening: TownOpening, governed: "GovernedTown | None", stopping: asyncio.Event
) -> "TownFleet | None":
    """Prepare the fleet of a town that houses, to be closed by ``undo``; it is opened when the town is served."""
    if opening.fleet is None or governed is None:
        return None
    from borough.bootstrap.town_fleet import house  # noqa: PLC0415 - a town alone starts without it

    fleet = house(
        opening.fleet, url=opening.url, operator=opening.operators, intake=governed.fleet_intake(), stopping=stopping
    )
    return await undo.enter_async_context(fleet)


async def _pool(
    undo: AsyncExitStack, opening: TownOpening, town: Town, fleet: "TownFleet | None"
) -> "TownPools | None":  # fmt: skip
    """Prepare the pools of a town that houses, to be closed by ``undo`` before its fleet."""
    if fleet is None or opening.fleet is None:
        return None
    from borough.bootstrap.pools import pooled  # noqa: PLC0415 - a town alone starts without it

    folder = opening.fleet.controller.data_dir.parent
    return await undo.enter_async_context(pooled(folder, town, fleet, tls=opening.tls is not None))


async def _run(undo: AsyncExitStack, opening: TownOpening, contexts: Contexts) -> "OpenRuns | None":
    """Open the runs of a town that governs and houses, to be closed by ``undo`` before all that they need."""
    if contexts.governed is None or contexts.fleet is None:
        return None
    from borough.bootstrap.runs import open_runs, own_machines  # noqa: PLC0415 - a town alone starts without it

    law = contexts.governed.gateway.governance
    law.homes.connect(contexts.fleet.guests)
    machines = own_machines(contexts.fleet, contexts.pools)
    return await undo.enter_async_context(open_runs(opening.settings.state_folder, contexts.town, law, machines))


def _overview(contexts: "Contexts") -> "Overview | None":
    """Return what is served over all contexts, where all of them are."""
    if contexts.governed is None or contexts.fleet is None or contexts.runs is None:
        return None
    from borough.bootstrap.overview import Overview  # noqa: PLC0415 - a town alone starts without it

    return Overview(contexts.town, contexts.governed, contexts.fleet, contexts.runs, contexts.pools)

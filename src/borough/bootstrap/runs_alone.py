"""Runs served by ``agentd`` alone: the town's store is shared, the fleet is asked over HTTP."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from borough.adapters.credentials.operator import find_server, town_key
from borough.adapters.host.fleet import HttpFleet
from borough.auth.tokens import SignedTokens
from borough.bootstrap.access import authenticator
from borough.bootstrap.gateway import Gateway
from borough.bootstrap.runs import no_pools, open_runs
from borough.bootstrap.serving import nobody_is_bound
from borough.bootstrap.store import open_store
from borough.bootstrap.town import open_town
from borough.config.global_file import load_settings
from borough.config.governance import RunPlaces
from borough.config.safety import parse_bind, start_plan
from borough.config.town import TownSettings
from borough.config.town_file import prepare_state_folder
from borough.core.clock import utc_now
from borough.core.errors import Invalid
from borough.http.auth import OperatorVerifier
from borough.http.idempotency import Idempotency
from borough.http.surfaces import Policies, Surface
from borough.runs.services.machines import RunMachines
from borough.runs.services.ready import ReadyMachines


@dataclass(frozen=True, slots=True, kw_only=True)
class AloneRuns:
    """What was checked before anything was started."""

    town: TownSettings
    fleet: HttpFleet
    tokens: SignedTokens


def check_places(places: RunPlaces, *, host: str, environ: Mapping[str, str] = os.environ) -> AloneRuns:
    """Read the town's settings and the fleet's address; ``host`` is where the runs are to be served.

    Raises:
        Invalid: a setting of the town is wrong, its mode lets everybody in who reaches ``host`` (``unsafe_bind``), or
            its store cannot be shared (``store_not_shared``).
    """
    settings = load_settings(places.town, environ)
    if settings.store.url is None:
        raise Invalid(
            f"the town in {places.town} keeps its store to itself",
            code="store_not_shared",
            reason="runs of agentd work on the town's store beside townhall, and its embedded one ends with townhall",
            resolution="name a Valkey or Redis for both programs: REDIS_URL, or [redis] url in tinytown.toml",
        )
    start_plan(settings.townhall, bind=parse_bind(host), root=settings.root, at=utc_now())
    # The town's key is made where there is none, whoever of the two programs is started first.
    tokens = SignedTokens(town_key(prepare_state_folder(settings.root)))
    return AloneRuns(town=settings, fleet=HttpFleet(_address(places.fleet), credential=places.fleet_key), tokens=tokens)


@asynccontextmanager
async def runs_alone(
    runs: AloneRuns, gateway: Gateway, folder: Path, *, operator: OperatorVerifier, held: Policies
) -> AsyncIterator[Surface]:
    """Open the runs and return what serves them; machines run on when the context is left.

    ``held`` is what holds for the gateway's requests. Raises as ``open_store`` and ``open_runs``.
    """
    settings = runs.town
    async with AsyncExitStack() as undo:
        undo.push_async_callback(runs.fleet.close)
        store = await undo.enter_async_context(open_store(settings))
        served = await asyncio.to_thread(find_server, settings.state_folder)
        town = await undo.enter_async_context(
            open_town(settings, store, tokens=runs.tokens, server_url="" if served is None else served.address)
        )

        async def fleet() -> HttpFleet:
            return runs.fleet

        gateway.governance.homes.connect(fleet)
        machines = RunMachines(fleet, ReadyMachines(no_pools))
        opened = await undo.enter_async_context(open_runs(folder, town, gateway.governance, machines))
        authenticate = authenticator(
            settings.townhall.auth, tokens=runs.tokens, operator=operator, events=town.events
        )  # fmt: skip
        yield opened.surface(
            authenticate=authenticate,
            grant_is_live=nobody_is_bound,
            before_write=None,
            policies=replace(held, idempotency=Idempotency(town.replies)),
        )


def _address(url: str) -> str:
    return urlsplit(url).netloc

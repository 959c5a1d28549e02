"""Pools beside a town and its fleet: opened on the side, as soon as the fleet is."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from borough.bootstrap.running import running
from borough.bootstrap.town import Town
from borough.bootstrap.town_fleet import AWAITED_S, TownFleet
from borough.core.errors import BoroughError, Unavailable
from borough.http.pages import page_operations
from borough.http.pools.about import ABOUT, UNDER
from borough.http.pools.routes import OPERATIONS, PoolsState
from borough.http.surfaces import Surface

if TYPE_CHECKING:
    from borough.bootstrap.fleet import FleetController
    from borough.pools.ports import PoolStore
    from borough.pools.services.warm import WarmMachines

log = structlog.get_logger(__name__)

STORE: Final = "pools.db"
"""In the fleet's folder: machines of this computer, which no backup of a town brings to another."""


class TownPools:
    """The pools of a town that houses."""

    other_pages: Final[Mapping[str, str]] = {"pools": f"{UNDER}/docs"}
    """Pages to be named on the town's."""

    def __init__(self, folder: Path, town: Town, fleet: TownFleet, *, tls: bool) -> None:
        self._folder = folder
        self._tls = tls
        self._town = town
        self._fleet = fleet
        self._settled = asyncio.Event()
        self._state: PoolsState | None = None
        self._why_not: BoroughError | None = None
        self._task: asyncio.Task[None] | None = None
        self._warm: WarmMachines | None = None
        self._store: PoolStore | None = None

    def begin(self) -> None:
        """Begin to open them."""
        self._task = asyncio.create_task(self._keep(), name="pools")

    async def close(self) -> None:
        """Close them; their machines and workers go on, and are found again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def surface(self, *, like: Surface) -> Surface:
        """Return the operations of pools and their document, for the callers of another surface: the town's."""
        return replace(
            like, operations=(*OPERATIONS, *page_operations(OPERATIONS, ABOUT, under=UNDER)), opened=self.state
        )

    async def state(self) -> PoolsState:
        """Return what the handlers call; waits while it is being opened.

        Raises:
            Unavailable: that lasts (``fleet_starting``), or there can be no pools here (``fleet_not_ready``).
        """
        try:
            async with asyncio.timeout(AWAITED_S):
                await self._settled.wait()
        except TimeoutError:
            await self._fleet.controller()  # says why
        if self._state is None:
            raise self._why_not or Unavailable(
                "there are no pools here",
                code="fleet_not_ready",
                resolution="see the server's log, then start it again",
            )
        return self._state

    async def ready(self) -> "WarmMachines | None":
        """Return the ready machines of all pools; waits while they are being opened. ``None``: there are no pools here.

        Raises:
            Unavailable: that lasts, since the fleet is still being opened (``fleet_starting``).
        """
        await self._opened()
        return self._warm

    async def store(self) -> "PoolStore | None":
        """Return where pools are kept, as ``ready`` does."""
        await self._opened()
        return self._store

    async def _opened(self) -> None:
        if self._settled.is_set():
            return
        try:
            async with asyncio.timeout(AWAITED_S):
                await self._settled.wait()
        except TimeoutError:
            await self._fleet.controller()  # says why
            raise Unavailable(
                "the pools are still being opened", code="fleet_starting", resolution="repeat the request"
            ) from None

    async def _keep(self) -> None:
        """Open pools and keep them until this is cancelled; what goes wrong is told, and the town goes on."""
        try:
            async with AsyncExitStack() as undo:
                self._state = await self._open(undo)
                self._settled.set()
                await asyncio.Event().wait()
        except BoroughError as error:
            self._why_not = error
            log.warning("pools.not_ready", reason=error.message, resolution=error.resolution)
        except Exception:  # the town is served whatever it is
            log.exception("pools.failed")
        finally:
            self._state = self._warm = self._store = None
            self._settled.set()

    async def _open(self, undo: AsyncExitStack) -> PoolsState:
        if self._tls:
            raise Unavailable(
                "there are no pools where the server serves TLS",
                code="fleet_not_ready",
                reason="machines of this host reach a server that is asked for plain pages only",
                resolution="serve on loopback without TLS, behind something that ends TLS for others",
            )
        fleet = await self._opened_fleet()
        # Imported on the side, as the fleet is: nobody who starts a server waits for it.
        from borough.adapters.sql.pools import SqlPools  # noqa: PLC0415 - see above
        from borough.controllers.autoscale import controllers  # noqa: PLC0415 - see above
        from borough.pools.services.autoscaler import Autoscaler  # noqa: PLC0415 - see above
        from borough.pools.services.machines import PoolMachines  # noqa: PLC0415 - see above
        from borough.pools.services.pools import PoolService  # noqa: PLC0415 - see above
        from borough.pools.services.telling import Telling  # noqa: PLC0415 - see above
        from borough.pools.services.warm import WarmMachines  # noqa: PLC0415 - see above
        from borough.pools.services.watching import Watch  # noqa: PLC0415 - see above
        from borough.pools.services.workers import PoolWorkers  # noqa: PLC0415 - see above

        store = await SqlPools.open(self._folder / STORE)
        undo.push_async_callback(store.close)
        town, homes = self._town.services, fleet.services
        telling = Telling(store, self._town.events)
        autoscaler = Autoscaler(
            store,
            watch=Watch(homes.environments, homes.operations),
            machines=PoolMachines(store, homes.environments),
            workers=PoolWorkers(store, homes.guests, town.agents, town.workers),
            telling=telling,
            agents=town.agents,
            readings=town.readings,
            max_agents=town.facts.max_agents,
        )
        undo.push_async_callback(autoscaler.close)
        await undo.enter_async_context(running(controllers(autoscaler.act)))
        self._warm, self._store = WarmMachines(store, homes.environments), store
        return PoolsState(pools=PoolService(store, telling, seen=lambda: autoscaler.seen))

    async def _opened_fleet(self) -> "FleetController":
        while True:
            try:
                return await self._fleet.controller()
            except Unavailable as error:
                if error.code != "fleet_starting":
                    raise


@asynccontextmanager
async def pooled(folder: Path, town: Town, fleet: TownFleet, *, tls: bool) -> AsyncIterator[TownPools]:
    """Yield the pools of a town, kept in ``folder``; whoever has them begins them."""
    pools = TownPools(folder, town, fleet, tls=tls)
    try:
        yield pools
    finally:
        await pools.close()

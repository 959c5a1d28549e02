"""A town that houses too: the fleet's controller on the town's port and in its folder, this machine as first host.

It is opened on the side: the town is served meanwhile, and also if it turns out that there can be no fleet here.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import structlog

from borough.adapters.sql.private_files import private_folder
from borough.bootstrap.fleet_record import FleetRecord
from borough.bootstrap.running import running
from borough.config.fleet import TownFleetSettings
from borough.core.errors import BoroughError, Unavailable
from borough.governance.services.intake import IntakeService
from borough.http.auth import OperatorVerifier
from borough.http.fleet.about import PAGE, PUBLIC, metrics_text
from borough.http.fleet.authentication import KeyAuthenticator
from borough.http.fleet.dialect import fleet_error
from borough.http.fleet.routes import OPERATIONS
from borough.http.idempotency import Idempotency
from borough.http.limits import LoginThrottle
from borough.http.operations import Operation
from borough.http.surfaces import Policies, Surface

if TYPE_CHECKING:
    from datetime import timedelta

    from borough.auth.principals import Principal, WorkerGrant
    from borough.bootstrap.fleet import FleetController
    from borough.fleet.services.guests import GuestService
    from borough.http.fleet.services import FleetServices
    from borough.town.ports.replies import StoredReply

log = structlog.get_logger(__name__)

PAGE_PATH: Final = "/fleet"
"""Where the fleet's page is; the first page of the port is the town's."""
UNDER: Final = "/api/"
AWAITED_S: Final = 25.0
"""How long a request waits for a fleet that is being opened."""
BODY_LIMIT_BYTES: Final = 2_097_152
FAILED_LOGINS_PER_MINUTE: Final = 120
_HEAVY: Final = ("borough.bootstrap.first_host", "borough.bootstrap.fleet")


class TownFleet:
    """The fleet beside a town."""

    def __init__(
        self,
        settings: TownFleetSettings,
        *,
        url: str,
        operator: OperatorVerifier,
        intake: IntakeService,
        stopping: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._address = urlsplit(url).netloc
        self._operator = operator
        self._stopping = stopping
        self._record = FleetRecord(intake, self.controller)
        self._settled = asyncio.Event()
        self._fleet: FleetController | None = None
        self._why_not: BoroughError | None = None
        self._warnings: list[str] = []
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin to open it."""
        self._task = asyncio.create_task(self._keep(), name="fleet")

    async def close(self) -> None:
        """Close it; machines run on, and are found again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # -- what is served ------------------------------------------------------------------------------------------------

    def surface(self, towns: Sequence[Operation]) -> Surface:
        """Return the controller's operations beside those of the town, which keeps what both have."""
        taken = {row.path for row in towns}
        rows = [row for row in OPERATIONS if row not in PUBLIC and row not in PAGE]
        page, *assets = PAGE
        policies = Policies(
            body_limit_bytes=BODY_LIMIT_BYTES,
            logins=LoginThrottle(failures_per_minute=FAILED_LOGINS_PER_MINUTE),
            idempotency=Idempotency(_LateReplies(self)),
            stopping=self._stopping,
        )
        return Surface(
            operations=(*rows, replace(page, path=PAGE_PATH), *assets),
            state=None,
            opened=self.services,
            authenticate=KeyAuthenticator(
                self._settings.controller.listening.api_key,
                operator=self._operator,
                closed=True,
                on_failure=self._record.refused_login,
            ),
            grant_is_live=_nobody_is_bound,
            dialect=fleet_error,
            by_ticket=self._by_ticket,
            before_write=self._record.check,
            note_refusal=self._record.refused,
            covers=lambda path: path.startswith(UNDER) and path not in taken,
            policies=policies,
            closed_under=UNDER,
        )

    async def _by_ticket(self, word: str, client_host: str) -> "Principal":
        return await (await self.services()).tickets.take(word, client_host)

    async def services(self) -> "FleetServices":
        """Return what the controller's handlers may call; waits while it is being opened.

        Raises:
            Unavailable: that lasts (``fleet_starting``), or it cannot be opened (``fleet_not_ready``).
        """
        return (await self.controller()).services

    async def guests(self) -> "GuestService":
        """Return the inside of its machines; raises as ``services``."""
        return (await self.controller()).services.guests

    async def controller(self) -> "FleetController":
        """Return the open controller; raises as ``services``."""
        try:
            async with asyncio.timeout(AWAITED_S):
                await self._settled.wait()
        except TimeoutError:
            raise Unavailable(
                "the fleet is still being opened",
                code="fleet_starting",
                resolution="repeat the request; /ready says how it stands",
                details={"retry_after_s": 1},
            ) from None
        if self._fleet is None:
            raise self._not_ready()
        return self._fleet

    async def recorded(self) -> None:
        """Have all that happened up to now moved into the ledger."""
        await self._record.catch_up()

    async def told(self) -> str:
        """Return how it stands."""
        if not self._settled.is_set():
            return "starting"
        if self._fleet is None:
            return f"not ready: {self._not_ready().reason}"
        try:
            await self._fleet.services.fleet.event_bounds()
        except Unavailable as error:
            return f"not ready: {error.message}"
        return "; ".join(("ready", *self._warnings))

    async def metrics(self) -> str:
        """Return its sums as Prometheus reads them; nothing while there are none."""
        if self._fleet is None:
            return ""
        try:
            return metrics_text(await self._fleet.services.fleet.totals())
        except Unavailable as error:
            return f"# borough_fleet_metrics_error {' '.join(error.message.split())}\n"

    def _not_ready(self) -> Unavailable:
        error = self._why_not
        return Unavailable(
            "there is no fleet here",
            code="fleet_not_ready",
            reason=None if error is None else error.message,
            resolution=(error and error.resolution) or "see the server's log, then start it again",
        )

    # -- its life ------------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Open the fleet and keep it until this is cancelled; what goes wrong is told, and the town goes on."""
        try:
            async with AsyncExitStack() as undo:
                self._fleet = await self._open(undo)
                self._settled.set()
                await asyncio.Event().wait()
        except BoroughError as error:
            self._failed(error)
        except OSError as error:
            self._failed(Unavailable(f"{error.filename or 'a file'}: {error.strerror or error}", code="fleet_failed"))
        except Exception as error:  # the town is served whatever it is
            log.exception("fleet.failed")
            self._failed(Unavailable(f"{type(error).__name__}: {error}", code="fleet_failed"))
        finally:
            self._fleet = None
            self._settled.set()

    def _failed(self, error: BoroughError) -> None:
        self._why_not = error
        log.warning("fleet.not_ready", reason=error.message, resolution=error.resolution)

    async def _open(self, undo: AsyncExitStack) -> "FleetController":
        # Imported on the side too: it takes longer than all the rest of it.
        await asyncio.to_thread(lambda: [import_module(name) for name in _HEAVY])
        from borough.bootstrap.first_host import open_first_host  # noqa: PLC0415 - see above
        from borough.bootstrap.fleet import open_fleet  # noqa: PLC0415 - see above

        settings = self._settings
        for folder in (settings.controller.data_dir.parent, settings.controller.data_dir, settings.host.data_dir):
            private_folder(folder)
        host = await open_first_host(settings.host, undo, warn=self._warn)
        local = {} if host is None else {self._address: host.daemon}
        fleet = await undo.enter_async_context(open_fleet(settings.controller, local=local, recorded=True))
        await self._record.begin(fleet, undo)
        if host is not None:
            await self._adopt(fleet)
        loops = (*fleet.controllers, *(() if host is None else host.controllers))
        await undo.enter_async_context(running(loops))
        log.info("fleet.ready", host=None if host is None else host.host_id)
        return fleet

    async def _adopt(self, fleet: "FleetController") -> None:
        try:
            await fleet.services.hosts.adopt(self._address)
        except BoroughError as error:
            self._warn(f"this machine is not registered as a host: {error.message}")

    def _warn(self, told: str) -> None:
        self._warnings.append(told)
        log.warning("fleet.warning", told=told)


class _LateReplies:
    """The port ``Replies`` of a fleet that may still be being opened."""

    def __init__(self, fleet: TownFleet) -> None:
        self._fleet = fleet

    async def begin(self, key: str, *, fingerprint: str, ttl: "timedelta") -> "StoredReply | None":
        """Claim ``key``."""
        return await (await self._fleet.controller()).replies.begin(key, fingerprint=fingerprint, ttl=ttl)

    async def hold(self, key: str, *, ttl: "timedelta") -> None:
        """Let a claim last."""
        await (await self._fleet.controller()).replies.hold(key, ttl=ttl)

    async def finish(self, key: str, reply: "StoredReply", *, ttl: "timedelta") -> None:
        """Keep the answer."""
        await (await self._fleet.controller()).replies.finish(key, reply, ttl=ttl)

    async def abandon(self, key: str) -> None:
        """Free ``key``."""
        await (await self._fleet.controller()).replies.abandon(key)


@asynccontextmanager
async def house(
    settings: TownFleetSettings, *, url: str, operator: OperatorVerifier, intake: IntakeService, stopping: asyncio.Event
) -> AsyncIterator[TownFleet]:
    """Yield the fleet of the town that is served at ``url``; whoever has it begins it."""
    fleet = TownFleet(settings, url=url, operator=operator, intake=intake, stopping=stopping)
    try:
        yield fleet
    finally:
        await fleet.close()


async def _nobody_is_bound(_grant: "WorkerGrant") -> bool:
    """Tell that no worker's token means anything to a fleet."""
    return False

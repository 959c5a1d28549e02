"""The server: settings, safety, port, store, town, HTTP; then the way back.

``townhall`` serves a town; ``borough up`` serves governance and the fleet on the same port too.
"""

import asyncio
import os
import ssl
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING

import structlog
import uvloop
from starlette.types import ASGIApp

from borough.adapters.credentials.operator import (
    OperatorToken,
    announce_server,
    operator_token,
    town_key,
    withdraw_server,
)
from borough.adapters.holding import hold_town
from borough.auth.principals import WorkerGrant
from borough.auth.tokens import SignedTokens
from borough.bootstrap.access import authenticator
from borough.bootstrap.running import refusal, running
from borough.bootstrap.store import open_store
from borough.bootstrap.town import Town, open_town
from borough.config.environment import container_environment, shared_ledger
from borough.config.global_file import load_settings
from borough.config.safety import StartPlan, TlsPlan, parse_bind, start_plan
from borough.config.town import TownSettings
from borough.config.town_file import prepare_state_folder
from borough.core.clock import utc_now
from borough.core.errors import BoroughError, NotFound
from borough.http import binding
from borough.http.auth import OperatorVerifier
from borough.http.guards import host_rule
from borough.http.idempotency import Idempotency
from borough.http.limits import LoginThrottle, RateLimits
from borough.http.middleware import Edge, EdgeSettings
from borough.http.pages import page_operations
from borough.http.server import serve as serve_http
from borough.http.sockets import WithSockets
from borough.http.table import OperationTable, Policies, Surface
from borough.http.town.about import ABOUT
from borough.http.town.routes import OPERATIONS
from borough.observability.logs import configure
from borough.town.agents import TERMINAL

if TYPE_CHECKING:
    from borough.bootstrap.dashboard import Dashboard
    from borough.bootstrap.governed_town import GovernedTown, Law
    from borough.bootstrap.overview import Overview
    from borough.bootstrap.pools import TownPools
    from borough.bootstrap.runs import OpenRuns
    from borough.bootstrap.town_fleet import TownFleet
    from borough.config.fleet import Housing, TownFleetSettings
    from borough.controllers.outbox import Outbox

log = structlog.get_logger(__name__)

END_WORKERS_S = 15.0
Greet = Callable[[str, Callable[[], str]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Everything that was checked before the port was opened."""

    settings: TownSettings
    plan: StartPlan
    tls: ssl.SSLContext | None
    sockets: list[socket]
    operator: OperatorToken
    tokens: SignedTokens
    held: int
    """The descriptor that holds the town; it is closed by the end of the process."""
    law: "Law | None" = None
    """What is needed to govern too; ``None``: only the town is served."""
    fleet: "TownFleetSettings | None" = None
    """What is needed to house too, likewise."""
    dashboard: "Dashboard | None" = None
    """The page of a server that governs and houses."""
    ledger: Path | None = None
    """Where the ledger is that a town alone shares with other programs."""

    @property
    def operators(self) -> OperatorVerifier:
        """Who knows the operator: by the credential in the folder, and by the sessions of the dashboard."""
        return self.operator if self.dashboard is None else self.dashboard.sessions

    @property
    def url(self) -> str:
        """Where this machine reaches the server."""
        return binding.server_url(self.sockets, tls=self.tls is not None)

    def close(self) -> None:
        """Give the sockets back."""
        for opened in self.sockets:
            opened.close()
        if self.law is not None:
            self.law.close()


def serve(
    root: Path,
    *,
    bind: str | None,
    port: int | None,
    verbose: bool,
    housing: "Housing | None" = None,
    greet: Greet | None = None,
) -> int:
    """Serve the town at ``root`` until a signal ends it; return the exit code. ``housing``: govern and house too.

    ``greet`` is called when the dashboard answers, with where it is and what makes an address that signs its reader in.

    What is wrong with settings, files or port is said in one line on stderr before anything is started.
    """
    configure(verbose=verbose)
    try:
        opening = _open(root, bind, port, os.environ, housing)
        try:
            uvloop.run(_serve(opening, greet))
        finally:
            opening.close()
    except BoroughError as error:
        sys.stderr.write(refusal(error))
        return 1
    return 0


def _open(
    root: Path, bind: str | None, port: int | None, environ: Mapping[str, str], housing: "Housing | None"
) -> Opening:
    """Check all that can be checked, then take the port: a server that must not start does not even bind."""
    settings = load_settings(root, environ)
    container = container_environment(environ)
    address = parse_bind(bind or container.bind or settings.townhall.bind)
    wanted_port = next(value for value in (port, container.port, settings.townhall.rest_port) if value is not None)
    plan = start_plan(settings.townhall, bind=address, root=settings.root, at=utc_now())
    tls_warnings, tls = _tls(plan.tls)
    for warning in (*settings.warnings, *plan.warnings, *tls_warnings):
        log.warning("start.warning", told=warning)
    state = prepare_state_folder(settings.root)
    held = hold_town(state)
    with ExitStack() as undo:
        sockets = binding.bind(str(address), wanted_port)
        for bound in sockets:
            undo.callback(bound.close)
        fleet = None if housing is None else _fleet(environ, state, housing, sockets, tls=tls is not None)
        law = None if housing is None else _law(environ, state, sockets)
        operator = operator_token(state)
        dashboard = None if housing is None else _dashboard(state, operator)
        undo.pop_all()
    return Opening(
        settings=settings,
        plan=plan,
        tls=tls,
        sockets=sockets,
        operator=operator,
        tokens=SignedTokens(town_key(state)),
        held=held,
        law=law,
        fleet=fleet,
        dashboard=dashboard,
        ledger=shared_ledger(environ) if housing is None else None,
    )


def _law(environ: Mapping[str, str], state: Path, sockets: list[socket]) -> "Law":
    from borough.bootstrap.governed_town import open_law  # noqa: PLC0415 - a town alone starts without it

    host, port = sockets[0].getsockname()[:2]
    return open_law(environ, state, host=host, port=port)


def _fleet(
    environ: Mapping[str, str], state: Path, housing: "Housing", sockets: list[socket], *, tls: bool
) -> "TownFleetSettings":
    from borough.config.fleet import fleet_of_town  # noqa: PLC0415 - a town alone starts without it

    host, port = sockets[0].getsockname()[:2]
    return fleet_of_town(environ, state, housing, host=host, port=port, tls=tls)


def _dashboard(state: Path, operator: OperatorToken) -> "Dashboard":
    from borough.bootstrap.dashboard import open_dashboard  # noqa: PLC0415 - a town alone starts without it

    return open_dashboard(state, operator)


def _tls(plan: TlsPlan | None) -> tuple[tuple[str, ...], ssl.SSLContext | None]:
    if plan is None:
        return (), None
    from borough.adapters.tls import check_tls_files, server_context  # noqa: PLC0415 - 0.3 s that most starts save

    warnings = check_tls_files(cert_file=plan.cert_file, key_file=plan.key_file, ca_file=plan.ca_file, at=utc_now())
    context = server_context(
        cert_file=plan.cert_file,
        key_file=plan.key_file,
        ca_file=plan.ca_file,
        client_certificate_required=plan.client_certificate_required,
    )
    return warnings, context


async def _serve(opening: Opening, greet: Greet | None) -> None:
    stopping = asyncio.Event()
    async with AsyncExitStack() as undo:
        store = await undo.enter_async_context(open_store(opening.settings))
        town = await undo.enter_async_context(
            open_town(
                opening.settings,
                store,
                tokens=opening.tokens,
                server_url=opening.url,
                certificate=opening.plan.tls.cert_file if opening.plan.tls else None,
            )
        )
        governed = await _govern(undo, opening, town, stopping)
        town, record = await _record(undo, opening, town)
        fleet = await _house(undo, opening, governed, stopping)
        if governed is not None and fleet is not None:
            governed.gateway.governance.homes.connect(fleet.guests)
        pools = await _pool(undo, opening, town, fleet)
        runs = None
        if governed is not None and fleet is not None:
            from borough.bootstrap.runs import open_runs, own_machines  # noqa: PLC0415 - a town alone starts without it

            folder, law = opening.settings.state_folder, governed.gateway.governance
            runs = await undo.enter_async_context(open_runs(folder, town, law, own_machines(fleet, pools)))
        contexts = Contexts(town=town, governed=governed, fleet=fleet, runs=runs, pools=pools, record=record)
        overview = _overview(contexts)
        controllers = town.controllers if overview is None else (*town.controllers, overview.controller)
        loops = await undo.enter_async_context(running(controllers))

        def ready() -> None:
            # Told only now: from here on a signal is a wish to stop in order, and requests are answered.
            door = None if opening.law is None else opening.law.doors.operators.path
            images = None if opening.fleet is None else Path(opening.fleet.host.image_dir)
            told = announce_server(opening.settings.state_folder, opening.url, socket=door, images=images)
            undo.callback(withdraw_server, opening.settings.state_folder, told)
            log.info(
                "server.ready", address=opening.url, town=opening.settings.name, socket=str(door) if door else None
            )
            loops.append(asyncio.create_task(town.start_again(), name="start again"))
            if fleet is not None:
                fleet.begin()
            if pools is not None:
                pools.begin()
            if greet is not None and opening.dashboard is not None:
                greet(opening.url, partial(opening.dashboard.address, opening.url))

        async def end_agents() -> None:
            ending = [_end_workers(town)] if governed is None else [_end_workers(town), governed.end_agents()]
            await asyncio.gather(*ending)

        await serve_http(
            application(opening, contexts, overview, stopping),
            opening.sockets,
            stopping=stopping,
            before_stopping=end_agents,
            tls=opening.tls,
            drain_s=opening.settings.townhall.drain_timeout_secs,
            on_ready=ready,
            websockets=fleet is not None,
        )
    log.info("server.stopped", town=opening.settings.name)


async def _govern(undo: AsyncExitStack, opening: Opening, town: Town, stopping: asyncio.Event) -> "GovernedTown | None":
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


async def _record(undo: AsyncExitStack, opening: Opening, town: Town) -> "tuple[Town, Outbox | None]":
    """Hand in what a town alone does, where it shares a ledger; return it as it is to be served."""
    if opening.ledger is None:
        return town, None
    from borough.bootstrap.shared_ledger import recorded_town, shared_ledger  # noqa: PLC0415 - as above

    ledger = await undo.enter_async_context(shared_ledger(opening.ledger, program="townhall"))
    outbox = await undo.enter_async_context(recorded_town(ledger, town))
    return replace(town, services=replace(town.services, ledger=ledger)), outbox


async def _house(
    undo: AsyncExitStack, opening: Opening, governed: "GovernedTown | None", stopping: asyncio.Event
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
    undo: AsyncExitStack, opening: Opening, town: Town, fleet: "TownFleet | None"
) -> "TownPools | None":  # fmt: skip
    """Prepare the pools of a town that houses, to be closed by ``undo`` before its fleet."""
    if fleet is None or opening.fleet is None:
        return None
    from borough.bootstrap.pools import pooled  # noqa: PLC0415 - a town alone starts without it

    folder = opening.fleet.controller.data_dir.parent
    return await undo.enter_async_context(pooled(folder, town, fleet, tls=opening.tls is not None))


def _overview(contexts: "Contexts") -> "Overview | None":
    """Return what is served over all contexts, where all of them are."""
    if contexts.governed is None or contexts.fleet is None or contexts.runs is None:
        return None
    from borough.bootstrap.overview import Overview  # noqa: PLC0415 - a town alone starts without it

    return Overview(contexts.town, contexts.governed, contexts.fleet, contexts.runs)


async def _end_workers(town: Town) -> None:
    """End local workers while the server still answers them: each gives its task back."""
    try:
        async with asyncio.timeout(END_WORKERS_S):
            await town.end_workers()
    except (BoroughError, TimeoutError) as error:
        log.warning("workers.not_ended", error=str(error))


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

    @property
    def before_write(self) -> Callable[[], None] | None:
        """What lets something new begin, or refuses it."""
        if self.governed is not None:
            return self.governed.check_ledger
        return None if self.record is None else self.record.check


def application(opening: Opening, contexts: Contexts, overview: "Overview | None", stopping: asyncio.Event) -> ASGIApp:
    """Return the whole HTTP application."""
    townhall = opening.settings.townhall
    town, governed, fleet = contexts.town, contexts.governed, contexts.fleet
    runs, pools = contexts.runs, contexts.pools

    async def grant_is_live(grant: WorkerGrant) -> bool:
        if grant.task_id is not None and grant.epoch is not None:
            return await town.leases.attempt_is_live(grant.task_id, epoch=grant.epoch)
        try:
            agent = await town.agents.get(grant.agent_id)
        except NotFound:
            return False
        return agent.incarnation == grant.incarnation and agent.state not in TERMINAL

    authenticate = authenticator(townhall.auth, tokens=opening.tokens, operator=opening.operators, events=town.events)
    operations = OPERATIONS if governed is None else governed.operations(OPERATIONS)
    operations = operations if overview is None else overview.operations(operations)
    others = {} if governed is None else dict(governed.other_pages)
    others |= {} if overview is None else overview.other_pages
    others |= {} if pools is None else pools.other_pages
    about = ABOUT if opening.dashboard is None else replace(ABOUT, is_home=False)
    surface = Surface(
        operations=(*operations, *page_operations(OPERATIONS, about, others=others)),
        state=replace(town.services, fleet=fleet),
        authenticate=authenticate,
        grant_is_live=grant_is_live,
        before_write=contexts.before_write,
    )
    limits = RateLimits(
        reads_per_minute=townhall.rate_limit.requests_per_minute,
        writes_per_minute=townhall.rate_limit.mutating_requests_per_minute,
        burst=townhall.rate_limit.burst_size,
    )
    surfaces = [surface]
    surfaces += [] if opening.dashboard is None else [opening.dashboard.surface]
    surfaces += [] if governed is None else [governed.surface]
    surfaces += [] if fleet is None else [fleet.surface(OPERATIONS)]
    surfaces += [] if pools is None else [pools.surface(like=surface)]
    if runs is not None and governed is not None:
        surfaces.append(
            runs.surface(authenticate=authenticate, grant_is_live=grant_is_live, before_write=governed.check_ledger)
        )
    surfaces += [] if overview is None else [overview.surface(authenticate=authenticate, grant_is_live=grant_is_live)]
    table = OperationTable(
        surfaces,
        Policies(
            timeout_s=townhall.request_timeout_ms / 1000,
            limits=limits if opening.plan.rate_limited else None,
            logins=LoginThrottle(),
            idempotency=Idempotency(town.replies),
            stopping=stopping,
        ),
    )
    proxies = [ip_network(proxy, strict=False) for proxy in townhall.trusted_proxies]
    hosts = host_rule(str(opening.plan.bind), townhall.allowed_hosts)
    edge = EdgeSettings(hosts=hosts, stopping=stopping, trusted_proxies=proxies, dialect_at=table.dialect_at)
    whole = Edge(table, edge) if governed is None else governed.in_front(table, edge)
    return whole if fleet is None else WithSockets(whole)

"""The server: settings, safety, port, store, town, HTTP; then the way back."""

import asyncio
import os
import ssl
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from socket import socket

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
from borough.bootstrap.store import open_store
from borough.bootstrap.town import Town, open_town
from borough.config.environment import container_environment
from borough.config.global_file import load_settings
from borough.config.safety import StartPlan, TlsPlan, parse_bind, start_plan
from borough.config.town import TownSettings
from borough.config.town_file import prepare_state_folder
from borough.controllers.loops import run
from borough.core.clock import utc_now
from borough.core.errors import BoroughError, NotFound
from borough.http import binding
from borough.http.guards import host_rule
from borough.http.idempotency import Idempotency
from borough.http.limits import LoginThrottle, RateLimits
from borough.http.middleware import Edge, EdgeSettings
from borough.http.pages import page_operations
from borough.http.server import serve as serve_http
from borough.http.table import OperationTable, Policies, Surface
from borough.http.town.about import ABOUT
from borough.http.town.routes import OPERATIONS
from borough.observability.logs import configure
from borough.town.agents import TERMINAL

log = structlog.get_logger(__name__)

END_WORKERS_S = 15.0


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

    @property
    def url(self) -> str:
        """Where this machine reaches the server."""
        return binding.server_url(self.sockets, tls=self.tls is not None)


def serve(root: Path, bind: str | None, port: int | None, verbose: bool) -> int:  # noqa: FBT001 - the programs' one call
    """Serve the town at ``root`` until a signal ends it; return the exit code.

    What is wrong with settings, files or port is said in one line on stderr before anything is started.
    """
    configure(verbose=verbose)
    try:
        opening = _open(root, bind, port, os.environ)
        uvloop.run(_serve(opening))
    except BoroughError as error:
        sys.stderr.write(_refusal(error))
        return 1
    return 0


def _refusal(error: BoroughError) -> str:
    why = f": {error.reason}" if error.reason else ""
    way_out = f" ({error.resolution})" if error.resolution else ""
    return f"error: {error.message}{why}{way_out}\n"


def _open(root: Path, bind: str | None, port: int | None, environ: Mapping[str, str]) -> Opening:
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
    return Opening(
        settings=settings,
        plan=plan,
        tls=tls,
        sockets=binding.bind(str(address), wanted_port),
        operator=operator_token(state),
        tokens=SignedTokens(town_key(state)),
        held=held,
    )


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


async def _serve(opening: Opening) -> None:
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
        loops = [asyncio.create_task(run(controller), name=controller.name) for controller in town.controllers]
        undo.push_async_callback(_cancel, loops)

        def ready() -> None:
            # Told only now: from here on a signal is a wish to stop in order, and requests are answered.
            record = announce_server(opening.settings.state_folder, opening.url)
            undo.callback(withdraw_server, opening.settings.state_folder, record)
            log.info("server.ready", address=opening.url, town=opening.settings.name)
            loops.append(asyncio.create_task(town.start_again(), name="start again"))

        await serve_http(
            application(opening, town, stopping),
            opening.sockets,
            stopping=stopping,
            before_stopping=lambda: _end_workers(town),
            tls=opening.tls,
            drain_s=opening.settings.townhall.drain_timeout_secs,
            on_ready=ready,
        )
    log.info("server.stopped", town=opening.settings.name)


async def _end_workers(town: Town) -> None:
    """End local workers while the server still answers them: each gives its task back."""
    try:
        async with asyncio.timeout(END_WORKERS_S):
            await town.end_workers()
    except (BoroughError, TimeoutError) as error:
        log.warning("workers.not_ended", error=str(error))


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def application(opening: Opening, town: Town, stopping: asyncio.Event) -> ASGIApp:
    """Return the whole HTTP application."""
    townhall = opening.settings.townhall

    async def grant_is_live(grant: WorkerGrant) -> bool:
        if grant.task_id is not None and grant.epoch is not None:
            return await town.leases.attempt_is_live(grant.task_id, epoch=grant.epoch)
        try:
            agent = await town.agents.get(grant.agent_id)
        except NotFound:
            return False
        return agent.incarnation == grant.incarnation and agent.state not in TERMINAL

    authenticate = authenticator(townhall.auth, tokens=opening.tokens, operator=opening.operator, events=town.events)
    surface = Surface(
        operations=(*OPERATIONS, *page_operations(OPERATIONS, ABOUT)),
        state=town.services,
        authenticate=authenticate,
        grant_is_live=grant_is_live,
    )
    limits = RateLimits(
        reads_per_minute=townhall.rate_limit.requests_per_minute,
        writes_per_minute=townhall.rate_limit.mutating_requests_per_minute,
        burst=townhall.rate_limit.burst_size,
    )
    table = OperationTable(
        [surface],
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
    return Edge(table, EdgeSettings(hosts=hosts, stopping=stopping, trusted_proxies=proxies))

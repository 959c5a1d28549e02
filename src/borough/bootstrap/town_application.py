"""The HTTP application of a town's server, out of the contexts that it holds."""

import asyncio
from dataclasses import replace
from ipaddress import ip_network

from starlette.types import ASGIApp

from borough.auth.principals import WorkerGrant
from borough.bootstrap.access import authenticator
from borough.bootstrap.contexts import Contexts
from borough.bootstrap.town_opening import TownOpening
from borough.core.errors import NotFound
from borough.http.guards import host_rule
from borough.http.idempotency import Idempotency
from borough.http.limits import LoginThrottle, RateLimits
from borough.http.middleware import Edge, EdgeSettings
from borough.http.pages import page_operations
from borough.http.sockets import WithSockets
from borough.http.surfaces import Policies, Surface
from borough.http.table import OperationTable
from borough.http.town.about import ABOUT
from borough.http.town.routes import OPERATIONS
from borough.town.agents import TERMINAL


def application(opening: TownOpening, contexts: Contexts, stopping: asyncio.Event) -> ASGIApp:
    """Return the whole HTTP application."""
    townhall = opening.settings.townhall
    town, governed, fleet = contexts.town, contexts.governed, contexts.fleet
    runs, pools, overview = contexts.runs, contexts.pools, contexts.overview

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

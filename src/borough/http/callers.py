"""Who calls an operation, and whether they may: known, let in by what they hold, and not too often."""

from collections.abc import Mapping, Sequence

from starlette.types import Scope

from borough.auth.principals import LOCAL, Principal, WorkerGrant
from borough.auth.scopes import Scope as AuthScope
from borough.auth.scopes import covers
from borough.core.errors import Conflict, Forbidden
from borough.http.answers import RawHeaders
from borough.http.context import RequestContext
from borough.http.limits import LoginThrottle
from borough.http.operations import Access, ByAttempt
from borough.http.parsing import parse_headers, ticket_of
from borough.http.surfaces import Endpoint, Surface

ANONYMOUS = Principal(id="anonymous", scopes=frozenset())
"""The caller of an open route."""

Closed = Sequence[tuple[Surface, LoginThrottle | None]]
"""Surfaces whose routes only those who are let in may know, and what slows down those who guess credentials."""


async def admit(
    endpoint: Endpoint, scope: Scope, headers: Mapping[str, str], context: RequestContext
) -> tuple[Principal, RawHeaders]:
    """Return who calls, and the headers that tell how often they still may; ``context`` learns the caller at once.

    Raises:
        Forbidden: the caller is not known, or may not do this.
        Conflict: what a worker's token speaks for is over (``stale_epoch``).
        Unavailable: the caller asks too often (``rate_limited``).
    """
    access = endpoint.operation.access
    principal = ANONYMOUS if access is Access.PUBLIC else await _authenticated(endpoint, scope, headers, context.client)
    context.principal = principal.id
    grant = principal.worker
    if grant is not None and (grant.task_id is not None or access is not Access.WORKER):
        # Before scopes: an agent is to ask its supervisor, not to look for a stronger credential.
        await _admit_grant(endpoint, grant)
    _check_access(principal, access)
    limits = endpoint.policies.limits
    if not endpoint.operation.metered or limits is None:
        return principal, []
    alone = principal is not ANONYMOUS and principal.id != LOCAL.id
    caller = principal.id if alone else f"address:{context.client}"
    return principal, limits.charge(caller, read=endpoint.read)


async def admit_to_unknown(closed: Closed, scope: Scope, address: str) -> None:
    """Let nobody find out which routes a closed surface has; raises as its authenticator does."""
    path = scope["path"]
    for surface, logins in closed:
        if surface.closed_under is None or not path.startswith(surface.closed_under):
            continue
        if surface.covers is not None and not surface.covers(path):
            continue
        headers = parse_headers(scope["headers"])
        if logins is not None:
            logins.check(address, headers)
        try:
            await surface.authenticate(headers, address)
        except Forbidden as error:
            if logins is not None:
                logins.failed(address, error)
            raise


async def _authenticated(endpoint: Endpoint, scope: Scope, headers: Mapping[str, str], address: str) -> Principal:
    logins = endpoint.policies.logins
    if logins is None:
        return await _authenticate(endpoint, scope, headers, address)
    logins.check(address, headers)
    try:
        principal = await _authenticate(endpoint, scope, headers, address)
    except Forbidden as error:
        logins.failed(address, error)
        raise
    logins.succeeded(headers)
    return principal


async def _authenticate(endpoint: Endpoint, scope: Scope, headers: Mapping[str, str], address: str) -> Principal:
    by_ticket = endpoint.surface.by_ticket
    if endpoint.operation.by_ticket and by_ticket is not None and "authorization" not in headers:
        word = ticket_of(scope.get("query_string", b""))
        if word is not None:
            return await by_ticket(word, address)
    return await endpoint.surface.authenticate(headers, address)


async def _admit_grant(endpoint: Endpoint, grant: WorkerGrant) -> None:
    """Let a worker's token, and that of an attempt, do what is theirs while they live, and no more.

    Raises:
        Forbidden: this is not for agents (``not_for_attempts``).
        Conflict: the incarnation or the attempt is over (``stale_epoch``).
    """
    rule = endpoint.operation.by_attempt
    if rule is ByAttempt.FENCED:
        return
    if rule is ByAttempt.NO and endpoint.operation.access is not AuthScope.READ:
        raise Forbidden(
            "an agent may not do this with its own token",
            code="not_for_attempts",
            resolution="ask the supervisor: tt send supervisor --query '...'",
        )
    if not await endpoint.surface.grant_is_live(grant):
        what = f"task {grant.task_id}, epoch {grant.epoch}" if grant.task_id else f"incarnation {grant.incarnation}"
        raise Conflict(
            f"what this token speaks for is over ({what})",
            code="stale_epoch",
            resolution="stop: this is no longer yours",
        )


def _check_access(principal: Principal, access: Access | AuthScope) -> None:
    """Raise ``Forbidden`` unless ``principal`` is of the kind, or has the scope, that an operation is for."""
    if access is Access.WORKER:
        if principal.worker is None:
            raise Forbidden(
                "only a worker may do this, with its own token",
                code="worker_token_required",
                resolution="call with the token that the worker got when it was registered",
            )
    elif isinstance(access, AuthScope) and not covers(principal.scopes, access):
        held = " ".join(sorted(principal.scopes)) or "none"
        raise Forbidden(
            f"this needs the scope {access}",
            code="insufficient_scope",
            reason=f"the scopes of {principal.id} are: {held}",
            resolution=f"use a credential with the scope {access}",
        )

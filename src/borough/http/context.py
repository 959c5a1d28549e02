"""What the layers of one request tell each other."""

from dataclasses import dataclass

from starlette.types import Scope

from borough.core.ids import new_id

_KEY = "borough.request"


@dataclass(slots=True, kw_only=True)
class RequestContext:
    """Facts about one request, filled in from outside to inside and read by the access log at the end."""

    request_id: str
    client: str
    """The caller's address, after trusted proxies."""
    trace_id: str | None = None
    route: str = ""
    principal: str = ""
    code: str = ""
    """The error's code, if the answer is one."""


def start_context(scope: Scope, *, request_id: str, client: str, trace_id: str | None = None) -> RequestContext:
    """Attach a new context to ``scope``."""
    context = RequestContext(request_id=request_id, client=client, trace_id=trace_id)
    scope[_KEY] = context
    return context


def context_of(scope: Scope) -> RequestContext:
    """Return the request's context; a table that stands alone makes its own."""
    context = scope.get(_KEY)
    if isinstance(context, RequestContext):
        return context
    return start_context(scope, request_id=new_id(), client=peer_host(scope))


def peer_host(scope: Scope) -> str:
    """Return the address at the other end of the connection ('' where there is none, as on a Unix socket)."""
    client = scope.get("client")
    return str(client[0]) if client else ""

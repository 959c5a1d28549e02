"""The operation table: one row says all there is to say about a route.

Routing, validation, authorisation, idempotency, errors and the OpenAPI document follow from the rows, so none of
them can disagree with another.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from starlette.responses import Response

from borough.auth.principals import Principal
from borough.auth.scopes import Scope
from borough.http.sockets import Socket


class Access(StrEnum):
    """Who may call, where no scope says it."""

    PUBLIC = "public"
    WORKER = "worker"
    """Only the worker of the agent or attempt that the route names, with its own token."""
    CALLER = "caller"
    """Whom the surface's authenticator let in; the service decides what they may do, and records a refusal."""


class ByAttempt(StrEnum):
    """Whether an agent CLI may call with the token of its attempt. It always may read."""

    NO = "no"
    LIVE = "live"
    """While the attempt holds its lease."""
    FENCED = "fenced"
    """At any time: the operation itself compares the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, parsed: what a handler gets."""

    principal: Principal
    path: Mapping[str, str]
    query: Any
    """An instance of the operation's ``query`` struct, or ``None``."""
    body: Any
    """An instance of the operation's ``body`` struct, the raw bytes where ``body`` is ``bytes``, or ``None``.

    Where ``body_optional``, an empty body is the struct with its defaults.
    """
    headers: Mapping[str, str]
    """By lower-case name."""
    request_id: str
    operation_key: str
    """Unique to the request, the same when it is repeated under one ``Idempotency-Key``: ids derive from it."""
    state: Any
    """What the surface's application object carries (its services)."""
    disconnected: Callable[[], Awaitable[None]]
    """Returns when the client has gone away or the server is stopping; await it beside long waits."""
    trace_id: str | None = None
    """The W3C trace that the request belongs to."""
    door: str = "http"
    """By which wire the call came: the operations of a context may be served by more than one."""
    socket: Socket | None = None
    """The WebSocket that the request asks for; a handler accepts it by returning a ``SocketAnswer``."""


Handler = Callable[[Call], Awaitable[Any]]
"""Returns an instance of the success answer's struct, or a ``Reply``, or a ready ``Response`` (streams)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer that is not the first row of ``Operation.answers``, or one with headers."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A documented answer. ``body`` is a struct, or ``None`` for no body, or the type of a non-JSON body."""

    status: int
    body: Any
    description: str
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One route."""

    method: str
    path: str
    """With ``{name}`` for parameters."""
    handler: Handler
    access: Scope | Access
    summary: str
    tag: str
    answers: tuple[Answer, ...]
    """The first is the usual success."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """Codes that the service may raise → status, documented; framework errors are added by the table."""
    description: str = ""
    query: type | None = None
    body: Any = None
    """A msgspec struct type, ``bytes``, or ``None``."""
    body_optional: bool = False
    by_attempt: ByAttempt = ByAttempt.NO
    streaming: bool = False
    """Exempt from the request timeout: a stream or a long poll with a limit of its own."""
    ends: bool = False
    """It ends, renews or gives back what is under way, and so goes on where nothing new may begin."""
    metered: bool = True
    """Counts against rate limits; the lease routes of workers do not."""
    secret_answer: bool = False
    """The answer holds a credential: it is never kept for a repetition (ids still derive from the key)."""
    by_ticket: bool = False
    """The query parameter ``ticket`` may stand for the header ``Authorization``: browsers cannot send that one."""
    body_limit_bytes: int | None = None
    """Instead of the server's limit."""
    body_streamed: bool = False
    """``Call.body`` is an iterator of the bytes as they come, of whatever type they are; ``body`` is ``bytes``."""


def open_to_all(
    path: str, handler: Handler, summary: str, *answers: Answer, tag: str = "public", **errors: int
) -> Operation:
    """Return a GET that needs no credential and counts against no limit."""
    return Operation(
        method="GET",
        path=path,
        handler=handler,
        access=Access.PUBLIC,
        summary=summary,
        tag=tag,
        answers=answers,
        errors=errors,
        metered=False,
    )


__all__ = ["Access", "Answer", "ByAttempt", "Call", "Handler", "Operation", "Reply", "Response", "open_to_all"]

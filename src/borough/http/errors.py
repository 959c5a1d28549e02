"""Errors on the wire: kind → status once, refined by code, rendered by the surface's dialect.

A service or a layer raises one of the kinds of ``borough.core.errors``. ``details`` may carry, besides facts for
programs: ``errors`` (a sequence of ``FieldError``), ``pointer`` (a JSON pointer to what is wrong in the body),
``retry_after_s`` and ``headers``.
"""

import math
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType

import msgspec
import structlog

from borough.core.errors import BoroughError, Conflict, Forbidden, Invalid, NotFound, Unavailable
from borough.http.answers import Rendered, raw_headers

_log = structlog.get_logger("borough.http")

NOTHING: Mapping[str, int] = MappingProxyType({})

STATUS_BY_KIND: Mapping[type[BoroughError], int] = {
    Invalid: 422,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    Unavailable: 503,
}

STATUS_BY_CODE: Mapping[str, int] = {
    "authentication_required": 401,
    "cross_origin": 403,
    "duplicate_header": 400,
    "host_not_allowed": 403,
    "idempotency_key_in_use": 409,
    "idempotency_key_reused": 422,
    "internal_error": 500,
    "invalid_content_length": 400,
    "invalid_credentials": 401,
    "invalid_cursor": 400,
    "invalid_idempotency_key": 400,
    "invalid_last_event_id": 400,
    "invalid_path": 400,
    "invalid_query": 400,
    "invalid_request": 400,
    "invalid_task_id": 400,
    "malformed_json": 400,
    "method_not_allowed": 405,
    "rate_limited": 429,
    "request_timeout": 408,
    "too_large": 413,
    "unsupported_media_type": 415,
    "upgrade_required": 426,
    "uri_too_long": 414,
}

TITLES: Mapping[int, str] = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}
"""Titles where the names of RFC 9110 and those of older Pythons differ."""

LEGACY_TEXTS: Mapping[str, str] = {
    "authentication_required": "Authentication required",
    "invalid_credentials": "Invalid credentials",
    "insufficient_scope": "Insufficient permissions",
    "rate_limited": "Rate limit exceeded",
}
"""The member ``error`` of older clients, on 401, 403 and 429."""

CHALLENGES: Mapping[str, str] = {
    "authentication_required": 'Bearer realm="borough"',
    "invalid_credentials": 'Bearer realm="borough", error="invalid_token"',
    "insufficient_scope": 'Bearer realm="borough", error="insufficient_scope"',
}
"""``WWW-Authenticate`` as RFC 6750 has it."""

_RESERVED_DETAILS = frozenset({"errors", "problems", "pointer", "retry_after_s", "headers"})
_UNAVAILABLE_RETRY_S = 1


class FieldError(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is wrong with one part of a request."""

    detail: str
    pointer: str | None = None
    """A JSON pointer into the body, as a URI fragment (RFC 6901 §6)."""
    parameter: str | None = None
    """The query parameter."""


class Problem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The body of every error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    reason: str | None = None
    resolution: str | None = None
    errors: list[FieldError] = []
    details: dict[str, str | int | float | bool | list[str] | None] = {}
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error with its status: what a dialect renders."""

    status: int
    code: str
    detail: str
    request_id: str
    reason: str | None = None
    resolution: str | None = None
    errors: tuple[FieldError, ...] = ()
    details: Mapping[str, str | int | float | bool | list[str] | None] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


Dialect = Callable[[Failure], Rendered]
"""The shape of a surface's errors; the status and the headers are the same in all."""


def status_of(error: BoroughError, refinements: Mapping[str, int] = NOTHING) -> int:
    """Return the status of ``error``: what the route says of its code, else the code's own, else its kind's."""
    if error.code in refinements:
        return refinements[error.code]
    if error.code in STATUS_BY_CODE:
        return STATUS_BY_CODE[error.code]
    return next((status for kind, status in STATUS_BY_KIND.items() if isinstance(error, kind)), 500)


def title_of(status: int) -> str:
    """Return the name of ``status``."""
    return TITLES.get(status) or HTTPStatus(status).phrase


def failure_of(error: BoroughError, *, request_id: str, refinements: Mapping[str, int] = NOTHING) -> Failure:
    """Return ``error`` as the wire will tell it."""
    status = status_of(error, refinements)
    return Failure(
        status=status,
        code=error.code,
        detail=error.message,
        request_id=request_id,
        reason=error.reason,
        resolution=error.resolution,
        errors=_field_errors(error),
        details=_facts(error.details),
        headers=_headers(error, status),
    )


def internal_failure(request_id: str) -> Failure:
    """Return what is told of an exception that nobody expected: that it happened, and how to find it."""
    return Failure(
        status=500,
        code="internal_error",
        detail="the server failed to answer this request",
        request_id=request_id,
        resolution="look for the request id in the server's log; repeat the request with the same Idempotency-Key",
    )


def log_unexpected(error: Exception, *, request_id: str) -> None:
    """Log an exception that nobody expected: its traceback, but not the values of variables, which may be secrets."""
    _log.error("request failed", request_id=request_id, exception="".join(traceback.format_exception(error)))


def problem(failure: Failure) -> Rendered:
    """Render ``failure`` as problem+json (RFC 9457)."""
    legacy = LEGACY_TEXTS.get(failure.code, failure.detail) if failure.status in {401, 403, 429} else None
    body = Problem(
        type=f"urn:borough:error:{failure.code}",
        title=title_of(failure.status),
        status=failure.status,
        detail=failure.detail,
        code=failure.code,
        request_id=failure.request_id,
        reason=failure.reason,
        resolution=failure.resolution,
        errors=list(failure.errors),
        details=dict(failure.details),
        error=legacy,
    )
    return Rendered(
        status=failure.status,
        content_type="application/problem+json",
        body=msgspec.json.encode(body),
        headers=raw_headers(failure.headers),
    )


def _field_errors(error: BoroughError) -> tuple[FieldError, ...]:
    told, pointer = error.details.get("errors", ()), error.details.get("pointer")
    if isinstance(pointer, str):
        return (FieldError(pointer=f"#{pointer}", detail=error.message),)
    if not isinstance(told, Sequence):
        return ()
    return (*(item for item in told if isinstance(item, FieldError)), *_problems(error))


def _problems(error: BoroughError) -> Iterator[FieldError]:
    """Yield what is wrong with a document, each with its path in it."""
    problems = error.details.get("problems", ())
    for each in problems if isinstance(problems, Sequence) else ():
        if isinstance(each, Mapping):
            yield FieldError(parameter=str(each.get("path", "")), detail=str(each.get("message", "")))


def _facts(details: Mapping[str, object]) -> dict[str, str | int | float | bool | list[str] | None]:
    facts: dict[str, str | int | float | bool | list[str] | None] = {}
    for name, value in details.items():
        if name in _RESERVED_DETAILS:
            continue
        if value is None or isinstance(value, str | int | float | bool):
            facts[name] = value
        elif isinstance(value, Sequence):
            facts[name] = [str(item) for item in value]
        else:
            facts[name] = str(value)
    return facts


def _headers(error: BoroughError, status: int) -> dict[str, str]:
    headers: dict[str, str] = {}
    given = error.details.get("headers")
    if isinstance(given, Mapping):
        headers.update({str(name): str(value) for name, value in given.items()})
    if error.code in CHALLENGES:
        headers.setdefault("www-authenticate", CHALLENGES[error.code])
    elif status == HTTPStatus.UNAUTHORIZED:
        headers.setdefault("www-authenticate", CHALLENGES["authentication_required"])
    pause = error.details.get(
        "retry_after_s", _UNAVAILABLE_RETRY_S if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    )
    if isinstance(pause, int | float):
        headers["retry-after"] = str(max(1, math.ceil(pause)))
    return headers

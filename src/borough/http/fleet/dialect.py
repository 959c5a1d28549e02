"""The fleet's shape of answers and errors: ``{"ok":true,"data":…}`` and ``{"ok":false,"error":"…","code":"…"}``.

What is absent is left out and never null.
"""

from dataclasses import replace
from typing import Generic, TypeVar

import msgspec

from borough.http.answers import Rendered, raw_headers
from borough.http.errors import Failure

Data = TypeVar("Data")

KEY_REFUSED = "invalid or missing API key"
_UNAUTHORIZED = 401
_SERVER_ERROR = 500
_FRAMEWORK = frozenset({"invalid_body", "route_not_found", "method_not_allowed"})
_REFUSED_BY_SERVICE = frozenset({409, 422, 503})


class Envelope(msgspec.Struct, Generic[Data], kw_only=True):
    """A success that has something to say."""

    ok: bool
    data: Data


class Done(msgspec.Struct, kw_only=True):
    """A success without a payload."""

    ok: bool = True


class Refusal(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The body of every error."""

    ok: bool
    error: str
    code: str = ""
    reason: str | None = None
    resolution: str | None = None
    request_id: str = ""
    errors: list[str] = []
    """Everything that is wrong with the body or the query, each with its place."""


def data(value: Data) -> Envelope[Data]:
    """Return ``value`` in its envelope."""
    return Envelope(ok=True, data=value)


def fleet_error(failure: Failure) -> Rendered:
    """Render ``failure`` as the fleet's clients know it."""
    if failure.status == _UNAUTHORIZED:
        return _rendered(failure, Refusal(ok=False, error=KEY_REFUSED))
    body = Refusal(
        ok=False,
        error=failure.detail,
        code=failure.code,
        reason=failure.reason,
        resolution=failure.resolution,
        request_id=failure.request_id,
        errors=[f"{error.pointer or error.parameter or ''}: {error.detail}".lstrip(": ") for error in failure.errors],
    )
    return _rendered(failure, body)


def strict_fleet_error(failure: Failure) -> Rendered:
    """Render ``failure`` with nothing that the reference does not have."""
    error = KEY_REFUSED if failure.status == _UNAUTHORIZED else _whole_text(failure)
    return _rendered(failure, Refusal(ok=False, error=error))


def strict_host_error(failure: Failure) -> Rendered:
    """As ``strict_fleet_error``; the reference's host daemon answers 500 to whatever it cannot do."""
    if failure.status in _REFUSED_BY_SERVICE and failure.code not in _FRAMEWORK:
        failure = replace(failure, status=_SERVER_ERROR)
    return strict_fleet_error(failure)


def _whole_text(failure: Failure) -> str:
    return f"{failure.detail}: {failure.reason}" if failure.reason else failure.detail


def _rendered(failure: Failure, body: Refusal) -> Rendered:
    return Rendered(
        status=failure.status,
        content_type="application/json",
        body=msgspec.json.encode(body),
        headers=raw_headers(failure.headers),
    )

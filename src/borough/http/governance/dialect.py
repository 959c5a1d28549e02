"""The gateway's shape of errors: the message, a word for programs, and the request's id.

What the layers below the handlers refuse has other words in the town; here they are the gateway's own.
"""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from borough.http.answers import Rendered, raw_headers
from borough.http.errors import Failure


class ErrorBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The body of every error of the gateway."""

    error: str
    code: str
    request_id: str
    reason: str | None = None
    resolution: str | None = None
    errors: list[str] = []
    """Everything that is wrong, each with its path, where more than one thing is."""
    details: dict[str, str | int | float | bool | list[str] | None] = {}
    """Facts for programs, such as the version that is there."""


_INVALID = ("invalid_request", 400)

TOLD: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        "authentication_required": ("unauthorized", 401),
        "invalid_credentials": ("unauthorized", 401),
        "route_not_found": ("not_found", 404),
        "duplicate_header": _INVALID,
        "invalid_body": _INVALID,
        "invalid_content_length": _INVALID,
        "invalid_cursor": _INVALID,
        "invalid_idempotency_key": _INVALID,
        "invalid_last_event_id": _INVALID,
        "invalid_path": _INVALID,
        "invalid_query": _INVALID,
        "malformed_json": _INVALID,
        "internal_error": ("internal", 500),
    }
)
"""Code and status that the gateway tells in the place of a code of the layers below."""


def gateway_error(failure: Failure) -> Rendered:
    """Render ``failure`` as the gateway's clients know it."""
    code, status = TOLD.get(failure.code, (failure.code, failure.status))
    headers = dict(failure.headers)
    if status == 401:  # noqa: PLR2004 - Unauthorized
        # No more than the scheme: an error parameter would tell a missing credential from a wrong one.
        headers["www-authenticate"] = "Bearer"
    body = ErrorBody(
        error=failure.detail,
        code=code,
        request_id=failure.request_id,
        reason=failure.reason,
        resolution=failure.resolution,
        errors=[f"{error.pointer or error.parameter or ''}: {error.detail}".lstrip(": ") for error in failure.errors],
        details=dict(failure.details),
    )
    return Rendered(
        status=status,
        content_type="application/json",
        body=msgspec.json.encode(body),
        headers=raw_headers(headers),
    )

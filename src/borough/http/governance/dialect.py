"""The gateway's shape of errors: the message, a word for programs, and the request's id."""

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


def gateway_error(failure: Failure) -> Rendered:
    """Render ``failure`` as the gateway's clients know it."""
    body = ErrorBody(
        error=failure.detail,
        code=failure.code,
        request_id=failure.request_id,
        reason=failure.reason,
        resolution=failure.resolution,
        errors=[f"{error.pointer or error.parameter or ''}: {error.detail}".lstrip(": ") for error in failure.errors],
        details=dict(failure.details),
    )
    return Rendered(
        status=failure.status,
        content_type="application/json",
        body=msgspec.json.encode(body),
        headers=raw_headers(failure.headers),
    )

"""What all operations of a surface share on the wire, and what the layers below its handlers may answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from borough.auth.scopes import Scope
from borough.http.errors import Problem
from borough.http.openapi.documents import Document
from borough.http.operations import Access, ByAttempt, Operation

_SECURITY_SCHEMES: Document = {
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "An API key, where no Authorization header is sent.",
    },
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, an access token of the issuer, or the operator's credential.",
    },
    "worker": {
        "type": "http",
        "scheme": "bearer",
        "description": "The token that a worker got when it was registered.",
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """What all operations of a surface share on the wire: its errors, and how its callers prove who they are."""

    error: type = Problem
    error_type: str = "application/problem+json"
    told: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Codes of the layers below the handlers that the surface tells by another code and status."""
    security: Mapping[str, Document] = field(default_factory=lambda: _SECURITY_SCHEMES)
    public_pages: bool = False
    """Whether pages of other origins may write: none is refused then for where it comes from."""
    keeps_answers: bool = True
    """Whether the answer to a POST with an ``Idempotency-Key`` is kept and repeated."""


TOWN_WIRE = Wire()


def framework_errors(operation: Operation, wire: Wire = TOWN_WIRE) -> dict[str, int]:
    """Return the codes that the layers below the handler may answer on this route."""
    return dict(wire.told.get(code, (code, status)) for code, status in _layers_errors(operation, wire).items())


def _layers_errors(operation: Operation, wire: Wire) -> dict[str, int]:
    codes = {"duplicate_header": 400, "invalid_path": 400, "host_not_allowed": 403, "uri_too_long": 414}
    codes |= {"internal_error": 500, "stopping": 503}
    if operation.query is not None:
        codes["invalid_query"] = 400
    if operation.method not in {"GET", "HEAD"} and not wire.public_pages:
        codes["cross_origin"] = 403
    if operation.metered:
        codes["rate_limited"] = 429
    if not operation.streaming:
        codes["request_timeout"] = 408
    if operation.method == "POST":
        codes["invalid_idempotency_key"] = 400
        if wire.keeps_answers and not operation.secret_answer:
            codes |= {"idempotency_key_in_use": 409, "idempotency_key_reused": 422}
    return codes | _access_errors(operation) | _body_errors(operation)


def _access_errors(operation: Operation) -> dict[str, int]:
    if operation.access is Access.PUBLIC:
        return {}
    codes = {"authentication_required": 401, "invalid_credentials": 401, "rate_limited": 429}
    if operation.access is Access.CALLER:
        return codes
    codes["worker_token_required" if operation.access is Access.WORKER else "insufficient_scope"] = 403
    if operation.by_attempt is ByAttempt.LIVE:
        codes["stale_epoch"] = 409
    elif operation.by_attempt is ByAttempt.NO and operation.access is not Scope.READ:
        codes["not_for_attempts"] = 403
    return codes


def _body_errors(operation: Operation) -> dict[str, int]:
    if operation.body is None:
        return {}
    codes = {"invalid_content_length": 400, "too_large": 413, "unsupported_media_type": 415}
    return codes if operation.body is bytes else codes | {"malformed_json": 400, "invalid_body": 422}

"""What a server's refusal means: problem+json (RFC 9457), or the fleet's ``{"ok":false,"error":…}``, back into the
kinds of ``core.errors``.
"""

import json
from collections.abc import Mapping
from typing import Any

from borough.core.errors import BoroughError, Conflict, Forbidden, Invalid, NotFound, Unavailable

_KINDS: dict[int, type[BoroughError]] = {
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    405: Invalid,
    408: Unavailable,
    409: Conflict,
    412: Conflict,
    413: Invalid,
    415: Invalid,
    422: Invalid,
    429: Unavailable,
}
_NEXT: dict[int, str] = {
    401: "set TOWNHALL_API_KEY or TINYTOWN_TOKEN_FILE to a credential that this server knows",
    403: "use a credential with the scope that is named above",
    404: "check the name or id",
    429: "wait a little and try again",
    503: "wait a little and try again; the server's log says what is missing",
}


def error_from(status: int, headers: Mapping[str, str], body: bytes) -> BoroughError:
    """Return the error that an answer stands for, with everything that the server said."""
    told = _document(body)
    kind = _KINDS.get(status, Unavailable if status >= 500 else Invalid)  # noqa: PLR2004 - the 5xx class
    details: dict[str, object] = {"status": status}
    request_id = told.get("request_id") or headers.get("x-request-id")
    if request_id:
        details["request_id"] = str(request_id)
    if isinstance(told.get("errors"), list):
        details["errors"] = told["errors"]
    if headers.get("retry-after"):
        details["retry_after"] = headers["retry-after"]
    return kind(
        _text(told, "detail") or _text(told, "title") or _text(told, "error") or f"the server answered {status}",
        code=_text(told, "code") or f"http_{status}",
        reason=_reason(told),
        resolution=_text(told, "resolution") or _NEXT.get(status),
        details=details,
    )


def _document(body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _text(told: Mapping[str, Any], member: str) -> str | None:
    value = told.get(member)
    return value if isinstance(value, str) and value else None


def _reason(told: Mapping[str, Any]) -> str | None:
    reason = _text(told, "reason")
    errors = told.get("errors")
    if not isinstance(errors, list):
        return reason
    fields = "; ".join(
        f"{error.get('pointer') or 'request'}: {error.get('detail')}" if isinstance(error, dict) else str(error)
        for error in errors
    )
    return f"{reason}; {fields}" if reason and fields else fields or reason

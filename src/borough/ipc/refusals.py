"""What is refused, in the words that the socket's clients know."""

from collections.abc import Mapping
from typing import Any

from borough.core.errors import BoroughError, Conflict, Forbidden, Invalid, NotFound, Unavailable

PERMISSION_DENIED = "permission denied"
INVALID_REQUEST = "invalid request"

KINDS: Mapping[type[BoroughError], str] = {
    Invalid: "invalid",
    Forbidden: "forbidden",
    NotFound: "not_found",
    Conflict: "conflict",
    Unavailable: "unavailable",
}
_DENIALS = frozenset({"denied", "scope_missing", "not_related"})
_MISFITS = frozenset({"invalid_request", "invalid_body", "invalid_query", "malformed_json", "invalid_cursor"})


def told(error: BoroughError, request_id: str) -> object:
    """Return ``error`` as a message: the documented text, and what programs and people need beside it."""
    text = text_of(error)
    body: dict[str, Any] = {"message": text, "code": code_of(error), "kind": kind_of(error), "request_id": request_id}
    reason = error.reason or (error.message if error.message != text else None)
    if reason:
        body["reason"] = reason
    if error.resolution:
        body["resolution"] = error.resolution
    return {"Error": body}


def told_as_result(error: BoroughError, request_id: str) -> object:
    """Return the refusal of a tool call: its end where a tool was judged or ran, an error where none was meant."""
    status = _status(error)
    if status is None:
        return told(error, request_id)
    output: dict[str, Any] = {"error": error.message, "reason": error.reason, "resolution": error.resolution}
    shown = {name: value for name, value in output.items() if value}
    return {"ToolResult": {"status": status, "output": shown, "code": code_of(error), "request_id": request_id}}


def text_of(error: BoroughError) -> str:
    """Return the text of an error."""
    if error.code in _DENIALS:
        return PERMISSION_DENIED
    return INVALID_REQUEST if error.code in _MISFITS else error.message


def kind_of(error: BoroughError) -> str:
    """Return the kind of an error, which decides how a program may go on."""
    return next((word for kind, word in KINDS.items() if isinstance(error, kind)), "unavailable")


def code_of(error: BoroughError) -> str:
    """Return the word for programs."""
    return "invalid_request" if error.code in _MISFITS else error.code


def _status(error: BoroughError) -> str | None:
    if error.code == "tool_not_found":
        return "not_found"
    if error.code == "tool_error":
        return "error"
    if isinstance(error, Forbidden):
        return "denied"
    if isinstance(error, NotFound) or error.code in _MISFITS:
        return None
    return "error"

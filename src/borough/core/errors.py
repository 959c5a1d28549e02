"""The five kinds of "no" that services raise.

The class says the kind, ``code`` says which one (stable, for programs), ``message`` what happened, ``reason`` why
and ``resolution`` what to do next. No error knows a status code: ``borough.http.errors`` maps kinds once.
"""

from collections.abc import Mapping


class BoroughError(Exception):
    """Base of everything that Borough refuses or cannot do."""

    default_code = "error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        reason: str | None = None,
        resolution: str | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.reason = reason
        self.resolution = resolution
        self.details: Mapping[str, object] = details or {}


class Invalid(BoroughError):
    """The request itself is wrong; repeating it cannot help."""

    default_code = "invalid"


class Forbidden(BoroughError):
    """The caller is not known or not allowed."""

    default_code = "forbidden"


class NotFound(BoroughError):
    """The thing named does not exist."""

    default_code = "not_found"


class Conflict(BoroughError):
    """The thing exists, but not in a state that allows this."""

    default_code = "conflict"


class Unavailable(BoroughError):
    """Something that is needed does not answer or is full; repeating later may help."""

    default_code = "unavailable"

"""How it is told that a page cannot be had."""

from borough.core.errors import Unavailable

_TOLD = {"timeout": "timeout", "not_resolved": "the name is not known"}


def unavailable(code: str, reason: str) -> Unavailable:
    """Return the error for ``code``."""
    return Unavailable(
        _TOLD.get(code, "connection refused" if code == "connection_refused" else "the page cannot be had"),
        code=code,
        reason=reason,
        resolution="check the address; try again later",
    )

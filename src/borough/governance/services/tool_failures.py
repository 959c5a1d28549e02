"""How a tool that ran and failed says so."""

from borough.core.errors import BoroughError
from borough.governance.ports.tools import ToolReply


def failed(text: str, code: str) -> ToolReply:
    """Return the reply of a tool that failed: a text for people and agents, and a word for programs."""
    return ToolReply(status="error", output={"error": text, "code": code})


def failed_with(error: BoroughError, text: str | None = None) -> ToolReply:
    """Return the reply for what a port raised."""
    return failed(text or error.message, error.code)

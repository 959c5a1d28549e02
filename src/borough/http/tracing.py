"""Request ids and W3C trace context: whose request this is, across programs and log lines."""

import random
import re
from dataclasses import dataclass

_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\Z")
_TRACE_PARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<rest>-.*)?\Z"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceParent:
    """Our own place in a trace."""

    trace_id: str
    span_id: str
    flags: str

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


def _letters(count_bytes: int) -> str:
    # Names, not secrets. The system's random numbers would cost a call, and the interpreter's lock, for each.
    return random.randbytes(count_bytes).hex()  # noqa: S311 - see above


def request_id_from(given: str | None) -> str:
    """Return the caller's id if it is a sane one (1 to 128 letters, digits and ``._:-``), else a new one."""
    return given if given is not None and _REQUEST_ID.match(given) else _letters(16)


def continue_trace(given: str | None) -> TraceParent:
    """Return a new span in the caller's trace, or in a new one where ``given`` is missing or broken.

    As https://www.w3.org/TR/trace-context/ has it: version ``ff`` and ids of zeros only are invalid, a later version
    may have more fields, version 00 may not.
    """
    fresh = _letters(24)
    span_id = fresh[:16]
    found = _TRACE_PARENT.match(given.strip()) if given else None
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["rest"]):
        return TraceParent(trace_id=fresh[16:], span_id=span_id, flags="00")
    if not found["trace"].strip("0") or not found["span"].strip("0"):
        return TraceParent(trace_id=fresh[16:], span_id=span_id, flags="00")
    return TraceParent(trace_id=found["trace"], span_id=span_id, flags=found["flags"])

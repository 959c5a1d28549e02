"""Who asks, and through which door. Every use case is told, so that all doors decide and record alike."""

from dataclasses import dataclass

from borough.core.ids import derived_id
from borough.governance.ledger import Via
from borough.governance.tokens import OPERATOR, Caller


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """A caller within one request."""

    caller: Caller
    via: Via
    request_id: str
    operation_key: str
    """The same when the request is repeated under one ``Idempotency-Key``: ids derive from it."""
    trace_id: str | None = None

    def derived(self, *parts: str) -> str:
        """Return the id of something that this request makes; repeated, it makes the same thing."""
        return derived_id(self.operation_key, *parts)


def daemon(reason: str) -> Asker:
    """Return who acts when the daemon acts by itself; ``reason`` has to be unique to the act."""
    return Asker(caller=OPERATOR, via=Via.DAEMON, request_id=reason, operation_key=reason)

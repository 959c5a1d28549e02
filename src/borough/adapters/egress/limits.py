"""How much of the proxy one box may use."""

import asyncio
from dataclasses import dataclass


class LimitReached(Exception):
    """The box has used up what it may transfer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressLimits:
    """The limits of one box."""

    connections: int = 64
    """At the same time; more are answered 503."""
    head_bytes: int = 16_384
    """Of a request's or answer's line and headers."""
    head_timeout_s: float = 10.0
    connect_timeout_s: float = 10.0
    idle_timeout_s: float = 120.0
    """After so long without a byte in either direction a connection is closed."""
    total_bytes: int | None = None
    """Of all connections together, in both directions; ``None`` is no limit."""


class Meter:
    """Counts what a box transfers."""

    def __init__(self, limits: EgressLimits) -> None:
        self._most = limits.total_bytes
        self.bytes_used = 0

    def count(self, size: int) -> None:
        """Count ``size`` bytes; raises ``LimitReached``."""
        self.bytes_used += size
        if self._most is not None and self.bytes_used > self._most:
            raise LimitReached


class Idle:
    """Lets a timeout run anew whenever something moves."""

    def __init__(self, timeout: asyncio.Timeout, idle_s: float) -> None:
        self._timeout, self._idle_s = timeout, idle_s

    def moved(self) -> None:
        """Start the wait again."""
        self._timeout.reschedule(asyncio.get_running_loop().time() + self._idle_s)

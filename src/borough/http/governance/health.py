"""The one open question: is the daemon alive, and which one is it?"""

import time
from dataclasses import dataclass, field
from importlib.metadata import version

from msgspec import UNSET, Struct, UnsetType

from borough.http.beside import Beside
from borough.http.operations import Access, Answer, Call, Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonFacts:
    """What the daemon knows of itself."""

    version: str = field(default_factory=lambda: version("borough"))
    started_monotonic: float = field(default_factory=time.monotonic)


class DaemonHealth(Struct, kw_only=True):
    """The daemon is alive."""

    status: str
    version: str
    uptime_secs: int
    ledger: str | UnsetType = UNSET
    """Who writes the ledger that the daemon shares with other programs."""


async def health(call: Call) -> DaemonHealth:
    facts: DaemonFacts = call.state.facts
    beside: Beside | None = call.state.ledger
    return DaemonHealth(
        status="ok",
        version=facts.version,
        uptime_secs=int(time.monotonic() - facts.started_monotonic),
        ledger=UNSET if beside is None else await beside.told(),
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/health",
        handler=health,
        access=Access.PUBLIC,
        summary="Is the daemon alive?",
        tag="public",
        answers=(Answer(status=200, body=DaemonHealth, description="it is"),),
        metered=False,
    ),
)

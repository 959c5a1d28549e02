"""How the daemon stands, for those who may look."""

import time

from msgspec import Struct

from borough.http.governance.common import REFUSALS, asker
from borough.http.governance.health import DaemonFacts
from borough.http.operations import Access, Answer, Call, Operation


class DaemonStatus(Struct, kw_only=True):
    """The daemon, and how many agents of those that the caller may see run."""

    status: str
    version: str
    uptime_secs: int
    agents: int


async def status(call: Call) -> DaemonStatus:
    facts: DaemonFacts = call.state.facts
    running = await call.state.agents.listing(asker(call))
    uptime_s = int(time.monotonic() - facts.started_monotonic)
    return DaemonStatus(status="ok", version=facts.version, uptime_secs=uptime_s, agents=len(running))


OPERATIONS = (
    Operation(
        method="GET",
        path="/status",
        handler=status,
        access=Access.CALLER,
        summary="The daemon, and how many agents run",
        tag="daemon",
        answers=(Answer(status=200, body=DaemonStatus, description="how it stands"),),
        errors=REFUSALS,
    ),
)

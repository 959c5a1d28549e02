"""What a program does not serve that another one does: why it is not here, and where it is to be had.

Each part runs alone, too. Whoever asks one of them for what takes several is told so.
"""

from dataclasses import dataclass
from typing import Any, Final

from borough.http.routes import Routes

_ALL: Final = "it takes the town, the fleet and governance in one process, and this program is one of them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """Why something is not here, and the way out."""

    reason: str
    resolution: str


_RUNS: Final = Elsewhere(
    reason="runs take the town, the fleet and governance together, and this program is one of them",
    resolution=(
        "start 'borough up', which serves them; among programs of their own agentd does, where it has BOROUGH_TOWN and "
        "BOROUGH_FLEET: name it by TINYTOWN_SERVER and its operator.token by TINYTOWN_TOKEN_FILE"
    ),
)
SERVED: Final = {
    "/": Elsewhere(
        reason=f"the dashboard is not here: {_ALL}", resolution="start 'borough up'; 'tt status' tells of one part"
    ),
    "/v1/runs": _RUNS,
    "/v1/kill": _RUNS,
    "/v1/attention": Elsewhere(
        reason=f"the queue of what needs a person is not here: {_ALL}",
        resolution="start 'borough up', or ask each: 'ash pending', 'tt dead list', 'tt host list', 'tt vm list'",
    ),
    "/v1/explain": Elsewhere(
        reason=f"explaining whatever a word names is not done here: {_ALL}",
        resolution="start 'borough up', or ask each: 'tt explain AGENT', 'tt task show ID', 'ash info ID'",
    ),
    "/v1/search": Elsewhere(
        reason=f"one search over everything is not here: {_ALL}",
        resolution="start 'borough up', or list each: 'tt task list', 'tt env list', 'ash list'",
    ),
    "/v1/evidence": Elsewhere(
        reason=f"evidence as one file is not made here: {_ALL}",
        resolution="start 'borough up', or read the ledger ('ash audit') and check it ('borough verify')",
    ),
    "/v1/pools": Elsewhere(
        reason=f"pools are not kept here: {_ALL}",
        resolution="start 'borough up', or let an autoscaler follow GET /api/scaling of townhall",
    ),
    "/v1/sign-in-codes": Elsewhere(
        reason=f"there is no dashboard here to sign in to: {_ALL}",
        resolution="start 'borough up'; the pages of tt-ctl and of each API (/docs) need no sign-in code",
    ),
}  # fmt: skip


def elsewhere(path: str, routes: Routes[Any]) -> Elsewhere | None:
    """Return why a program with these ``routes`` has none for a path, ``None`` where no program has one."""
    thing = "/" if path == "/" else "/".join(path.split("/", 3)[:3])
    return None if routes.has_below(thing) else SERVED.get(thing)

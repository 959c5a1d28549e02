"""What the handlers of routes over all contexts may call."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from borough.auth.principals import LOCAL, Principal
from borough.auth.scopes import Scope, covers
from borough.core.errors import Forbidden
from borough.overview.occurrences import Context
from borough.overview.services.attention import AttentionService
from borough.overview.services.evidence import EvidenceService
from borough.overview.services.explaining import ExplainService
from borough.overview.services.figures import FigureService
from borough.overview.services.streams import EventStreamService


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewServices:
    """The ``state`` of every ``Call``."""

    streams: EventStreamService
    attention: AttentionService
    explain: ExplainService
    evidence: EvidenceService
    figures: FigureService
    agent_id: Callable[[str], Awaitable[str]]
    """From an agent's id, short id or name to its id; raises ``NotFound`` (``agent_not_found``)."""


def visible(principal: Principal) -> frozenset[Context]:
    """Return whose things a caller may see.

    A town without keys is open to whoever reaches it, and so are its runs; law and machines are not.
    """
    if principal.id != LOCAL.id and covers(principal.scopes, Scope.ADMIN):
        return frozenset(Context)
    return frozenset({Context.TOWN, Context.RUNS})


def narrowed(principal: Principal, context: str | None) -> frozenset[Context]:
    """Return whose things a caller sees who asks for one context's, or for all.

    Raises:
        Forbidden: that context's are not shown to this caller (``insufficient_scope``).
    """
    seen = visible(principal)
    if context is None:
        return seen
    if context not in seen:
        raise Forbidden(
            f"what happens in the context {context} is not shown to {principal.id}",
            code="insufficient_scope",
            resolution=f"use the operator's credential, or one with the scope {Scope.ADMIN}",
        )
    return frozenset({Context(context)})

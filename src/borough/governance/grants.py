"""Grants: capabilities for a time, beyond the manifest's, never above the ceiling nor beyond the grantor's own."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from borough.core.errors import Invalid
from borough.core.ids import AgentId
from borough.governance.capabilities import Capability, check_attenuation
from borough.governance.ceilings import check_ceiling, within_ceiling
from borough.governance.conditions import Condition, Until
from borough.governance.rules import Effect, Rule
from borough.governance.trust import TrustLevel


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A capability that somebody gave to an agent."""

    id: str
    agent_id: AgentId
    capability: Capability
    granted_by: str
    granted_at: datetime
    expires_at: datetime | None = None
    """``None``: until it is revoked or the agent ends."""
    revoked_at: datetime | None = None
    revoked_by: str | None = None


def check_grant(grant: Grant, *, trust: TrustLevel, grantor_holds: Iterable[Capability] | None) -> Grant:
    """Return ``grant`` if it may be given; ``grantor_holds`` is ``None`` for an operator, who may give anything.

    Raises:
        Invalid: it would be over at once (``invalid_expiry``).
        Forbidden: it is above the agent's ceiling (``over_ceiling``) or beyond what its grantor holds
            (``capability_escalation_denied``).
    """
    if grant.expires_at is not None and grant.expires_at <= grant.granted_at:
        raise Invalid("the grant would be over at once", code="invalid_expiry", resolution="choose a later moment")
    check_ceiling(grant.capability, trust)
    if grantor_holds is not None:
        check_attenuation([grant.capability], grantor_holds)
    return grant


def is_active(grant: Grant, *, at: datetime) -> bool:
    """Tell whether ``grant`` holds."""
    return grant.revoked_at is None and (grant.expires_at is None or at < grant.expires_at)


def revoke(grant: Grant, *, by: str, at: datetime) -> Grant:
    """Return ``grant`` taken back; taking it back again changes nothing."""
    return grant if grant.revoked_at is not None else replace(grant, revoked_at=at, revoked_by=by)


def rules_with(base: Iterable[Rule], grants: Iterable[Grant], *, trust: TrustLevel) -> tuple[Rule, ...]:
    """Return the rules of an agent with its grants; what lies above the ceiling is left out, wherever it came from."""
    given = (
        Rule(
            id=f"grant:{grant.id}",
            effect=Effect.ALLOW,
            capability=grant.capability,
            when=_conditions(grant),
        )
        for grant in grants
        if grant.revoked_at is None
    )
    return tuple(
        rule for rule in (*base, *given) if rule.effect is Effect.DENY or within_ceiling(rule.capability, trust)
    )


def _conditions(grant: Grant) -> tuple[Condition, ...]:
    return () if grant.expires_at is None else (Until(moment=grant.expires_at),)

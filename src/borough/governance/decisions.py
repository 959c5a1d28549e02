"""Decisions: allowed, allowed once a human agrees, or denied; each with the rule that decided."""

from dataclasses import dataclass

DEFAULT_RULE = "default-deny"
"""What decides when no rule speaks of an act."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """Go on."""

    rules: tuple[str, ...]
    """The ids of the rules that allowed it, one for each thing that had to be allowed."""

    verdict = "allowed"


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedsApproval:
    """Go on when a human has agreed to this very call."""

    rule: str
    reason: str
    approvers: int = 1
    """How many different people have to agree."""

    verdict = "approval"


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """Do not."""

    rule: str
    code: str
    """Stable, for programs: ``denied``, ``over_ceiling``, ``tainted``, ``rate_exceeded``, ``budget_exceeded`` …"""
    reason: str
    resolution: str
    retry_after_s: int | None = None
    """When it may be worth asking again, if waiting can help."""

    verdict = "denied"


Decision = Allowed | NeedsApproval | Denied

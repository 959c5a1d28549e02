"""Governed agents: who runs (or ran) under which manifest, and how a child's powers follow from its parent's."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from borough.core.errors import Forbidden
from borough.core.ids import AgentId
from borough.governance.budgets import NOTHING_SPENT, Limits, Spent, narrower
from borough.governance.capabilities import Capability, check_attenuation
from borough.governance.hosts import NetworkPolicy
from borough.governance.lifecycle import Phase, Status
from borough.governance.manifests import Manifest, Network
from borough.governance.rules import Effect, Rule
from borough.governance.trust import TrustLevel

_INHERITED = "parent:"


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernedAgent:
    """An agent as the register keeps it. ``id`` stays over automatic restarts; each start has a ``run_id``."""

    id: AgentId
    run_id: str
    name: str
    version: str
    manifest_digest: str
    trust_level: TrustLevel
    phase: Phase
    status: Status
    spawned_at: datetime
    """When the agent was first started."""
    run_started_at: datetime
    parent_id: AgentId | None = None
    depth: int = 1
    restarts: int = 0
    task: str | None = None
    model: str | None = None
    tainted: bool = False
    budget: Limits = field(default_factory=Limits)
    spent: Spent = NOTHING_SPENT
    ended_at: datetime | None = None
    exit_code: int | None = None
    last_error: str | None = None
    result: str | None = None
    """What the agent handed back, as JSON text."""

    @property
    def memory_namespace(self) -> str:
        """Return whose memory it has: that of its name, so that it outlives the id."""
        return self.name


def check_child(manifest: Manifest, parent: Manifest) -> None:
    """Let a child pass whose powers are all its parent's own.

    Raises:
        Forbidden: it is trusted more (``over_ceiling``), holds more (``capability_escalation_denied``) or reaches
            further (``network_escalation_denied``).
    """
    if not parent.trust_level.at_least(manifest.trust_level):
        wanted = manifest.trust_level.value
        raise Forbidden(
            f"an agent of trust level {parent.trust_level.value} cannot start one of level {wanted}",
            code="over_ceiling",
            resolution="lower spec.trust_level of the child",
        )
    check_attenuation(_granted(manifest), parent.held())
    if not network_within(manifest.network, parent.network):
        raise Forbidden(
            "network escalation denied",
            code="network_escalation_denied",
            reason=f"the child's network policy {manifest.network.policy.value} reaches further than its parent's",
            resolution="list for the child a part of what the parent may reach",
        )


def inherited_rules(parent: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return the rules that bind an agent's children too: whatever stops the parent, or asks about it, holds below.

    Without them a child that holds the parent's capabilities would be a way around the parent's prohibitions.
    """
    return tuple(
        rule if rule.id.startswith(_INHERITED) else replace(rule, id=_INHERITED + rule.id)
        for rule in parent
        if rule.effect is not Effect.ALLOW
    )


def network_within(child: Network, parent: Network) -> bool:
    """Tell whether everything that ``child`` reaches is reached by ``parent``; errs towards no."""
    if child.policy is NetworkPolicy.NONE or parent.policy is NetworkPolicy.FULL:
        return True
    if child.policy is not parent.policy:
        return False
    return child.policy is not NetworkPolicy.ALLOWLIST or all(
        any(
            wide.port in (None, narrow.port)
            and (
                (wide.name is not None and narrow.name is not None and wide.name.covers(narrow.name))
                or (wide.network is not None and wide.network == narrow.network)
            )
            for wide in parent.allowlist
        )
        for narrow in child.allowlist
    )


def child_budget(manifest: Manifest, parent: GovernedAgent) -> Limits:
    """Return what the child may use: no more than is left to its parent."""
    return narrower(manifest.budget, parent.budget, parent.spent)


def _granted(manifest: Manifest) -> Iterable[Capability]:
    return (rule.capability for rule in manifest.rules() if rule.effect is not Effect.DENY)

"""Rules and how they decide: forbidding wins over asking, asking over allowing, and what no rule allows is denied."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from borough.governance.capabilities import ACTIONS, Act, Capability
from borough.governance.conditions import Condition, Facts, Finding, Truth
from borough.governance.decisions import DEFAULT_RULE, Allowed, Decision, Denied, NeedsApproval


class Effect(StrEnum):
    """What a rule does when it applies."""

    ALLOW = "allow"
    ASK = "ask"
    """Allow, once a human has agreed to the very call."""
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule; ``id`` is what decisions and the ledger know it by."""

    id: str
    effect: Effect
    capability: Capability
    when: tuple[Condition, ...] = ()
    reason: str | None = None
    """Said to whom the rule stops."""
    approvers: int = 1
    """For a rule that asks: how many different people have to agree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """Something that has to be allowed: any one of some acts will do, and a prohibition of any one of them stops it."""

    any_of: tuple[Act, ...]
    forbidden_by: tuple[Act, ...] = ()
    """Further acts a prohibition of which stops it, though permission for them does not help."""


class RuleBook:
    """Rules made ready for deciding. Building it costs once; a decision looks only at rules for the act's action."""

    __slots__ = ("_by_action", "rules")

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._by_action: dict[tuple[str, str], tuple[_Index, _Index]] = {}
        for domain, actions in ACTIONS.items():
            for action in actions:
                fitting = [rule for rule in self.rules if _speaks_of(rule.capability, domain, action)]
                self._by_action[domain, action] = (
                    _Index([rule for rule in fitting if rule.effect is Effect.DENY]),
                    # Asking before allowing: the first that applies decides.
                    _Index(sorted((rule for rule in fitting if rule.effect is not Effect.DENY), key=_asks_last)),
                )

    def decide(self, requirements: Sequence[Requirement], facts: Facts) -> Decision:
        """Decide whether everything in ``requirements`` may be done."""
        for requirement in requirements:
            if denied := self.forbids((*requirement.any_of, *requirement.forbidden_by), facts):
                return denied
        allowed: list[str] = []
        ask: NeedsApproval | None = None
        for requirement in requirements:
            rule = self._permitting(requirement, facts)
            if isinstance(rule, Denied):
                return rule
            if rule.effect is Effect.ASK and (ask is None or ask.approvers < rule.approvers):
                reason = rule.reason or f"rule {rule.id} wants a human to agree"
                ask = NeedsApproval(rule=rule.id, reason=reason, approvers=rule.approvers)
            allowed.append(rule.id)
        return ask or Allowed(rules=tuple(allowed))

    def forbids(self, acts: Iterable[Act], facts: Facts) -> Denied | None:
        """Return the prohibition that stops one of ``acts``, if there is one."""
        for act in acts:
            for rule in self._by_action.get((act.domain, act.action), _NO_RULES)[0].near(act):
                if rule.capability.touches(act) and _could_hold(rule, facts):
                    return Denied(
                        rule=rule.id,
                        code="denied",
                        reason=rule.reason or f"rule {rule.id} forbids {act}",
                        resolution="nothing overrides a prohibition: change the rule in the manifest",
                    )
        return None

    def could_permit(self, requirement: Requirement) -> bool:
        """Tell whether there are circumstances (arguments, a time) in which ``requirement`` may be done."""
        for act in (*requirement.any_of, *requirement.forbidden_by):
            denying = self._by_action.get((act.domain, act.action), _NO_RULES)[0].near(act)
            if any(not rule.when and rule.capability.touches(act) for rule in denying):
                return False
        return any(
            rule.capability.allows(act)
            for act in requirement.any_of
            for rule in self._by_action.get((act.domain, act.action), _NO_RULES)[1].near(act)
        )

    def _permitting(self, requirement: Requirement, facts: Facts) -> Rule | Denied:
        near: tuple[Rule, Finding] | None = None
        fallback: Rule | None = None
        for act in requirement.any_of:
            for rule in self._by_action.get((act.domain, act.action), _NO_RULES)[1].near(act):
                if not rule.capability.allows(act):
                    continue
                obstacle = _obstacle(rule, facts)
                if obstacle is None and rule.effect is Effect.ASK:
                    return rule
                if obstacle is None:
                    fallback = fallback or rule
                    break
                near = near or (rule, obstacle)
        if fallback is not None:
            return fallback
        return _not_met(*near) if near else _not_held(requirement.any_of[0])


class _Index:
    """Rules found by the letters that their scopes begin with, so that many rules cost little more than few."""

    __slots__ = ("_by_length", "_near", "_rules")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        by_length: dict[int, dict[str, list[tuple[int, Rule]]]] = {}
        for place, rule in enumerate(self._rules):
            anchor = rule.capability.scope.anchor if rule.capability.scope else ""
            by_length.setdefault(len(anchor), {}).setdefault(anchor, []).append((place, rule))
        self._by_length = tuple(by_length.items())
        self._near: dict[str, Sequence[Rule]] = {}
        """What was found for the newest subjects: an agent asks for the same few again and again."""

    def near(self, act: Act) -> Sequence[Rule]:
        """Return the rules that may speak of ``act``, in their order."""
        subject = act.subject
        if subject is None:
            return self._rules
        known = self._near.get(subject)
        if known is not None:
            return known
        if len(self._near) >= _MOST_NEAR:
            self._near.clear()
        self._near[subject] = known = self._find(subject)
        return known

    def _find(self, subject: str) -> Sequence[Rule]:
        found: list[tuple[int, Rule]] = []
        for length, anchored in self._by_length:
            if length <= len(subject) and (rules := anchored.get(subject[:length])):
                found += rules
        if len(found) > 1:
            found.sort(key=_place)
        return [rule for _, rule in found]


_MOST_NEAR = 256


def _place(found: tuple[int, Rule]) -> int:
    return found[0]


_NO_RULES = (_Index(()), _Index(()))


def _speaks_of(capability: Capability, domain: str, action: str) -> bool:
    return capability.domain in ("*", domain) and capability.action in ("*", action)


def _asks_last(rule: Rule) -> bool:
    return rule.effect is not Effect.ASK


def _could_hold(rule: Rule, facts: Facts) -> bool:
    """Tell whether nothing keeps a prohibition from applying; what cannot be told does not."""
    for condition in rule.when:  # noqa: SIM110 - a generator would take twice as long
        if condition.find(facts).truth is Truth.FAILS:
            return False
    return True


def _obstacle(rule: Rule, facts: Facts) -> Finding | None:
    for condition in rule.when:
        finding = condition.find(facts)
        # What cannot be told keeps a permission from helping, but not a human from being asked.
        if finding.truth is Truth.FAILS or (finding.truth is Truth.UNKNOWN and rule.effect is Effect.ALLOW):
            return finding
    return None


def _not_met(rule: Rule, finding: Finding) -> Denied:
    return Denied(
        rule=rule.id,
        code=finding.code,
        reason=f"rule {rule.id} would allow it, but {finding.reason}",
        resolution="repeat it when the condition holds, or change the rule",
        retry_after_s=finding.retry_after_s,
    )


def _not_held(act: Act) -> Denied:
    return Denied(
        rule=DEFAULT_RULE,
        code="denied",
        reason=f"access denied: {act}",
        resolution=f"declare {act} (or what covers it) under spec.capabilities, or have it granted",
    )

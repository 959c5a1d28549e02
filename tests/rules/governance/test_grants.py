"""Grants and children: never above the ceiling, never beyond the giver, and no way around a prohibition."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from borough.core.errors import Forbidden, Invalid
from borough.core.ids import AgentId
from borough.governance.actions import ALIASES, Action, meant_by
from borough.governance.agents import GovernedAgent, check_child, child_budget, inherited_rules, network_within
from borough.governance.budgets import Limits, Spent
from borough.governance.capabilities import Act, parse_capability
from borough.governance.conditions import Facts
from borough.governance.decisions import Allowed, Denied
from borough.governance.grants import Grant, check_grant, is_active, revoke, rules_with
from borough.governance.hosts import NetworkPolicy, parse_allowed
from borough.governance.lifecycle import Phase, Status
from borough.governance.manifests import Manifest, Network
from borough.governance.rules import Effect, Requirement, Rule, RuleBook
from borough.governance.trust import TrustLevel

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
GRANT = Grant(
    id="g",
    agent_id=AgentId("a"),
    capability=parse_capability("fs.read:/workspace/**"),
    granted_by="ada",
    granted_at=NOON,
    expires_at=NOON + timedelta(minutes=5),
)
READ = [Requirement(any_of=(Act(domain="fs", action="read", subject="/workspace/.env"),))]
DENY = Rule(id="no-env", effect=Effect.DENY, capability=parse_capability("fs.read:/workspace/.env"))


def manifest(
    *capabilities: str, trust: str = "trusted", network: Network | None = None, policy: tuple[Rule, ...] = ()
) -> Manifest:
    return Manifest(
        name="a",
        version="1.0.0",
        trust_level=TrustLevel(trust),
        capabilities=tuple(map(parse_capability, capabilities)),
        network=network or Network(),
        policy=policy,
    )


def test_a_grant_holds_until_it_expires_or_is_taken_back() -> None:
    assert is_active(GRANT, at=NOON)
    assert not is_active(GRANT, at=NOON + timedelta(minutes=5))
    gone = revoke(GRANT, by="ada", at=NOON)
    assert not is_active(gone, at=NOON)
    assert revoke(gone, by="bob", at=NOON) == gone


def test_a_grant_is_a_rule_for_its_time_and_prohibitions_still_win() -> None:
    book = RuleBook(rules_with((), [GRANT], trust=TrustLevel.SANDBOXED))
    assert book.decide(READ, Facts(at=NOON)) == Allowed(rules=("grant:g",))
    late = book.decide(READ, Facts(at=NOON + timedelta(minutes=5)))
    assert isinstance(late, Denied)
    assert late.code == "expired"
    assert isinstance(
        RuleBook(rules_with([DENY], [GRANT], trust=TrustLevel.SANDBOXED)).decide(READ, Facts(at=NOON)), Denied
    )
    assert rules_with((), [revoke(GRANT, by="ada", at=NOON)], trust=TrustLevel.SANDBOXED) == ()


def test_no_grant_lifts_an_agent_above_its_ceiling_or_its_giver() -> None:
    wide = replace(GRANT, capability=parse_capability("fs.write"))
    with pytest.raises(Forbidden) as refused:
        check_grant(wide, trust=TrustLevel.SANDBOXED, grantor_holds=None)
    assert refused.value.code == "over_ceiling"
    with pytest.raises(Forbidden) as refused:
        check_grant(GRANT, trust=TrustLevel.SANDBOXED, grantor_holds=[parse_capability("fs.read:/workspace/a")])
    assert refused.value.code == "capability_escalation_denied"
    assert check_grant(GRANT, trust=TrustLevel.SANDBOXED, grantor_holds=[parse_capability("fs.*")]) == GRANT
    with pytest.raises(Invalid):
        check_grant(replace(GRANT, expires_at=NOON), trust=TrustLevel.SANDBOXED, grantor_holds=None)
    assert rules_with((), [wide], trust=TrustLevel.SANDBOXED) == ()


def test_a_childs_powers_are_its_parents() -> None:
    parent = manifest("fs.read:/workspace/**", "agent.spawn")
    check_child(manifest("fs.read:/workspace/a/*", trust="sandboxed"), parent)
    for child, code in (
        (manifest(trust="privileged"), "over_ceiling"),
        (manifest("fs.read"), "capability_escalation_denied"),
        (manifest(policy=(replace(DENY, effect=Effect.ASK, capability=parse_capability("fs.write:/a")),)),
         "capability_escalation_denied"),
        (manifest(network=Network(policy=NetworkPolicy.LOCAL)), "network_escalation_denied"),
    ):  # fmt: skip
        with pytest.raises(Forbidden) as refused:
            check_child(child, parent)
        assert refused.value.code == code


def test_a_child_is_no_way_around_its_parents_prohibitions() -> None:
    child = manifest("fs.read:/workspace/**")
    book = RuleBook([*inherited_rules([DENY]), *child.rules()])
    decision = book.decide(READ, Facts(at=NOON))
    assert isinstance(decision, Denied)
    assert decision.rule == "parent:no-env"
    assert inherited_rules(inherited_rules([DENY])) == inherited_rules([DENY])


def allowlist(*lines: str) -> Network:
    return Network(policy=NetworkPolicy.ALLOWLIST, allowlist=tuple(map(parse_allowed, lines)))


def test_a_network_lies_within_another() -> None:
    parent = allowlist("*.example.org:443", "10.0.0.0/8:*")
    assert network_within(allowlist("api.example.org:443", "10.0.0.0/8:80"), parent)
    assert not network_within(allowlist("api.example.org:80"), parent)
    assert not network_within(allowlist("*.org:443"), parent)
    assert not network_within(Network(policy=NetworkPolicy.FULL), parent)
    assert network_within(parent, Network(policy=NetworkPolicy.FULL))
    assert network_within(Network(), Network())


def test_a_child_may_use_what_is_left_to_its_parent() -> None:
    parent = GovernedAgent(
        id=AgentId("a"), run_id="r", name="a", version="1.0.0", manifest_digest="", trust_level=TrustLevel.TRUSTED,
        phase=Phase.ACT, status=Status.RUNNING, spawned_at=NOON, run_started_at=NOON,
        budget=Limits(tokens=100), spent=Spent(tokens=70),
    )  # fmt: skip
    assert child_budget(manifest(), parent) == Limits(tokens=30)
    assert parent.memory_namespace == "a"


def test_every_vocabulary_of_the_reference_is_understood() -> None:
    assert meant_by("tool_invoked") == ("ToolInvoke",)
    assert meant_by("StateTransition") == meant_by("state_transition") == ("LifecycleTransition",)
    assert meant_by("CapabilityGrant") == ("CapabilityGrant", "CapabilityRevoke")
    assert meant_by("ToolInvoke") == ("ToolInvoke",)
    assert all(action in Action for actions in ALIASES.values() for action in actions)

"""Rules: prohibitions win, asking beats allowing, conditions are told in the reason, the rest is denied."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.core.errors import Invalid
from borough.governance.budgets import Limits, Spent
from borough.governance.capabilities import Act, parse_capability
from borough.governance.conditions import (
    ArgumentAtMost,
    ArgumentMatches,
    Condition,
    Facts,
    RatePerMinute,
    TimeWindow,
    Truth,
    Until,
    WithinBudget,
    at_pointer,
)
from borough.governance.decisions import DEFAULT_RULE, Allowed, Denied, NeedsApproval
from borough.governance.globs import Glob, compile_glob
from borough.governance.manifest_reading import parse_manifest
from borough.governance.policy import judge, law_of
from borough.governance.rules import Effect, Requirement, Rule, RuleBook

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)  # a Monday
FACTS = Facts(at=NOON)


def rule(name: str, effect: Effect, capability: str, *when: Condition) -> Rule:
    return Rule(id=name, effect=effect, capability=parse_capability(capability), when=when)


def read(path: str) -> list[Requirement]:
    return [Requirement(any_of=(Act(domain="fs", action="read", subject=path),))]


def test_what_no_rule_allows_is_denied_by_default() -> None:
    decision = RuleBook([]).decide(read("/a"), FACTS)
    assert isinstance(decision, Denied)
    assert decision.rule == DEFAULT_RULE
    assert decision.reason == "access denied: fs.read:/a"


def test_a_prohibition_wins_over_every_permission_wherever_it_stands() -> None:
    allow, deny = rule("all", Effect.ALLOW, "*.*"), rule("no-env", Effect.DENY, "fs.read:/w/**/.env")
    for rules in ([allow, deny], [deny, allow]):
        decision = RuleBook(rules).decide(read("/w/x/.env"), FACTS)
        assert isinstance(decision, Denied)
        assert decision.rule == "no-env"
        assert RuleBook(rules).decide(read("/w/x/env"), FACTS) == Allowed(rules=("all",))


def test_a_prohibition_of_one_way_stops_the_other_ways_too() -> None:
    either = Requirement(
        any_of=(Act(domain="fs", action="list", subject="/w"), Act(domain="fs", action="read", subject="/w"))
    )
    book = RuleBook([rule("list", Effect.ALLOW, "fs.list:/w"), rule("no-read", Effect.DENY, "fs.read:/w")])
    assert isinstance(book.decide([either], FACTS), Denied)


def test_asking_beats_allowing() -> None:
    rules = [rule("all", Effect.ALLOW, "fs.read"), rule("ask", Effect.ASK, "fs.read:/w/secret")]
    decision = RuleBook(rules).decide(read("/w/secret"), FACTS)
    assert isinstance(decision, NeedsApproval)
    assert decision.rule == "ask"


def test_everything_required_has_to_be_allowed_and_each_rule_is_told() -> None:
    needed = [Requirement(any_of=(Act(domain="tool", action="invoke", subject="fs.read"),)), *read("/w/a")]
    book = RuleBook([rule("tool", Effect.ALLOW, "tool.invoke:fs.*"), rule("file", Effect.ALLOW, "fs.read:/w/**")])
    assert book.decide(needed, FACTS) == Allowed(rules=("tool", "file"))
    assert isinstance(RuleBook(book.rules[:1]).decide(needed, FACTS), Denied)


def test_an_unmet_condition_is_told_and_another_rule_may_still_allow() -> None:
    limited = rule("few", Effect.ALLOW, "fs.read", RatePerMinute(rule="few", limit=2))
    facts = Facts(at=NOON, calls_last_minute={"few": 2})
    decision = RuleBook([limited]).decide(read("/a"), facts)
    assert isinstance(decision, Denied)
    assert (decision.rule, decision.code, decision.retry_after_s) == ("few", "rate_exceeded", 60)
    assert RuleBook([limited, rule("a", Effect.ALLOW, "fs.read:/a")]).decide(read("/a"), facts) == Allowed(rules=("a",))


@pytest.mark.parametrize(
    ("arguments", "truth"),
    [
        ({"url": "https://a.example/x"}, Truth.HOLDS),
        ({"url": "https://b.example/x"}, Truth.FAILS),
        ({}, Truth.FAILS),
        ({"url": ["https://a.example/x"]}, Truth.UNKNOWN),
        ({"url": None}, Truth.UNKNOWN),
    ],
)
def test_an_argument_matches_a_glob(arguments: dict[str, object], truth: Truth) -> None:
    condition = ArgumentMatches(pointer="/url", one_of=(Glob("https://a.example/**"),))
    assert condition.find(Facts(at=NOON, arguments=arguments)).truth is truth


def test_what_cannot_be_told_keeps_permissions_from_helping_and_lets_prohibitions_stop() -> None:
    odd = Facts(at=NOON, arguments={"url": {}})
    condition = ArgumentMatches(pointer="/url", one_of=(Glob("x"),))
    allow = rule("allow", Effect.ALLOW, "fs.read", condition)
    deny = rule("deny", Effect.DENY, "fs.read", condition)
    free = rule("free", Effect.ALLOW, "fs.read")
    assert isinstance(RuleBook([allow]).decide(read("/a"), odd), Denied)
    assert isinstance(RuleBook([free, deny]).decide(read("/a"), odd), Denied)
    assert RuleBook([free, deny]).decide(read("/a"), FACTS) == Allowed(rules=("free",))


@pytest.mark.parametrize(
    ("value", "truth"), [(5, Truth.HOLDS), (6, Truth.FAILS), (True, Truth.UNKNOWN), ("5", Truth.UNKNOWN)]
)
def test_an_argument_has_a_greatest_value(value: object, truth: Truth) -> None:
    facts = Facts(at=NOON, arguments={"a": {"b": value}})
    assert ArgumentAtMost(pointer="/a/b", limit=5).find(facts).truth is truth


def test_a_pointer_escapes_as_rfc_6901_says() -> None:
    document = {"a/b": [{"m~n": 1}]}
    assert at_pointer(document, "/a~1b/0/m~0n") == (True, 1)
    assert at_pointer(document, "") == (True, document)
    assert at_pointer(document, "/a~1b/1") == (False, None)


@given(st.integers(0, 1440), st.integers(0, 1440), st.integers(0, 7 * 1440 - 1), st.integers(-720, 720))
def test_a_time_window_holds_for_exactly_its_minutes(start: int, end: int, minute: int, offset: int) -> None:
    window = TimeWindow(start_minute=start, end_minute=end, weekdays=frozenset({0, 5}), utc_offset_minutes=offset)
    monday = datetime(2026, 1, 5, tzinfo=UTC) - timedelta(minutes=offset)
    length = end - start if start < end else end + 1440 - start
    inside = any(0 <= (minute - (day * 1440 + start)) % (7 * 1440) < length for day in (0, 5))
    found = window.find(Facts(at=monday + timedelta(minutes=minute)))
    assert (found.truth is Truth.HOLDS) is inside


def test_a_window_is_told_in_words() -> None:
    window = TimeWindow(start_minute=540, end_minute=1020, weekdays=frozenset(range(5)), utc_offset_minutes=-90)
    assert str(window) == "from 09:00 to 17:00 on Mon, Tue, Wed, Thu, Fri (UTC-01:30)"


def test_a_budget_and_an_expiry_end_a_permission() -> None:
    spent = Facts(at=NOON, spent=Spent(cost_micros=500_000))
    found = WithinBudget(limits=Limits(cost_micros=500_000)).find(spent)
    assert (found.truth, found.code, found.reason) == (Truth.FAILS, "budget_exceeded", "0.5 of 0.5 cost units used")
    assert Until(moment=NOON).find(FACTS).code == "expired"
    assert Until(moment=NOON + timedelta(seconds=1)).find(FACTS).truth is Truth.HOLDS


CAPABILITIES = st.sampled_from(["fs.read", "fs.read:/a/**", "fs.read:/a", "fs.*", "*.*", "bb.read"])
RULES = st.lists(st.tuples(st.sampled_from(Effect), CAPABILITIES), max_size=6)


@given(RULES, st.sampled_from(["/a", "/a/b", "/b"]))
def test_adding_a_prohibition_never_allows_more(drawn: list[tuple[Effect, str]], path: str) -> None:
    rules = [rule(str(number), effect, capability) for number, (effect, capability) in enumerate(drawn)]
    before = RuleBook(rules).decide(read(path), FACTS)
    after = RuleBook([*rules, rule("new", Effect.DENY, "fs.read:/a")]).decide(read(path), FACTS)
    if isinstance(before, Denied):
        assert isinstance(after, Denied)
    if path == "/a":
        assert isinstance(after, Denied)


SCOPES = st.lists(st.sampled_from(["/", "a", "b", "*", "**", "/a", "/**"]), max_size=4).map("".join)
BB_RULES = st.lists(st.tuples(st.sampled_from(Effect), SCOPES), max_size=8)


@given(BB_RULES, st.text(alphabet="/ab", max_size=5))
def test_the_index_finds_what_looking_at_every_rule_finds(drawn: list[tuple[Effect, str]], key: str) -> None:
    rules = [
        rule(str(number), effect, f"bb.read:{scope}" if scope else "bb.read")
        for number, (effect, scope) in enumerate(drawn)
    ]
    act = Act(domain="bb", action="read", subject=key)
    fitting = [each for each in rules if each.capability.allows(act)]
    by_effect = {effect: [each.id for each in fitting if each.effect is effect] for effect in Effect}
    decision = RuleBook(rules).decide([Requirement(any_of=(act,))], FACTS)
    match decision:
        case Denied(rule=deciding) if by_effect[Effect.DENY]:
            assert deciding == by_effect[Effect.DENY][0]
        case Denied(rule=deciding):
            assert deciding == DEFAULT_RULE
            assert not fitting
        case NeedsApproval(rule=deciding):
            assert deciding == by_effect[Effect.ASK][0]
        case Allowed(rules=deciding_rules):
            assert deciding_rules == (by_effect[Effect.ALLOW][0],)
            assert not by_effect[Effect.ASK]
            assert not by_effect[Effect.DENY]


def test_a_rule_may_ask_several_people_and_the_most_that_any_asks_count() -> None:
    text = """
apiVersion: scarab/v1
kind: AgentManifest
metadata: {name: careful, version: 1.0.0}
spec:
  trust_level: trusted
  policy:
  - {id: one, effect: ask, capability: 'tool.invoke:fs.write'}
  - {id: two, effect: ask, capability: 'fs.write:/workspace/**', approvers: 2}
"""
    decision = judge(law_of(parse_manifest(text)), "fs.write", {"path": "/workspace/a", "content": ""}, Facts(at=NOON))
    assert decision == NeedsApproval(rule="two", reason="rule two wants a human to agree", approvers=2)
    with pytest.raises(Invalid, match="asks nobody"):
        parse_manifest(text.replace("effect: ask", "effect: allow"))


def test_what_could_be_permitted_is_what_some_call_would_be() -> None:
    def book(*rules: tuple[Effect, str, bool]) -> RuleBook:
        when = (ArgumentMatches(pointer="/a", one_of=(compile_glob("b"),)),)
        return RuleBook(
            Rule(id=str(n), effect=effect, capability=parse_capability(text), when=when if conditional else ())
            for n, (effect, text, conditional) in enumerate(rules)
        )

    echo = Requirement(any_of=(Act(domain="tool", action="invoke", subject="echo"),))
    assert not book().could_permit(echo)
    assert book((Effect.ALLOW, "tool.invoke:echo", True)).could_permit(echo)
    assert book((Effect.ASK, "tool.invoke:*", False)).could_permit(echo)
    assert book((Effect.ALLOW, "tool.invoke:*", False), (Effect.DENY, "tool.invoke:echo", True)).could_permit(echo)
    assert not book((Effect.ALLOW, "tool.invoke:*", False), (Effect.DENY, "tool.invoke:e*", False)).could_permit(echo)

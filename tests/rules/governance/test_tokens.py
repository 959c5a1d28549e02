"""Tokens and who may do what with them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from borough.core.errors import Conflict, Forbidden, Invalid
from borough.core.ids import AgentId
from borough.governance.access import (
    OF_ONESELF,
    SCOPES,
    Standing,
    Target,
    Verb,
    check_spawn_trust,
    check_verb,
    may_touch,
    sees,
    sees_everything,
    stricter,
)
from borough.governance.capabilities import parse_capability
from borough.governance.conditions import Facts
from borough.governance.decisions import Allowed, Denied, NeedsApproval
from borough.governance.rules import Effect, Rule, RuleBook
from borough.governance.tokens import (
    OPERATOR,
    Caller,
    Role,
    TokenScope,
    caller_of,
    format_token,
    is_token,
    new_token,
    revoke,
    rotate,
    ticket,
    token_sha256,
)
from borough.governance.trust import TrustLevel

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
AGENT = "550e8400-e29b-41d4-a716-446655440000"
TOKEN = "a3f8c2e1d4b7" + "0" * 52
STORED = new_token(name="ci-pipeline", agent_id=AGENT, token=TOKEN, at=NOON)


def test_a_token_is_64_hex_characters_and_stored_as_its_hash() -> None:
    assert is_token(format_token(bytes(range(32))))
    assert token_sha256(TOKEN) == "e1bc80f079ec97d5db092b567291f56338d6e20b455141cbfef94cedd39289b0"
    assert TOKEN not in repr(STORED)
    assert STORED.token_sha256 not in repr(STORED)
    with pytest.raises(ValueError):
        format_token(b"short")


def test_a_token_speaks_for_its_agent() -> None:
    caller = caller_of(STORED, token_sha256(TOKEN), at=NOON)
    assert caller is not None
    assert (caller.agent_id, caller.token_name, caller.role) == (AGENT, "ci-pipeline", Role.OPERATOR)
    assert caller_of(STORED, token_sha256("f" * 64), at=NOON) is None


def test_a_revoked_or_expired_token_speaks_for_nobody() -> None:
    short = replace(STORED, expires_at=NOON + timedelta(seconds=1))
    assert caller_of(short, token_sha256(TOKEN), at=NOON) is not None
    assert caller_of(short, token_sha256(TOKEN), at=NOON + timedelta(seconds=1)) is None
    gone = revoke(STORED, at=NOON)
    assert revoke(gone, at=NOON + timedelta(days=1)) == gone
    assert caller_of(gone, token_sha256(TOKEN), at=NOON) is None
    with pytest.raises(Conflict):
        rotate(gone, token="b" * 64, at=NOON)


def test_a_rotated_token_holds_at_once_and_the_old_one_for_the_overlap_only() -> None:
    rotated = rotate(STORED, token="b" * 64, at=NOON, overlap=timedelta(minutes=5))
    assert caller_of(rotated, token_sha256("b" * 64), at=NOON) is not None
    assert caller_of(rotated, token_sha256(TOKEN), at=NOON + timedelta(minutes=4)) is not None
    assert caller_of(rotated, token_sha256(TOKEN), at=NOON + timedelta(minutes=5)) is None
    assert caller_of(rotate(STORED, token="b" * 64, at=NOON), token_sha256(TOKEN), at=NOON) is None


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": "a b"}, "invalid_name"),
        ({"agent_id": "x"}, "invalid_agent_id"),
        ({"role": Role.AGENT, "scopes": [TokenScope.APPROVALS_DECIDE]}, "scope_not_allowed"),
        ({"expires_at": NOON}, "invalid_expiry"),
    ],
)
def test_a_token_that_makes_no_sense_is_refused(changes: dict[str, object], code: str) -> None:
    with pytest.raises(Invalid) as refused:
        new_token(**{"name": "a", "agent_id": AGENT, "token": TOKEN, "at": NOON, **changes})  # type: ignore[arg-type] # by parameters
    assert refused.value.code == code


def test_a_stream_ticket_is_short_lived_and_known_by_its_hash() -> None:
    caller = caller_of(STORED, STORED.token_sha256, at=NOON)
    assert caller is not None
    handed = ticket("word", caller, at=NOON)
    assert handed.digest == token_sha256("word")
    assert handed.expires_at == NOON + timedelta(seconds=60)


FACTS = Facts(at=NOON)
ME = AgentId("me")
CHILD = Target(id=AgentId("child"), name="child", ancestors=frozenset({ME}))
OTHER = Target(id=AgentId("other"), name="other", ancestors=frozenset())


def caller(role: Role = Role.OPERATOR) -> Caller:
    return Caller(token_name="t", agent_id=ME, role=role, scopes=frozenset(TokenScope))


def standing(*capabilities: str, live: bool = True, trust: TrustLevel = TrustLevel.TRUSTED) -> Standing:
    rules = [Rule(id=text, effect=Effect.ALLOW, capability=parse_capability(text)) for text in capabilities]
    return Standing(rules=RuleBook(rules), live=live, trust=trust)


def allowed(
    verb: Verb, who: Caller, how: Standing, target: Target | None, *, strict: bool = False, subject: str | None = None
) -> bool:
    try:
        check_verb(verb, caller=who, standing=how, target=target, facts=FACTS, strict=strict, subject=subject)
    except Forbidden:
        return False
    return True


MANAGEMENT = [Verb.LIST, Verb.INSPECT, Verb.SPAWN, Verb.TERMINATE, Verb.LIST_TOOLS, Verb.READ_AUDIT, Verb.READ_EVENTS]


@pytest.mark.parametrize("verb", MANAGEMENT)
def test_an_operators_token_manages_every_agent_even_when_its_own_does_not_run(verb: Verb) -> None:
    assert allowed(verb, caller(), standing(live=False), OTHER)


@pytest.mark.parametrize("verb", MANAGEMENT)
def test_an_agents_token_reaches_itself_and_its_descendants_only(verb: Verb) -> None:
    if verb is Verb.SPAWN:
        assert not allowed(verb, caller(Role.AGENT), standing(), None)
        assert allowed(verb, caller(Role.AGENT), standing("agent.spawn"), None)
        return
    assert allowed(verb, caller(Role.AGENT), standing(), CHILD)
    assert not allowed(verb, caller(Role.AGENT), standing(), OTHER)
    assert not allowed(verb, caller(), standing(), OTHER, strict=True)
    everything = standing("agent.discover", "agent.terminate:oth*", "audit.read:*")
    assert allowed(verb, caller(Role.AGENT), everything, OTHER)
    assert not allowed(verb, caller(Role.AGENT), standing(live=False), CHILD)


def test_memory_and_observations_take_a_capability_in_every_mode() -> None:
    assert not allowed(Verb.READ_MEMORY, caller(), standing(), OTHER, subject="state/a")
    assert allowed(Verb.READ_MEMORY, caller(), standing("memory.read:state/*"), OTHER, subject="state/a")
    assert not allowed(Verb.READ_MEMORY, caller(), standing("memory.read:state/*"), OTHER, subject="key")
    assert not allowed(Verb.READ_OBSERVATIONS, caller(), standing(), OTHER)
    assert allowed(Verb.READ_OBSERVATIONS, caller(), standing("obs.query"), OTHER)
    assert not allowed(Verb.READ_OBSERVATIONS, caller(Role.AGENT), standing("obs.query"), OTHER)


def test_an_export_takes_the_right_to_read_everything() -> None:
    assert allowed(Verb.EXPORT_AUDIT, caller(), standing(live=False), None)
    assert not allowed(Verb.EXPORT_AUDIT, caller(Role.AGENT), standing("audit.read:*"), None)
    assert allowed(Verb.EXPORT_AUDIT, caller(Role.AGENT), standing("audit.read"), None)


def test_the_bus_takes_either_spelling_of_its_capability() -> None:
    for held in ("bus.publish:build.*", "tool.invoke:bus.*", "bus.*"):
        assert allowed(Verb.PUBLISH, caller(), standing(held), None, subject="build.done")
    assert not allowed(Verb.PUBLISH, caller(), standing("bus.publish:test.*"), None, subject="build.done")
    assert not allowed(Verb.PUBLISH, caller(), standing("bus.subscribe"), None, subject="build.done")


def test_what_a_human_would_have_to_agree_to_is_refused_where_none_is_asked() -> None:
    asking = Rule(id="a", effect=Effect.ASK, capability=parse_capability("memory.write:**"), reason="ask me")
    how = Standing(rules=RuleBook([asking]), live=True, trust=TrustLevel.TRUSTED)
    assert not allowed(Verb.WRITE_MEMORY, caller(), how, CHILD, subject="a")


def test_keys_are_listed_as_far_as_they_may_be_read() -> None:
    how = standing("memory.read:state/*")
    assert may_touch(Verb.READ_MEMORY, "state/a", caller(), how, FACTS)
    assert not may_touch(Verb.READ_MEMORY, "other", caller(), how, FACTS)
    assert may_touch(Verb.READ_MEMORY, "other", OPERATOR, standing(), FACTS)


def test_only_an_unscoped_permission_shows_everything() -> None:
    for who, how, shown in (
        (caller(), standing(), True),
        (caller(Role.AGENT), standing("audit.read:*"), False),
        (caller(Role.AGENT), standing("audit.read"), True),
    ):
        assert sees_everything(who, how, FACTS, verb=Verb.READ_AUDIT, strict=False) is shown


@pytest.mark.parametrize("verb", list(Verb))
def test_every_verb_takes_its_scope(verb: Verb) -> None:
    narrow = replace(caller(), scopes=frozenset(TokenScope) - {SCOPES[verb]})
    with pytest.raises(Forbidden) as refused:
        check_verb(verb, caller=narrow, standing=standing("*.*"), target=CHILD, facts=FACTS, subject="a")
    assert refused.value.code == "scope_missing"


def test_an_agent_s_word_about_itself_takes_less_than_changing_agents() -> None:
    own = Target(id=caller().agent_id, name="me", ancestors=frozenset())
    narrow = replace(caller(Role.AGENT), scopes=frozenset({TokenScope.AGENTS_SELF}))
    for verb in Verb:
        assert allowed(verb, narrow, standing("*.*"), own, subject="a") is (verb in OF_ONESELF), verb
        assert not allowed(verb, narrow, standing("*.*"), CHILD, subject="a"), verb
        assert not allowed(verb, replace(narrow, role=Role.OPERATOR), standing("*.*"), own, subject="a"), verb


def test_lists_show_what_the_caller_may_see() -> None:
    for who, how, shown in (
        (caller(), standing(), True),
        (caller(Role.AGENT), standing(), False),
        (caller(Role.AGENT), standing("agent.discover:other"), True),
    ):
        assert sees(who, how, OTHER, FACTS, verb=Verb.LIST, strict=False) is shown


def test_acting_for_another_takes_the_rights_of_both() -> None:
    yes, ask = Allowed(rules=("a",)), NeedsApproval(rule="b", reason="")
    no = Denied(rule="c", code="denied", reason="", resolution="")
    assert stricter(yes, no) is stricter(no, yes) is stricter(no, ask) is no
    assert stricter(ask, yes) is stricter(yes, ask) is ask


def test_nobody_starts_an_agent_that_is_trusted_more_than_they_are() -> None:
    check_spawn_trust(standing(trust=TrustLevel.TRUSTED), TrustLevel.TRUSTED)
    check_spawn_trust(standing(trust=TrustLevel.UNTRUSTED, live=False), TrustLevel.PRIVILEGED)
    with pytest.raises(Forbidden):
        check_spawn_trust(standing(trust=TrustLevel.SANDBOXED), TrustLevel.TRUSTED)

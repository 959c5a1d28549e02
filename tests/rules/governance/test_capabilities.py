"""Capabilities: grammar, what they allow, attenuation, ceilings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.core.errors import Forbidden, Invalid
from borough.governance.capabilities import (
    ACTIONS,
    Act,
    Capability,
    check_attenuation,
    is_alias,
    parse_capability,
)
from borough.governance.ceilings import LEVELS, NETWORK_CEILINGS, check_ceiling, level_of, within_ceiling
from borough.governance.hosts import NetworkPolicy
from borough.governance.trust import TrustLevel, lower_of

SCOPES = st.lists(st.sampled_from(["a", "b", "/", "*", "**"]), min_size=1, max_size=5).map("".join)
HEADS = st.sampled_from(["memory.read", "memory.write", "memory.*", "bb.read", "tool.invoke", "secret.use", "*.*"])


@st.composite
def capabilities(draw: st.DrawFn) -> Capability:
    head = draw(HEADS)
    scope = draw(st.none() | SCOPES) if "*" not in head else None
    return parse_capability(head if scope is None else f"{head}:{scope}")


@st.composite
def acts(draw: st.DrawFn) -> Act:
    domain, _, action = draw(HEADS.filter(lambda head: "*" not in head)).partition(".")
    return Act(domain=domain, action=action, subject=draw(st.none() | st.text(alphabet="ab/", max_size=6)))


@pytest.mark.parametrize(
    "text",
    [
        "*.*",
        "tool.invoke:fs.*",
        "fs.read",
        "fs.read:/workspace/**",
        "net.connect:api.example.com:443",
        "secret.use:a-*",
    ],
)
def test_a_capability_reads_as_it_is_written(text: str) -> None:
    assert str(parse_capability(text)) == text


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("mcp.github.*", "tool.invoke:mcp.github.*"),
        ("tool.invoke:sandbox.exec", "sandbox.exec"),
        ("net.connect:Api.Example.com", "net.connect:api.example.com:*"),
    ],
)
def test_other_spellings_mean_the_canonical_one(text: str, meaning: str) -> None:
    assert str(parse_capability(text)) == meaning
    assert not is_alias(meaning)


@pytest.mark.parametrize(
    "text",
    ["", "fs", "fs.", ".read", "fs.read:", "FS.read", "fs.read:workspace/*", "fs.read:/a/../b",
     "fs.read:/a/", "fs.read:/a//b",
     "fs.raed:/a", "fz.read", "*.read", "bus.*:a", "net.connect:a b:1", "fs.read:/a\n", "tool.invoke:" + "a" * 1100],
)  # fmt: skip
def test_what_is_no_capability_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_capability(text)
    assert refused.value.resolution


def test_a_typo_is_answered_with_the_nearest_word() -> None:
    with pytest.raises(Invalid) as refused:
        parse_capability("fs.raed:/a")
    assert refused.value.resolution == "did you mean fs.read?"


def test_a_dot_is_no_separator_in_scopes() -> None:
    assert parse_capability("tool.invoke:*").allows(Act(domain="tool", action="invoke", subject="lm.complete"))
    assert parse_capability("net.connect:*.example.com:443").allows(
        Act(domain="net", action="connect", subject="a.b.example.com:443")
    )


def test_every_tool_does_not_include_the_sandbox_tool() -> None:
    assert not parse_capability("tool.invoke:*").allows(Act(domain="sandbox", action="exec"))
    assert parse_capability("tool.invoke:sandbox.exec").allows(Act(domain="sandbox", action="exec"))


def test_a_scoped_permission_allows_no_unscoped_act_but_a_scoped_prohibition_touches_it() -> None:
    unscoped = Act(domain="bb", action="read")
    scoped = parse_capability("bb.read:status/*")
    assert not scoped.allows(unscoped)
    assert scoped.touches(unscoped)


@given(capabilities(), capabilities(), acts())
def test_what_a_covered_capability_allows_its_coverer_allows(wide: Capability, narrow: Capability, act: Act) -> None:
    if wide.covers(narrow) and narrow.allows(act):
        assert wide.allows(act)


@given(st.lists(capabilities(), max_size=3), st.lists(capabilities(), max_size=3), acts())
def test_attenuation_only_narrows(narrower: list[Capability], held: list[Capability], act: Act) -> None:
    try:
        check_attenuation(narrower, held)
    except Forbidden:
        return
    if any(capability.allows(act) for capability in narrower):
        assert any(capability.allows(act) for capability in held)


def test_escalation_is_denied_with_the_capability_that_is_not_held() -> None:
    with pytest.raises(Forbidden, match="capability escalation denied") as refused:
        check_attenuation([parse_capability("fs.read")], [parse_capability("fs.read:/workspace/**")])
    assert refused.value.code == "capability_escalation_denied"
    assert refused.value.reason == "no held capability covers fs.read"


@given(capabilities())
def test_everybody_may_pass_on_what_they_hold_and_parsing_its_text_gives_it_again(held: Capability) -> None:
    check_attenuation([held], [held])
    assert parse_capability(str(held)) == held


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("tool.invoke:echo", "untrusted"),
        ("tool.invoke:agent.info", "untrusted"),
        ("memory.*", "untrusted"),
        ("obs.append", "untrusted"),
        ("tool.invoke:*", "sandboxed"),
        ("tool.invoke:web.fetch", "sandboxed"),
        ("fs.read", "sandboxed"),
        ("fs.write:/workspace/**", "sandboxed"),
        ("bus.publish:a/*", "sandboxed"),
        ("net.connect:api.example.org:443", "sandboxed"),
        ("secret.use:deploy-*", "sandboxed"),
        ("fs.write", "trusted"),
        ("fs.write:/**", "trusted"),
        ("fs.delete:/***", "trusted"),
        ("net.connect:*:*", "trusted"),
        ("net.connect:*:443", "trusted"),
        ("net.connect", "trusted"),
        ("net.local", "trusted"),
        ("net.fetch:*", "trusted"),
        ("sandbox.exec", "trusted"),
        ("agent.spawn", "trusted"),
        ("secret.use:*", "privileged"),
        ("secret.use:**", "privileged"),
        ("secret.use", "privileged"),
        ("*.*", "privileged"),
        ("fs.*", "privileged"),
        ("api.admin", "privileged"),
    ],
)
def test_each_capability_takes_a_trust_level(text: str, level: str) -> None:
    capability = parse_capability(text)
    assert level_of(capability) == level
    for trust in TrustLevel:
        assert within_ceiling(capability, trust) is trust.at_least(TrustLevel(level))


def test_every_known_action_has_a_level() -> None:
    assert {(domain, action) for domain in ACTIONS for action in ACTIONS[domain]} <= set(LEVELS)


@given(capabilities(), capabilities())
def test_a_wider_capability_never_takes_less_trust(wide: Capability, narrow: Capability) -> None:
    if wide.covers(narrow):
        assert level_of(wide).at_least(level_of(narrow))


def test_what_is_over_the_ceiling_is_refused_with_the_level_that_it_takes() -> None:
    with pytest.raises(Forbidden) as refused:
        check_ceiling(parse_capability("fs.write"), TrustLevel.SANDBOXED)
    assert refused.value.code == "over_ceiling"
    assert "trusted" in (refused.value.reason or "")


def test_trust_levels_are_strictly_ordered() -> None:
    assert [level.rank for level in TrustLevel] == [0, 1, 2, 3]
    assert lower_of(TrustLevel.TRUSTED, TrustLevel.SANDBOXED) is TrustLevel.SANDBOXED
    assert NETWORK_CEILINGS[TrustLevel.UNTRUSTED] == {NetworkPolicy.NONE}

"""Secrets: handles, pre-approvals, and that no spelling of a value is let through."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.core.errors import Forbidden, Invalid
from borough.governance.globs import Glob
from borough.governance.manifests import AgentMatcher, MatcherType
from borough.governance.secrets import (
    Redactor,
    SecretPolicy,
    SecretUse,
    check_secret_name,
    forms_of,
    handles_in,
    substitute,
    usable_policy,
)
from borough.governance.trust import TrustLevel

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
USE = SecretUse(
    name="deploy-key", tool="web.fetch", host="api.example.org", agent_id="a", agent_name="ci", trust=TrustLevel.TRUSTED
)
POLICY = SecretPolicy(id="p", label="deploy", secret=Glob("deploy-*"), tool=Glob("web.*"), host=Glob("*.example.org"))


def test_handles_are_found_everywhere_and_replaced_in_values() -> None:
    call = {"url": "https://x/{{secret:a}}?{{secret:b}}", "list": ["{{secret:a}}", 5], "{{secret:c}}": None}
    assert handles_in(call) == ("a", "b", "c")
    filled = substitute(call, {"a": "1", "b": "{{secret:a}}"})
    assert filled == {"url": "https://x/1?{{secret:a}}", "list": ["1", 5], "{{secret:c}}": None}


@pytest.mark.parametrize("name", ["", "a b", "-a", "{{a}}", "a" * 65])
def test_a_name_is_plain(name: str) -> None:
    with pytest.raises(Invalid):
        check_secret_name(name)


def test_a_use_takes_a_policy_that_fits_it() -> None:
    assert usable_policy(USE, (POLICY,), at=NOON) == POLICY


@pytest.mark.parametrize(
    ("policy", "use", "code"),
    [
        (POLICY, replace(USE, host="evil.example"), "no_matching_policy"),
        (POLICY, replace(USE, host=None), "no_matching_policy"),
        (POLICY, replace(USE, tool="sandbox.exec"), "no_matching_policy"),
        (POLICY, replace(USE, name="other"), "no_matching_policy"),
        (replace(POLICY, expires_at=NOON), USE, "policy_expired"),
        (replace(POLICY, max_uses=2, use_count=2), USE, "policy_exhausted"),
        (replace(POLICY, agents=AgentMatcher(type=MatcherType.BY_ID, id="b")), USE, "no_matching_policy"),
        (
            replace(POLICY, agents=AgentMatcher(type=MatcherType.BY_TRUST_LEVEL, level=TrustLevel.PRIVILEGED)),
            USE,
            "no_matching_policy",
        ),
    ],
)
def test_no_fitting_policy_is_a_refusal_that_says_why(policy: SecretPolicy, use: SecretUse, code: str) -> None:
    with pytest.raises(Forbidden) as refused:
        usable_policy(use, (policy,), at=NOON)
    assert refused.value.code == code


def test_a_policy_without_a_host_holds_anywhere_and_a_later_one_may_help() -> None:
    anywhere = replace(POLICY, id="q", host=None, expires_at=NOON + timedelta(seconds=1))
    assert usable_policy(replace(USE, host=None), (POLICY, anywhere), at=NOON) == anywhere


VALUES = st.text(min_size=8, max_size=30).filter(lambda text: text.strip() == text and text.isprintable())


@given(VALUES, st.binary(max_size=4), st.binary(max_size=4))
def test_no_spelling_of_a_secret_is_let_through(value: str, before: bytes, after: bytes) -> None:
    redactor = Redactor({"key": value})
    raw = value.encode()
    for encoded in (
        base64.b64encode(before + raw + after).decode(),
        base64.urlsafe_b64encode(before + raw + after).decode(),
    ):
        assert redactor.text(encoded) != encoded
    for shown in (value, quote(value, safe=""), raw.hex(), f"<{value}>", json.dumps(value, ensure_ascii=False)):
        assert "[REDACTED:key]" in redactor.text(shown)
        assert redactor.finds({"a": [shown]}) == ("key",)


def test_keys_and_nested_values_are_scrubbed_and_the_longest_secret_wins() -> None:
    redactor = Redactor({"long": "swordfish-and-more", "short": "swordfish"})
    assert redactor.value({"a swordfish": ["swordfish-and-more", 5, None]}) == {
        "a [REDACTED:short]": ["[REDACTED:long]", 5, None]
    }


def test_short_values_are_not_looked_for_and_nothing_known_changes_nothing() -> None:
    assert forms_of("abc12") == frozenset()
    assert Redactor({}).text("anything") == "anything"
    assert Redactor({"a": "abc"}).finds("abc") == ()

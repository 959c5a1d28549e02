"""Judging calls: the order of what decides; tests, simulations and shadows of other laws."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from borough.governance.budgets import Spent
from borough.governance.conditions import Facts
from borough.governance.decisions import Allowed, Denied, NeedsApproval
from borough.governance.manifest_reading import read_manifest
from borough.governance.manifests import Manifest
from borough.governance.policy import (
    PastCall,
    judge,
    judge_in_shadow,
    law_of,
    simulate,
    try_out,
)

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def manifest(**spec: object) -> Manifest:
    document = {
        "apiVersion": "scarab/v1",
        "kind": "AgentManifest",
        "metadata": {"name": "a", "version": "1.0.0"},
        "spec": {"trust_level": "trusted", **spec},
    }
    reading = read_manifest(document)
    assert reading.manifest is not None, reading.problems
    return reading.manifest


TOOLS = ["tool.invoke:*", "fs.read:/workspace/**", "fs.write:/workspace/**", "sandbox.exec", "secret.use:deploy-*"]
OPEN = manifest(capabilities=TOOLS, network={"policy": "allowlist", "allowlist": ["api.example.org:443"]})


@pytest.mark.parametrize(
    ("tool", "arguments", "code"),
    [
        ("echo", {"message": "hello"}, "allowed"),
        ("echo", {}, "allowed"),
        ("nothing", {}, "not_found"),
        ("fs.read", {"path": "/workspace/a"}, "allowed"),
        ("fs.read", {"path": "/workspace/../etc/passwd"}, "denied"),
        ("fs.read", {"path": "workspace/a"}, "invalid_path"),
        ("fs.read", {}, "invalid_request"),
        ("fs.read", {"path": "/workspace/a", "more": 1}, "invalid_request"),
        ("fs.read", {"path": "/workspace/{{secret:deploy-a}}"}, "invalid_request"),
        ("fs.list", {"path": "/workspace"}, "allowed"),
        ("fs.delete", {"path": "/workspace/a"}, "allowed"),
        ("fs.delete", {"path": "/a"}, "denied"),
        ("web.fetch", {"url": "https://api.example.org/x"}, "allowed"),
        ("web.fetch", {"url": "https://API.example.org:443/x"}, "allowed"),
        ("web.fetch", {"url": "http://api.example.org/x"}, "network_denied"),
        ("web.fetch", {"url": "https://evil.example/"}, "network_denied"),
        ("web.fetch", {"url": "https://api.example.org@evil.example/"}, "invalid_url"),
        ("web.fetch", {"url": "https://api.example.org\\@evil.example/"}, "invalid_url"),
        ("web.fetch", {"url": "file:///etc/passwd"}, "invalid_url"),
        ("web.fetch", {"url": "https://api.example.org/public/../admin"}, "invalid_url"),
        ("web.fetch", {"url": "https://api.example.org/public/%2E./admin"}, "invalid_url"),
        ("web.fetch", {"url": "https://api.example.org/a..b/.well-known/x"}, "allowed"),
        ("web.fetch", {"url": "https://{{secret:deploy-a}}/"}, "invalid_url"),
        ("web.fetch", {"url": "https://api.example.org/{{secret:deploy-a}}"}, "allowed"),
        ("web.fetch", {"url": "https://api.example.org/{{secret:other}}"}, "denied"),
        ("web.search", {"query": "a"}, "network_denied"),
        ("sandbox.exec", {"runtime": "sh", "code": "true"}, "allowed"),
        ("sandbox.exec", {"runtime": "perl", "code": "1"}, "invalid_request"),
        ("sensitive-op", {}, "approval"),
        ("mcp.github.list", {"any": 1}, "allowed"),
    ],
)
def test_a_call_is_judged_by_all_that_decides(tool: str, arguments: dict[str, object], code: str) -> None:
    decision = try_out(OPEN, tool, arguments, at=NOON)
    assert (decision.code if isinstance(decision, Denied) else decision.verdict) == code


def test_a_refusal_has_the_words_of_the_reference() -> None:
    decision = try_out(OPEN, "fs.read", {"path": "/etc/passwd"}, at=NOON)
    assert isinstance(decision, Denied)
    assert decision.reason == "access denied: fs.read:/etc/passwd"
    assert decision.resolution


def test_who_may_not_call_a_tool_learns_nothing_about_its_arguments() -> None:
    decision = try_out(manifest(), "fs.read", {"path": 5}, at=NOON)
    assert isinstance(decision, Denied)
    assert decision.reason == "access denied: tool.invoke:fs.read"


def test_every_tool_does_not_include_the_sandbox_but_prohibiting_every_tool_does() -> None:
    call = {"runtime": "sh", "code": "true"}
    assert isinstance(try_out(manifest(capabilities=["tool.invoke:*"]), "sandbox.exec", call, at=NOON), Denied)
    stopped = manifest(capabilities=["sandbox.exec"], policy=[{"effect": "deny", "capability": "tool.invoke:*"}])
    assert isinstance(try_out(stopped, "sandbox.exec", call, at=NOON), Denied)


def test_a_tainted_agent_may_not_push_data_out() -> None:
    networked = try_out(OPEN, "sandbox.exec", {"runtime": "sh", "code": "true"}, at=NOON, tainted=True)
    assert isinstance(networked, Denied)
    assert networked.code == "tainted"
    alone = manifest(capabilities=TOOLS)
    assert isinstance(try_out(alone, "sandbox.exec", {"runtime": "sh", "code": "1"}, at=NOON, tainted=True), Allowed)
    assert isinstance(
        try_out(OPEN, "fs.write", {"path": "/workspace/a", "content": ""}, at=NOON, tainted=True), Allowed
    )


def test_a_prohibition_of_a_host_stops_fetching_from_it() -> None:
    law = manifest(
        capabilities=TOOLS,
        network={"policy": "full"},
        policy=[{"id": "no", "effect": "deny", "capability": "net.connect:*.evil.example"}],
    )
    decision = try_out(law, "web.fetch", {"url": "https://www.evil.example/"}, at=NOON)
    assert isinstance(decision, Denied)
    assert decision.rule == "no"
    assert isinstance(try_out(law, "web.fetch", {"url": "https://good.example/"}, at=NOON), Allowed)


def test_a_budget_stops_before_it_is_exceeded() -> None:
    law = law_of(manifest(capabilities=["tool.invoke:echo"], budget={"cost": 0.25}))
    assert isinstance(judge(law, "echo", {}, Facts(at=NOON, spent=Spent(cost_micros=150_000))), Allowed)
    over = judge(law, "echo", {}, Facts(at=NOON, spent=Spent(cost_micros=150_001)))
    assert isinstance(over, Denied)
    assert over.code == "budget_exceeded"


def test_a_rule_that_asks_makes_a_call_wait_for_a_human() -> None:
    law = manifest(
        capabilities=["tool.invoke:*", "fs.write:/workspace/**"],
        policy=[{"id": "look", "effect": "ask", "capability": "fs.write:/workspace/published/**"}],
    )
    decision = try_out(law, "fs.write", {"path": "/workspace/published/a", "content": ""}, at=NOON)
    assert isinstance(decision, NeedsApproval)
    assert decision.rule == "look"


def test_a_condition_on_a_path_is_asked_of_the_file_that_is_meant() -> None:
    law = manifest(
        capabilities=["fs.read:/workspace/**"],
        policy=[
            {
                "effect": "allow",
                "capability": "tool.invoke:fs.read",
                "when": {"arguments": {"/path": "/workspace/public/**"}},
            }
        ],
    )
    for path, verdict in (
        ("/workspace/public/a", "allowed"),
        ("/workspace//public/./a", "allowed"),
        ("/workspace/public/../private/a", "denied"),
    ):
        assert try_out(law, "fs.read", {"path": path}, at=NOON).verdict == verdict


def past(number: int, path: str, verdict: str = "allowed") -> PastCall:
    at = NOON + timedelta(seconds=number)
    return PastCall(id=str(number), at=at, tool="fs.read", arguments={"path": path}, verdict=verdict)


def test_a_simulation_tells_which_calls_would_change() -> None:
    calls = [past(1, "/workspace/a"), past(2, "/workspace/b/.env"), past(3, "/etc/passwd", "denied")]
    calls.append(replace(calls[0], arguments=None))
    stricter = manifest(
        capabilities=TOOLS, policy=[{"id": "no-env", "effect": "deny", "capability": "fs.read:/workspace/**/.env"}]
    )
    found = simulate(calls, law_of(stricter))
    assert [change.call.id for change in found.changed] == ["2"]
    decision = found.changed[0].decision
    assert isinstance(decision, Denied)
    assert decision.rule == "no-env"
    assert (found.same, len(found.undecidable)) == (2, 1)
    assert simulate(calls, law_of(OPEN)).changed == ()


def test_a_simulation_counts_rates_as_the_changed_law_would_have() -> None:
    slow = manifest(
        capabilities=["tool.invoke:*"],
        policy=[{"id": "slow", "effect": "allow", "capability": "fs.read", "when": {"rate_per_minute": 2}}],
    )
    calls = [past(second, "/workspace/a") for second in (0, 10, 20, 60, 65, 70)]
    found = simulate(calls, law_of(slow))
    assert [change.call.id for change in found.changed] == ["20", "65"]


def test_a_law_on_trial_is_recorded_and_has_no_effect() -> None:
    shadowed = judge_in_shadow(law_of(OPEN), law_of(manifest()), "echo", {}, Facts(at=NOON))
    assert isinstance(shadowed.enforced, Allowed)
    assert isinstance(shadowed.shadow, Denied)
    assert shadowed.differs

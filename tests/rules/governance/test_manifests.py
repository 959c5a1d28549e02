"""Manifests: the whole reference is read, and everything wrong is told with its path."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.core.errors import Invalid
from borough.governance.capability_sheet import as_markdown, sheet
from borough.governance.conditions import (
    ArgumentAtMost,
    ArgumentMatches,
    RatePerMinute,
    TimeWindow,
    Until,
    WithinBudget,
)
from borough.governance.hosts import NetworkPolicy
from borough.governance.lifecycle import RestartPolicy
from borough.governance.manifest_reading import parse_manifest, read_manifest
from borough.governance.manifests import Layer, ModelPolicy, PlanMode, Runtime, Transport
from borough.governance.rules import Effect

DIGEST = """
apiVersion: scarab/v1
kind: AgentManifest
metadata: {name: nightly-digest, version: 0.3.1, description: builds a digest}
spec:
  trust_level: sandboxed
  task: Build today's digest
  model_policy: cheapest
  capabilities: ["tool.invoke:echo", "tool.invoke:fs.write", "fs.write:/workspace/**", "memory.read:*", "memory.write:state/*", "obs.append", "obs.query"]
  resources: {memory_limit: 256Mi, cpu_shares: 100, max_open_files: 64}
  network: {policy: allowlist, allowlist: ["api.example.org:443"]}
  lifecycle: {restart_policy: on-failure, max_restarts: 2, timeout_secs: 600}
"""  # noqa: E501 - a manifest as people write it

EVERYTHING = """
apiVersion: scarab/v1
kind: AgentManifest
metadata:
  name: everything
  version: 1.0.0-rc.1+build.5
spec:
  trust_level: privileged
  capabilities: ["*.*", "mcp.github.*"]
  model: anthropic/claude-opus-4-6
  runtime: python
  entrypoint: main.py
  packages: [requests]
  command: /usr/bin/agent
  args: [--fast]
  env: {GREETING: hello}
  resources: {max_processes: 64, memory_limit: 1073741824}
  network: {policy: full}
  lifecycle: {restart_policy: always}
  secret_policy:
    - label: deploy
      secret_pattern: deploy-*
      tool_pattern: web.*
      host_pattern: "*.Example.org"
      expires_at: 2026-12-31T00:00:00Z
      max_uses: 5
      agent_matcher: {type: by_trust_level, level: trusted}
  mcp_servers:
    - {name: github, transport: Stdio, command: gh-mcp, args: [serve], env_template: [[TOKEN, "{{secret:gh}}"]]}
    - {name: remote, transport: Http, url: "https://mcp.example.org/", description: far away}
  workspace: {auto_snapshot: true, snapshot_interval_secs: 60}
  plan: {mode: strict}
  budget: {cost: 2.5, tokens: 1000, calls: 10, wall_time_secs: 60}
  sandbox: {require: [seccomp, cgroups]}
  policy:
    - id: office
      effect: allow
      capability: tool.invoke:web.fetch
      when:
        arguments: {/url: "https://api.example.org/**"}
        at_most: {/timeout_ms: 5000}
        rate_per_minute: 30
        between: {from: "09:00", to: "17:00", days: [Mon, tuesday], utc_offset: "-01:30"}
        budget: {cost: 0.1}
        until: 2026-12-31T00:00:00+01:00
    - {effect: deny, capability: "fs.read:/workspace/**/.env", reason: not that}
    - {id: ask-first, effect: ask, capability: "tool.invoke:fs.delete"}
"""


def document(**changes: object) -> dict[str, Any]:
    base: dict[str, Any] = {
        "apiVersion": "scarab/v1",
        "kind": "AgentManifest",
        "metadata": {"name": "a", "version": "1.0.0"},
        "spec": {"trust_level": "sandboxed"},
    }
    base["spec"].update(changes)
    return base


def problems_of(**changes: object) -> list[tuple[str, str]]:
    reading = read_manifest(document(**changes))
    assert reading.manifest is None
    return [(problem.path, str(problem)) for problem in reading.problems]


def test_the_example_of_the_reference_is_read() -> None:
    manifest = parse_manifest(DIGEST)
    assert (manifest.name, manifest.version, manifest.trust_level) == ("nightly-digest", "0.3.1", "sandboxed")
    assert [str(one) for one in manifest.capabilities][2] == "fs.write:/workspace/**"
    assert manifest.resources.memory_limit_bytes == 256 * 1024**2
    assert manifest.network.policy is NetworkPolicy.ALLOWLIST
    assert manifest.lifecycle.restart_policy is RestartPolicy.ON_FAILURE
    assert manifest.lifecycle.timeout_s == 600
    assert manifest.model_policy is ModelPolicy.CHEAPEST
    assert [rule.id for rule in manifest.rules()][:2] == ["spec.capabilities[0]", "spec.capabilities[1]"]


def test_every_field_is_read() -> None:
    manifest = parse_manifest(EVERYTHING)
    program = manifest.program
    assert (program.runtime, program.entrypoint, program.packages) == (Runtime.PYTHON, "main.py", ("requests",))
    assert (program.command, program.args, dict(program.env)) == ("/usr/bin/agent", ("--fast",), {"GREETING": "hello"})
    assert manifest.resources.memory_limit_bytes == 1024**3
    assert manifest.resources.max_processes == 64
    secret = manifest.secret_policy[0]
    assert secret.host is not None
    assert (secret.host.pattern, secret.max_uses, secret.agents.level) == ("*.example.org", 5, "trusted")
    assert [server.transport for server in manifest.mcp_servers] == [Transport.STDIO, Transport.HTTP]
    assert manifest.mcp_servers[0].env_template == (("TOKEN", "{{secret:gh}}"),)
    assert manifest.workspace.snapshot_interval_s == 60
    assert manifest.plan_mode is PlanMode.STRICT
    assert (manifest.budget.cost_micros, manifest.budget.calls) == (2_500_000, 10)
    assert manifest.require == {Layer.SECCOMP, Layer.CGROUPS}


def test_rules_with_conditions_are_read() -> None:
    office, deny, ask = parse_manifest(EVERYTHING).policy
    assert [type(condition) for condition in office.when] == [
        ArgumentMatches, ArgumentAtMost, RatePerMinute, TimeWindow, WithinBudget, Until,
    ]  # fmt: skip
    window = office.when[3]
    assert isinstance(window, TimeWindow)
    assert (window.start_minute, window.end_minute, window.utc_offset_minutes) == (540, 1020, -90)
    assert window.weekdays == {0, 1}
    assert (deny.id, deny.effect, deny.reason) == ("spec.policy[1]", Effect.DENY, "not that")
    assert (ask.id, ask.effect) == ("ask-first", Effect.ASK)


def test_the_least_manifest_has_defaults() -> None:
    manifest = read_manifest(document()).manifest
    assert manifest is not None
    assert manifest.network.policy is NetworkPolicy.NONE
    assert manifest.lifecycle.restart_policy is RestartPolicy.NEVER
    assert manifest.lifecycle.max_restarts == 3
    assert manifest.program.runtime is Runtime.RUST
    assert manifest.capabilities == ()


@pytest.mark.parametrize(
    ("text", "message", "code"),
    [
        (
            "apiVersion: scarab/v1\nkind: AgentManifest\nmetadata: {name: a, version: 1.0.0}\nspec: {}",
            "invalid manifest: missing required field 'spec.trust_level'",
            "invalid_manifest",
        ),
        (DIGEST.replace("scarab/v1", "scarab/v2"), "unsupported api version: scarab/v2", "unsupported_api_version"),
        (DIGEST.replace("600", "0"), "lifecycle timeout_secs=0 is invalid", "invalid_timeout"),
        ("", "invalid manifest: missing required field 'apiVersion'", "invalid_manifest"),
        ("[]", "invalid manifest: 'document' has to be a mapping", "invalid_manifest"),
    ],
)
def test_a_refusal_has_the_words_of_the_reference(text: str, message: str, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_manifest(text)
    assert (refused.value.message, refused.value.code) == (message, code)
    assert refused.value.details["problems"]


def test_all_problems_are_told_at_once() -> None:
    wrong = document(capabilities=["fs.raed:/a", "fs.write"], resources={"memory_limit": "1 GB"}, netwrok={})
    wrong["kind"] = "Agent"
    wrong["metadata"]["name"] = "A"
    reading = read_manifest(wrong)
    assert {problem.path for problem in reading.problems} == {
        "kind", "metadata.name", "spec.capabilities[0]", "spec.capabilities[1]", "spec.resources.memory_limit",
        "spec.netwrok",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "path", "said"),
    [
        ({"netwrok": {}}, "spec.netwrok", "did you mean 'network'?"),
        ({"resources": {"memory": 1}}, "spec.resources.memory", "did you mean 'memory_limit'?"),
        ({"trust_level": "sandbox"}, "spec.trust_level", "did you mean 'sandboxed'?"),
        ({"capabilities": ["fs.raed"]}, "spec.capabilities[0]", "did you mean fs.read?"),
        ({"capabilities": ["secret.use:*"]}, "spec.capabilities[0]", "takes trust level privileged"),
        ({"capabilities": "echo"}, "spec.capabilities", "has to be a list"),
        ({"capabilities": [1]}, "spec.capabilities[0]", "has to be text"),
        ({"network": {"policy": "allowlist"}}, "spec.network.allowlist", "missing required field"),
        ({"network": {"policy": "full"}}, "spec.network.policy", "trust level sandboxed may have allowlist, none"),
        ({"network": {"policy": "allowlist", "allowlist": ["a"]}}, "spec.network.allowlist[0]", "names no port"),
        ({"lifecycle": {"timeout_secs": "5"}}, "spec.lifecycle.timeout_secs", "whole number"),
        ({"lifecycle": {"max_restarts": True}}, "spec.lifecycle.max_restarts", "whole number"),
        ({"resources": {"cpu_shares": 0}}, "spec.resources.cpu_shares", "from 1 to 10000"),
        ({"resources": {"memory_limit": "0Mi"}}, "spec.resources.memory_limit", "512Mi"),
        ({"mcp_servers": [{"name": "a", "transport": "Stdio"}]}, "spec.mcp_servers[0].command", "missing required"),
        ({"mcp_servers": [{"name": "a", "transport": "http"}]}, "spec.mcp_servers[0].url", "missing required"),
        ({"secret_policy": [{"label": "x"}]}, "spec.secret_policy[0].secret_pattern", "missing required"),
        ({"env": {"LD_PRELOAD": "x"}}, "spec.env", "LD_ are kept"),
        ({"env": {"A": 1}}, "spec.env.A", "has to be text"),
        ({"budget": {"cost": -1}}, "spec.budget.cost", "amount of money"),
        ({"sandbox": {"require": ["secomp"]}}, "spec.sandbox.require[0]", "did you mean 'seccomp'?"),
        ({"entrypoint": "a.py"}, "spec.entrypoint", "python and node"),
        ({"policy": [{"effect": "allow"}]}, "spec.policy[0].capability", "missing required"),
        ({"policy": [{"effect": "deny", "capability": "bb.read", "when": {"rate_per_minute": 1}}]},
         "spec.policy[0].when", "makes no sense in a rule that denies"),
        ({"policy": [{"effect": "allow", "capability": "bb.read", "when": {"rate": 1}}]}, "spec.policy[0].when.rate",
         "did you mean 'rate_per_minute'?"),
        ({"policy": [{"effect": "ask", "capability": "fs.write"}]}, "spec.policy[0].capability", "takes trust level"),
        ({"policy": [{"effect": "allow", "capability": "bb.read", "when": {"arguments": {"url": "x"}}}]},
         "spec.policy[0].when.arguments", "JSON Pointer"),
        ({"policy": [{"effect": "allow", "capability": "bb.read", "when": {"until": "2026-01-01"}}]},
         "spec.policy[0].when.until", "with its offset"),
        ({"policy": [{"effect": "allow", "capability": "bb.read", "when": {"between": {"from": "25:00"}}}]},
         "spec.policy[0].when.between.from", "09:30"),
    ],
)  # fmt: skip
def test_a_problem_is_told_at_its_path(changes: dict[str, object], path: str, said: str) -> None:
    found = [(where, what) for where, what in problems_of(**changes) if where == path]
    assert found
    assert said in found[0][1]


def test_a_version_that_yaml_reads_as_a_number_is_told_to_be_quoted() -> None:
    with pytest.raises(Invalid) as refused:
        parse_manifest(DIGEST.replace("0.3.1", "1.0"))
    assert refused.value.resolution == "put it in quotes"


def test_another_spelling_of_a_capability_warns() -> None:
    reading = read_manifest(document(capabilities=["mcp.github.*"]))
    assert reading.manifest is not None
    assert [warning.path for warning in reading.warnings] == ["spec.capabilities[0]"]


ODD = st.sampled_from([None, 0, -1, True, 1.5, "", "x", [], [None], [[]], {}, {"a": 1}, {"b": []}, ["a", 1]])
PATHS = [
    ("spec", "capabilities"), ("spec", "policy"), ("spec", "network"), ("spec", "network", "allowlist"),
    ("spec", "mcp_servers"), ("spec", "secret_policy"), ("spec", "lifecycle"), ("spec", "budget"), ("spec", "env"),
    ("spec", "sandbox"), ("spec", "plan"), ("spec", "workspace"), ("spec", "args"), ("metadata",), ("spec",), ("kind",),
    ("metadata", "version"), ("spec", "resources"), ("spec", "trust_level"),
]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(PATHS), ODD), min_size=1, max_size=4))
def test_no_document_makes_reading_fail_otherwise_than_with_problems(
    changes: list[tuple[tuple[str, ...], object]],
) -> None:
    wrong: Any = document(network={"policy": "none"})
    for path, value in changes:
        place = wrong
        for name in path[:-1]:
            place = place.get(name) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[path[-1]] = copy.deepcopy(value)
    reading = read_manifest(wrong)
    assert (reading.manifest is None) is bool(reading.problems)
    assert all(problem.message for problem in reading.problems)


def test_the_capability_sheet_tells_what_a_person_has_to_know() -> None:
    told = dict(sheet(parse_manifest(EVERYTHING)))
    assert told["Trust"] == ("privileged",)
    assert told["Capabilities"][0] == "*.* (takes privileged)"
    assert "office: allow tool.invoke:web.fetch, under 6 condition(s)" in told["Rules"]
    assert told["Secrets"] == ("deploy: deploy-* for web.* at *.example.org",)
    assert told["Required confinement"] == ("cgroups", "seccomp")


def test_the_sheet_is_a_page_that_a_manifest_cannot_write_into() -> None:
    page = as_markdown(parse_manifest(DIGEST.replace("builds a digest", '"# all\\n# is <b>well</b>"')))
    assert page.startswith("# nightly-digest 0.3.1\n")
    assert "\\# all \\# is \\<b\\>well\\</b\\>" in page
    assert "- fs.write:/workspace/\\*\\* (takes sandboxed)" in page

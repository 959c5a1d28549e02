"""From a document to a manifest, or to everything that is wrong with it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from borough.core.errors import Invalid
from borough.governance.capabilities import Capability, is_alias, parse_capability
from borough.governance.ceilings import NETWORK_CEILINGS, level_of, within_ceiling
from borough.governance.documents import load_document
from borough.governance.hosts import NetworkPolicy, parse_allowed
from borough.governance.lifecycle import DEFAULT_MAX_RESTARTS, Lifecycle, RestartPolicy
from borough.governance.manifest_attachments import VARIABLE, read_mcp_servers, read_secret_rules
from borough.governance.manifest_fields import Fields, Problem, did_you_mean, parsed_at
from borough.governance.manifests import (
    API_VERSION,
    DEFAULT_CPU_SHARES,
    DEFAULT_SNAPSHOT_INTERVAL_S,
    KIND,
    Layer,
    Manifest,
    ModelPolicy,
    Network,
    PlanMode,
    Program,
    Resources,
    Runtime,
    Workspace,
)
from borough.governance.rule_fields import read_budget, read_rule
from borough.governance.rules import Effect, Rule
from borough.governance.trust import TrustLevel

AGENT_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,62})")
_VERSION = re.compile(
    r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?", re.ASCII
)
KNOWN_BY_HEART = 64
"""How many texts' manifests are kept: one text is read many times on the way of each agent."""
MOST_BY_HEART = 32_768
"""Characters of a text whose manifest is kept."""
_MOST_S = 10 * 365 * 24 * 3600
_OURS = re.compile(r"(SCARAB|AGENTD|BOROUGH)_.*|LD_.*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What became of a document: a manifest, or problems; warnings in either case."""

    manifest: Manifest | None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


def parse_manifest(text: str) -> Manifest:
    """Return the manifest that the YAML ``text`` says; of the same text it is the same one.

    Raises:
        Invalid: the YAML cannot be read (``invalid_yaml``), the version of its format is another
            (``unsupported_api_version``), or it says no manifest (``invalid_manifest``; all problems in ``details``).
    """
    return _known_by_heart(text) if len(text) <= MOST_BY_HEART else _parsed(text)


def _parsed(text: str) -> Manifest:
    reading = read_manifest(load_document(text))
    if reading.manifest is None:
        raise _invalid(reading.problems)
    return reading.manifest


_known_by_heart = lru_cache(maxsize=KNOWN_BY_HEART)(_parsed)


def read_manifest(document: object) -> Reading:
    """Return the manifest that an already loaded document says, or all that is wrong with it."""
    problems: list[Problem] = []
    warnings: list[Problem] = []
    top = Fields({} if document is None else document, "", problems)
    top.require("apiVersion", "kind", "metadata", "spec")
    _check_format(top)
    manifest = _read_parts(top.section("metadata"), top.section("spec"), warnings)
    top.close()
    return Reading(manifest=None if problems else manifest, problems=tuple(problems), warnings=tuple(warnings))


def _check_format(top: Fields) -> None:
    version = top.text("apiVersion")
    if version is not None and version != API_VERSION:
        hint = f"write {API_VERSION}"
        top.problems.append(Problem(path="apiVersion", message=f"unsupported api version: {version[:80]}", hint=hint))
    kind = top.text("kind")
    if kind is not None and kind != KIND:
        top.note("kind", f"is {kind[:80]!r}", f"write {KIND}")


def _read_parts(metadata: Fields, spec: Fields, warnings: list[Problem]) -> Manifest | None:
    if metadata.present:
        metadata.require("name", "version")
    if spec.present:
        spec.require("trust_level")
    name = metadata.text("name", pattern=AGENT_NAME, rule="a name has at most 63 lower-case letters, digits and '-'")
    version = metadata.text("version", pattern=_VERSION, rule="write it as 1.2.3 (semver.org)")
    description = metadata.text("description")
    metadata.close()
    trust = spec.word("trust_level", TrustLevel)
    manifest = Manifest(
        name=name or "",
        version=version or "",
        description=description,
        trust_level=trust or TrustLevel.UNTRUSTED,
        capabilities=_capabilities(spec, trust, warnings),
        policy=_policy(spec, trust),
        task=spec.text("task"),
        model=spec.text("model"),
        model_policy=spec.word("model_policy", ModelPolicy) or ModelPolicy.EXPLICIT,
        program=_program(spec),
        resources=_resources(spec.section("resources")),
        network=_network(spec.section("network"), trust),
        lifecycle=_lifecycle(spec.section("lifecycle")),
        secret_policy=read_secret_rules(spec),
        mcp_servers=read_mcp_servers(spec),
        workspace=_workspace(spec.section("workspace")),
        plan_mode=_plan_mode(spec.section("plan")),
        budget=read_budget(spec.section("budget")),
        require=_required_layers(spec.section("sandbox")),
    )
    spec.close()
    return manifest


def _capabilities(spec: Fields, trust: TrustLevel | None, warnings: list[Problem]) -> tuple[Capability, ...]:
    found = []
    for path, text in spec.texts("capabilities"):
        capability = parsed_at(path, text, parse_capability, spec.problems)
        if capability is None:
            continue
        if is_alias(text):
            warnings.append(Problem(path=path, message=f"'{path}' is understood as {capability}"))
        _check_level(path, capability, trust, spec.problems)
        found.append(capability)
    return tuple(found)


def _policy(spec: Fields, trust: TrustLevel | None) -> tuple[Rule, ...]:
    rules: list[Rule] = []
    for fields in spec.sections("policy"):
        rule = read_rule(fields)
        if rule is None:
            continue
        if rule.effect is not Effect.DENY:
            _check_level(fields.at("capability"), rule.capability, trust, spec.problems)
        if any(rule.id == other.id for other in rules):
            fields.note("id", f"is {rule.id!r}, which another rule has")
        rules.append(rule)
    return tuple(rules)


def _check_level(path: str, capability: Capability, trust: TrustLevel | None, problems: list[Problem]) -> None:
    if trust is not None and not within_ceiling(capability, trust):
        message = f"'{path}': {capability} takes trust level {level_of(capability).value}, and this is {trust.value}"
        problems.append(Problem(path=path, message=message, hint="narrow it, or raise spec.trust_level"))


def _program(spec: Fields) -> Program:
    runtime = spec.word("runtime", Runtime, {"native": Runtime.RUST})
    env = {}
    for name, value in spec.members("env"):
        if not VARIABLE.fullmatch(name) or _OURS.fullmatch(name):
            spec.note(
                "env", f"has {name[:80]!r}", "use letters, digits and '_'; SCARAB_, AGENTD_, BOROUGH_, LD_ are kept"
            )
        elif not isinstance(value, str) or "\0" in value:
            spec.note(f"env.{name}", "has to be text", "put it in quotes")
        else:
            env[name] = value
    program = Program(
        runtime=runtime or Runtime.RUST,
        command=spec.text("command"),
        args=tuple(text for _, text in spec.texts("args")),
        entrypoint=spec.text("entrypoint"),
        packages=tuple(text for _, text in spec.texts("packages")),
        env=MappingProxyType(env),
    )
    if program.runtime is Runtime.RUST and (program.entrypoint or program.packages):
        spec.note("entrypoint", "goes with the runtimes python and node only", "use spec.command")
    return program


def _resources(fields: Fields) -> Resources:
    resources = Resources(
        memory_limit_bytes=fields.size_bytes("memory_limit"),
        cpu_shares=fields.whole("cpu_shares", least=1, most=10_000) or DEFAULT_CPU_SHARES,
        max_open_files=fields.whole("max_open_files", least=1, most=1_048_576),
        max_processes=fields.whole("max_processes", least=1, most=4_194_304),
    )
    fields.close()
    return resources


def _network(fields: Fields, trust: TrustLevel | None) -> Network:
    policy = fields.word("policy", NetworkPolicy) or NetworkPolicy.NONE
    lines = [parsed_at(path, text, parse_allowed, fields.problems) for path, text in fields.texts("allowlist")]
    if policy is NetworkPolicy.ALLOWLIST and not lines:
        path = fields.at("allowlist")
        fields.problems.append(
            Problem(path=path, message=f"missing required field '{path}'", hint="the policy is allowlist")
        )
    if trust is not None and policy not in NETWORK_CEILINGS[trust]:
        allowed = ", ".join(sorted(NETWORK_CEILINGS[trust]))
        fields.note("policy", f"is {policy.value}, and trust level {trust.value} may have {allowed}")
    fields.close()
    return Network(policy=policy, allowlist=tuple(line for line in lines if line is not None))


def _lifecycle(fields: Fields) -> Lifecycle:
    policy = fields.word("restart_policy", RestartPolicy) or RestartPolicy.NEVER
    restarts = fields.whole("max_restarts", least=0, most=1_000_000)
    if fields.raw("timeout_secs") == 0:
        message = "lifecycle timeout_secs=0 is invalid"
        fields.problems.append(
            Problem(path=fields.at("timeout_secs"), message=message, hint="leave it out for no limit")
        )
        timeout = None
    else:
        timeout = fields.whole("timeout_secs", least=1, most=_MOST_S)
    fields.close()
    return Lifecycle(
        restart_policy=policy,
        max_restarts=DEFAULT_MAX_RESTARTS if restarts is None else restarts,
        timeout_s=timeout,
    )


def _workspace(fields: Fields) -> Workspace:
    workspace = Workspace(
        base=fields.text("base"),
        auto_snapshot=fields.flag("auto_snapshot") or False,
        snapshot_interval_s=fields.whole("snapshot_interval_secs", least=1, most=_MOST_S)
        or DEFAULT_SNAPSHOT_INTERVAL_S,
    )
    fields.close()
    return workspace


def _plan_mode(fields: Fields) -> PlanMode:
    mode = fields.word("mode", PlanMode) or PlanMode.ADVISORY
    fields.close()
    return mode


def _required_layers(fields: Fields) -> frozenset[Layer]:
    layers = frozenset(
        layer
        for path, text in fields.texts("require")
        if (layer := parsed_at(path, text, _one_of_layers, fields.problems)) is not None
    )
    fields.close()
    return layers


def _one_of_layers(text: str) -> Layer:
    try:
        return Layer(text)
    except ValueError:
        raise Invalid(
            f"there is no layer {text[:80]!r}",
            code="unknown_layer",
            resolution=did_you_mean(text, Layer) or f"choose from {', '.join(Layer)}",
        ) from None


_CODES: tuple[tuple[Callable[[Problem], bool], str], ...] = (
    (
        lambda problem: problem.path == "apiVersion" and problem.message.startswith("unsupported"),
        "unsupported_api_version",
    ),
    (lambda problem: problem.path.endswith("lifecycle.timeout_secs") and "=0" in problem.message, "invalid_timeout"),
)
"""Problems that are errors of their own, with their own words, when they are the first."""


def _invalid(problems: tuple[Problem, ...]) -> Invalid:
    first = problems[0]
    code = next((code for test, code in _CODES if test(first)), None)
    return Invalid(
        first.message if code else f"invalid manifest: {first.message}",
        code=code or "invalid_manifest",
        reason=None if len(problems) == 1 else f"{len(problems)} problems",
        resolution=first.hint or "see 'ash validate' for all that is wrong with it",
        details={"problems": [{"path": each.path, "message": str(each)} for each in problems]},
    )

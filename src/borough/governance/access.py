"""Who may do what to which agent over the gateway: the caller is the agent that the token is bound to.

Operators' tokens manage every agent, as the reference page has it. Agents' tokens (and all tokens, where the
installation is strict) reach the caller itself and what descends from it; for others they need a capability. Acting
for another agent takes the permission of both: the weaker of the two counts.
"""

from dataclasses import dataclass
from enum import StrEnum

from borough.core.errors import Forbidden
from borough.core.ids import AgentId
from borough.governance.capabilities import Act
from borough.governance.conditions import Facts
from borough.governance.decisions import Allowed, Decision, Denied, NeedsApproval
from borough.governance.rules import Requirement, RuleBook
from borough.governance.tokens import Caller, Role, TokenScope
from borough.governance.trust import TrustLevel


class Verb(StrEnum):
    """What is asked of the gateway."""

    LIST = "list"
    INSPECT = "inspect"
    SPAWN = "spawn"
    TERMINATE = "terminate"
    TRANSITION = "transition"
    PAUSE = "pause"
    SCHEDULE = "schedule"
    REPORT = "report"
    """Telling of oneself: a plan, a result."""
    SNAPSHOT = "snapshot"
    DIFF = "diff"
    ROLLBACK = "rollback"
    COMMIT = "commit"
    LIST_TOOLS = "list_tools"
    INVOKE = "invoke"
    READ_AUDIT = "read_audit"
    READ_EVENTS = "read_events"
    EXPORT_AUDIT = "export_audit"
    LIST_MEMORY = "list_memory"
    READ_MEMORY = "read_memory"
    WRITE_MEMORY = "write_memory"
    LIST_BOARD = "list_board"
    READ_BOARD = "read_board"
    WRITE_BOARD = "write_board"
    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    POLL = "poll"
    READ_OBSERVATIONS = "read_observations"
    APPEND_OBSERVATION = "append_observation"
    GRANT = "grant"
    DECIDE_APPROVAL = "decide_approval"
    MANAGE_SECRETS = "manage_secrets"
    MANAGE_STORE = "manage_store"
    MANAGE_TOKENS = "manage_tokens"
    PROPOSE_TOOL = "propose_tool"
    REQUEST_CAPABILITY = "request_capability"
    RESOLVE_ESCALATION = "resolve_escalation"
    READ_APPROVALS = "read_approvals"
    ATTACH_SERVER = "attach_server"
    MANAGE_SERVERS = "manage_servers"
    ENDORSE = "endorse"
    TRY_POLICY = "try_policy"


SCOPES: dict[Verb, TokenScope] = {
    Verb.LIST: TokenScope.AGENTS_READ,
    Verb.INSPECT: TokenScope.AGENTS_READ,
    Verb.SPAWN: TokenScope.AGENTS_WRITE,
    Verb.TERMINATE: TokenScope.AGENTS_WRITE,
    Verb.TRANSITION: TokenScope.AGENTS_WRITE,
    Verb.PAUSE: TokenScope.AGENTS_WRITE,
    Verb.SCHEDULE: TokenScope.AGENTS_WRITE,
    Verb.REPORT: TokenScope.AGENTS_WRITE,
    Verb.SNAPSHOT: TokenScope.AGENTS_WRITE,
    Verb.DIFF: TokenScope.AGENTS_READ,
    Verb.ROLLBACK: TokenScope.AGENTS_WRITE,
    Verb.COMMIT: TokenScope.AGENTS_WRITE,
    Verb.LIST_TOOLS: TokenScope.AGENTS_READ,
    Verb.INVOKE: TokenScope.TOOLS_INVOKE,
    Verb.READ_AUDIT: TokenScope.AUDIT_READ,
    Verb.READ_EVENTS: TokenScope.AUDIT_READ,
    Verb.EXPORT_AUDIT: TokenScope.AUDIT_READ,
    Verb.LIST_MEMORY: TokenScope.MEMORY_READ,
    Verb.READ_MEMORY: TokenScope.MEMORY_READ,
    Verb.WRITE_MEMORY: TokenScope.MEMORY_WRITE,
    Verb.LIST_BOARD: TokenScope.MEMORY_READ,
    Verb.READ_BOARD: TokenScope.MEMORY_READ,
    Verb.WRITE_BOARD: TokenScope.MEMORY_WRITE,
    Verb.PUBLISH: TokenScope.MEMORY_WRITE,
    Verb.SUBSCRIBE: TokenScope.MEMORY_READ,
    Verb.POLL: TokenScope.MEMORY_READ,
    Verb.READ_OBSERVATIONS: TokenScope.OBSERVATIONS_READ,
    Verb.APPEND_OBSERVATION: TokenScope.OBSERVATIONS_WRITE,
    Verb.GRANT: TokenScope.AGENTS_WRITE,
    Verb.DECIDE_APPROVAL: TokenScope.APPROVALS_DECIDE,
    Verb.MANAGE_SECRETS: TokenScope.SECRETS_MANAGE,
    Verb.MANAGE_STORE: TokenScope.STORE_MANAGE,
    Verb.MANAGE_TOKENS: TokenScope.TOKENS_MANAGE,
    Verb.PROPOSE_TOOL: TokenScope.TOOLS_INVOKE,
    Verb.REQUEST_CAPABILITY: TokenScope.AGENTS_WRITE,
    Verb.RESOLVE_ESCALATION: TokenScope.AGENTS_WRITE,
    Verb.READ_APPROVALS: TokenScope.AGENTS_READ,
    Verb.ATTACH_SERVER: TokenScope.AGENTS_WRITE,
    Verb.MANAGE_SERVERS: TokenScope.STORE_MANAGE,
    Verb.ENDORSE: TokenScope.APPROVALS_DECIDE,
    Verb.TRY_POLICY: TokenScope.AUDIT_READ,
}

OF_ONESELF = frozenset({Verb.TRANSITION, Verb.REPORT, Verb.REQUEST_CAPABILITY})
"""What an agent's own key may be used for with ``agents.self`` alone, where the agent itself is meant."""

ALWAYS_NEEDED: dict[Verb, tuple[str, str]] = {
    Verb.READ_MEMORY: ("memory", "read"),
    Verb.WRITE_MEMORY: ("memory", "write"),
    Verb.READ_BOARD: ("bb", "read"),
    Verb.WRITE_BOARD: ("bb", "write"),
    Verb.PUBLISH: ("bus", "publish"),
    Verb.SUBSCRIBE: ("bus", "subscribe"),
    Verb.READ_OBSERVATIONS: ("obs", "query"),
    Verb.APPEND_OBSERVATION: ("obs", "append"),
    Verb.PROPOSE_TOOL: ("tool", "propose"),
}
"""Capabilities that the caller needs in every mode. Calls of tools are judged by ``policy``."""

NEEDED_WHEN_NARROW: dict[Verb, tuple[str, str]] = {
    Verb.SPAWN: ("agent", "spawn"),
    Verb.EXPORT_AUDIT: ("audit", "read"),
    Verb.SNAPSHOT: ("workspace", "snapshot"),
    Verb.DIFF: ("workspace", "diff"),
    Verb.ROLLBACK: ("workspace", "rollback"),
    Verb.COMMIT: ("workspace", "commit"),
}
"""Capabilities that a narrow caller needs, whichever agent is meant."""

NEEDED_FOR_OTHERS: dict[Verb, tuple[str, str]] = {
    Verb.LIST: ("agent", "discover"),
    Verb.INSPECT: ("agent", "discover"),
    Verb.LIST_TOOLS: ("agent", "discover"),
    Verb.TERMINATE: ("agent", "terminate"),
    Verb.TRANSITION: ("agent", "terminate"),
    Verb.PAUSE: ("agent", "terminate"),
    Verb.READ_AUDIT: ("audit", "read"),
    Verb.READ_EVENTS: ("audit", "read"),
    Verb.GRANT: ("agent", "grant"),
}
"""What a narrow caller needs to reach agents that do not descend from it; other verbs never reach them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The caller as an agent: what is known of it now."""

    rules: RuleBook
    """Empty when the agent does not run (any more)."""
    live: bool
    trust: TrustLevel
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The agent that something is done to."""

    id: AgentId
    name: str
    ancestors: frozenset[AgentId]


def check_verb(
    verb: Verb,
    *,
    caller: Caller,
    standing: Standing,
    target: Target | None,
    facts: Facts,
    subject: str | None = None,
    strict: bool = False,
) -> None:
    """Let a request pass; ``target`` is ``None`` where no one agent is meant, ``subject`` a memory key, say.

    Raises:
        Forbidden: the token's scopes (``scope_missing``), the agent's capabilities (``denied``), or its relation to
            the target (``not_related``) do not allow it.
    """
    of_oneself = (
        verb in OF_ONESELF and caller.role is Role.AGENT and target is not None and target.id == caller.agent_id
    )
    if not caller.may(SCOPES[verb]) and not (of_oneself and caller.may(TokenScope.AGENTS_SELF)):
        raise Forbidden(
            "permission denied",
            code="scope_missing",
            reason=f"the key {caller.token_name!r} has no scope {SCOPES[verb].value}",
            resolution="use a key that has it",
        )
    if caller.is_unbound:
        return
    if verb in ALWAYS_NEEDED:
        _need(ALWAYS_NEEDED[verb], subject, standing, facts)
    if not is_narrow(caller, strict=strict):
        return
    if not standing.live:
        raise _denied("the key's agent does not run")
    if verb in NEEDED_WHEN_NARROW:
        _need(NEEDED_WHEN_NARROW[verb], None, standing, facts)
    if target is not None and not is_related(caller.agent_id, target):
        if verb not in NEEDED_FOR_OTHERS:
            raise Forbidden(
                "permission denied",
                code="not_related",
                reason="the agent neither is the caller nor descends from it",
                resolution="use a key of role operator",
            )
        _need(NEEDED_FOR_OTHERS[verb], target.name, standing, facts)


def _is_of_oneself(verb: Verb, caller: Caller, target: Target | None) -> bool:
    """Tell whether an agent's own key speaks of that agent, and may."""
    own = caller.role is Role.AGENT and target is not None and target.id == caller.agent_id
    return own and verb in OF_ONESELF and caller.may(TokenScope.AGENTS_SELF)


def is_narrow(caller: Caller, *, strict: bool) -> bool:
    """Tell whether the caller reaches only itself and its descendants by right."""
    return not caller.is_unbound and (strict or caller.role is Role.AGENT)


def is_related(caller: AgentId, target: Target) -> bool:
    """Tell whether ``target`` is the caller or descends from it."""
    return target.id == caller or caller in target.ancestors


def sees(caller: Caller, standing: Standing, target: Target, facts: Facts, *, verb: Verb, strict: bool) -> bool:
    """Tell whether a list or a stream shows ``target`` to the caller; what is not shown is left out silently."""
    if not is_narrow(caller, strict=strict) or is_related(caller.agent_id, target):
        return True
    domain, action = NEEDED_FOR_OTHERS[verb]
    needed = Requirement(any_of=(Act(domain=domain, action=action, subject=target.name),))
    return isinstance(standing.rules.decide([needed], facts), Allowed)


def sees_everything(caller: Caller, standing: Standing, facts: Facts, *, verb: Verb, strict: bool) -> bool:
    """Tell whether a list or a stream hides nothing from the caller, agents that were forgotten included."""
    if not is_narrow(caller, strict=strict):
        return True
    domain, action = NEEDED_FOR_OTHERS[verb]
    needed = Requirement(any_of=(Act(domain=domain, action=action),))
    return isinstance(standing.rules.decide([needed], facts), Allowed)


def may_touch(verb: Verb, subject: str, caller: Caller, standing: Standing, facts: Facts) -> bool:
    """Tell whether the caller's capabilities let it do ``verb`` to ``subject``; for lists of keys."""
    if caller.is_unbound:
        return True
    return holds(verb, subject, standing.rules, facts)


def holds(verb: Verb, subject: str, rules: RuleBook, facts: Facts) -> bool:
    """Tell whether an agent's rules let it do ``verb`` to ``subject``."""
    return isinstance(rules.decide([_requirement(ALWAYS_NEEDED[verb], subject)], facts), Allowed)


def check_spawn_trust(standing: Standing, wanted: TrustLevel) -> None:
    """Let a spawn pass whose trust level is no higher than the live caller's; operators' bootstrap has no agent.

    Raises:
        Forbidden: it is higher (``over_ceiling``).
    """
    if standing.live and not standing.trust.at_least(wanted):
        raise Forbidden(
            f"an agent of trust level {standing.trust.value} cannot start one of level {wanted.value}",
            code="over_ceiling",
            resolution="lower spec.trust_level, or start it as an operator",
        )


def stricter(caller: Decision, target: Decision) -> Decision:
    """Return what holds when one agent acts for another: the weaker rights of the two."""
    for kind in (Denied, NeedsApproval):
        for decision in (caller, target):
            if isinstance(decision, kind):
                return decision
    return target


def _need(pair: tuple[str, str], subject: str | None, standing: Standing, facts: Facts) -> None:
    decision = standing.rules.decide([_requirement(pair, subject)], facts)
    if isinstance(decision, Denied):
        raise _denied(decision.reason)
    if isinstance(decision, NeedsApproval):
        # Humans are asked about calls of tools only; what nobody is asked about is not agreed to.
        raise _denied(decision.reason)


def _requirement(pair: tuple[str, str], subject: str | None) -> Requirement:
    acts = [Act(domain=pair[0], action=pair[1], subject=subject)]
    if pair[0] == "bus":
        # The reference's pages write it either way.
        acts.append(Act(domain="tool", action="invoke", subject=".".join(pair)))
    return Requirement(any_of=tuple(acts))


def _denied(reason: str) -> Forbidden:
    return Forbidden("permission denied", code="denied", reason=reason, resolution="have the capability granted")

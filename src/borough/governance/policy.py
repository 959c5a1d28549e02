"""Judging a tool call: everything that decides, in one order, as a pure function; and asking "what if".

The order: is there such a tool; does a rule forbid it; is it allowed; is the agent tainted; do the arguments fit; may
the network be reached; is there budget; does a human have to agree.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from borough.core.errors import Invalid
from borough.governance.budgets import UNLIMITED, Limits, would_exceed
from borough.governance.builtin_tools import BUILTIN_TOOLS
from borough.governance.capabilities import Act
from borough.governance.conditions import RATE_WINDOW_S, Facts
from borough.governance.decisions import Allowed, Decision, Denied, NeedsApproval
from borough.governance.hosts import endpoint, reaches
from borough.governance.manifests import Manifest, Network
from borough.governance.rules import RuleBook
from borough.governance.tool_needs import Needs, canonical_arguments, invocation, needs_of
from borough.governance.tool_schemas import check_arguments
from borough.governance.tools import MCP_PREFIX, Source, Tool, category_of, is_blocked_by_taint

TOOL_RULE = "tool.requires_approval"
NETWORK_RULE = "spec.network"
BUDGET_RULE = "spec.budget"
TAINT_RULE = "taint"
SCHEMA_RULE = "tool.input_schema"
REGISTRY_RULE = "tool.registry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """All that decides about one agent's calls, made ready."""

    rules: RuleBook
    network: Network = field(default_factory=Network)
    budget: Limits = UNLIMITED
    tools: Mapping[str, Tool] = field(default_factory=lambda: BUILTIN_TOOLS)


def law_of(manifest: Manifest, tools: Mapping[str, Tool] = BUILTIN_TOOLS) -> Law:
    """Return what ``manifest`` makes the law for its agent."""
    return Law(rules=RuleBook(manifest.rules()), network=manifest.network, budget=manifest.budget, tools=tools)


def judge(law: Law, tool: str, arguments: Mapping[str, object], facts: Facts, *, tainted: bool = False) -> Decision:
    """Decide about a call. ``facts`` may leave the arguments out: they are put in here."""
    known = law.tools.get(tool)
    if known is None:
        return _denied(REGISTRY_RULE, "not_found", f"there is no tool {tool[:80]!r}", "list the tools: ash tools list")
    facts = Facts(
        at=facts.at,
        arguments=canonical_arguments(tool, arguments),
        calls_last_minute=facts.calls_last_minute,
        spent=facts.spent,
    )
    entry = _at_the_door(law, known, facts, tainted=tainted)
    return entry if isinstance(entry, Denied) else _with_arguments(law, known, facts, entry)


def _at_the_door(law: Law, tool: Tool, facts: Facts, *, tainted: bool) -> Decision:
    """Decide what does not depend on the arguments: who may not call the tool learns nothing about them."""
    entry = law.rules.decide((invocation(tool.name),), facts)
    if not isinstance(entry, Denied) and is_blocked_by_taint(category_of(tool, law.network.policy), tainted=tainted):
        return _denied(
            TAINT_RULE,
            "tainted",
            "the agent has read data from outside, and this tool sends data out",
            "have a human endorse the agent, or start a new run",
        )
    return entry


def _with_arguments(law: Law, tool: Tool, facts: Facts, entry: Allowed | NeedsApproval) -> Decision:
    try:
        check_arguments(tool.input_schema, facts.arguments)
        needs = needs_of(tool.name, facts.arguments)
    except Invalid as error:
        return _denied(SCHEMA_RULE, error.code, error.reason or error.message, error.resolution or "mend the arguments")
    further = needs.requirements[1:]
    decision = _both(entry, law.rules.decide(further, facts)) if further else entry
    if isinstance(decision, Denied):
        return decision
    if stopped := _network(law, needs, facts) or _budget(law, tool, facts):
        return stopped
    if tool.requires_approval and isinstance(decision, Allowed):
        return NeedsApproval(rule=TOOL_RULE, reason=f"{tool.name} always takes a human's agreement")
    return decision


def _both(entry: Allowed | NeedsApproval, further: Decision) -> Decision:
    """Return what holds for a call when what it needs was decided in two parts."""
    if isinstance(further, Denied):
        return further
    if isinstance(entry, NeedsApproval):
        more = isinstance(further, NeedsApproval) and further.approvers > entry.approvers
        return further if more else entry
    return further if isinstance(further, NeedsApproval) else Allowed(rules=(*entry.rules, *further.rules))


def could_call(rules: RuleBook, tool: Tool) -> bool:
    """Tell whether an agent with ``rules`` is shown ``tool``: some call of it could be allowed, or a server it is
    attached to has it.
    """
    return tool.source is Source.MCP or rules.could_permit(invocation(tool.name))


def try_out(
    manifest: Manifest,
    tool: str,
    arguments: Mapping[str, object],
    *,
    at: datetime,
    tools: Mapping[str, Tool] = BUILTIN_TOOLS,
    tainted: bool = False,
) -> Decision:
    """Return what would be decided for a fresh agent of ``manifest``. An unattached MCP tool counts as attached."""
    if tool.startswith(MCP_PREFIX) and tool not in tools:
        tools = {**tools, tool: Tool(name=tool, description="not attached", source=Source.MCP)}
    return judge(law_of(manifest, tools), tool, arguments, Facts(at=at), tainted=tainted)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastCall:
    """A call as it was recorded."""

    id: str
    at: datetime
    tool: str
    arguments: Mapping[str, object] | None
    """``None`` when only their digest was kept."""
    verdict: str
    """``allowed``, ``approval`` or ``denied``, as decided then."""
    tainted: bool = False
    facts: Facts | None = None
    """What was spent then; rates are counted anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A past call that another law would decide otherwise."""

    call: PastCall
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What another law would have meant."""

    changed: tuple[Change, ...]
    same: int
    undecidable: tuple[PastCall, ...]
    """Calls whose arguments were not kept."""


def simulate(calls: Iterable[PastCall], law: Law) -> Simulation:
    """Decide past calls, oldest first, under another law; rates count what that law would have let pass."""
    changed: list[Change] = []
    undecidable: list[PastCall] = []
    same = 0
    rates = _Rates()
    for call in calls:
        if call.arguments is None:
            undecidable.append(call)
            continue
        facts = replace(call.facts or Facts(at=call.at), at=call.at, calls_last_minute=rates.at(call.at))
        decision = judge(law, call.tool, call.arguments, facts, tainted=call.tainted)
        rates.note(decision, call.at)
        if decision.verdict == call.verdict:
            same += 1
        else:
            changed.append(Change(call=call, decision=decision))
    return Simulation(changed=tuple(changed), same=same, undecidable=tuple(undecidable))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadowed:
    """A decision that holds, and beside it what a law on trial would have said."""

    enforced: Decision
    shadow: Decision

    @property
    def differs(self) -> bool:
        """Tell whether the law on trial would have changed the verdict."""
        return self.enforced.verdict != self.shadow.verdict


def judge_in_shadow(
    law: Law, trial: Law, tool: str, arguments: Mapping[str, object], facts: Facts, *, tainted: bool = False
) -> Shadowed:
    """Decide under ``law``, and record what ``trial`` would have decided. Only the first has any effect."""
    return Shadowed(
        enforced=judge(law, tool, arguments, facts, tainted=tainted),
        shadow=judge(trial, tool, arguments, facts, tainted=tainted),
    )


class _Rates:
    """How many calls each rule let pass within the last minute."""

    def __init__(self) -> None:
        self._times: dict[str, deque[datetime]] = {}

    def at(self, now: datetime) -> dict[str, int]:
        oldest = now - timedelta(seconds=RATE_WINDOW_S)
        for times in self._times.values():
            while times and times[0] <= oldest:
                times.popleft()
        return {rule: len(times) for rule, times in self._times.items()}

    def note(self, decision: Decision, at: datetime) -> None:
        if isinstance(decision, Allowed):
            for rule in set(decision.rules):
                self._times.setdefault(rule, deque()).append(at)


def _network(law: Law, needs: Needs, facts: Facts) -> Denied | None:
    for host, port in needs.endpoints:
        place = endpoint(host, port)
        acts = (Act(domain="net", action="connect", subject=place), Act(domain="net", action="fetch", subject=host))
        if denied := law.rules.forbids(acts, facts):
            return denied
        if reaches(law.network.policy, law.network.allowlist, host=host, port=port) is None:
            return _denied(
                NETWORK_RULE,
                "network_denied",
                f"network policy denies outbound to {place}",
                f"add {place} to spec.network.allowlist",
            )
    return None


def _budget(law: Law, tool: Tool, facts: Facts) -> Denied | None:
    over = would_exceed(law.budget, facts.spent, cost_micros=tool.estimated_cost_micros)
    if over is None:
        return None
    return _denied(BUDGET_RULE, "budget_exceeded", f"the budget does not allow it: {over}", "raise the agent's budget")


def _denied(rule: str, code: str, reason: str, resolution: str) -> Denied:
    return Denied(rule=rule, code=code, reason=reason, resolution=resolution)

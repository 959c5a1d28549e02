"""Agents as they go over the wire."""

from typing import Annotated

from msgspec import Meta, Struct

from borough.core.clock import rfc3339, utc_now
from borough.governance.agents import GovernedAgent
from borough.governance.budgets import Limits, Spent, from_micros
from borough.governance.courses import Course
from borough.governance.manifests import Manifest
from borough.governance.ports.confinement import Enforcement
from borough.governance.services.agents import AgentDetails
from borough.governance.services.endings import LIVE
from borough.governance.services.hierarchy import Branch
from borough.http.governance.common import moment


class AgentSummary(Struct, kw_only=True):
    """One agent of a list."""

    id: str
    name: str
    state: str
    """``Init``, ``Plan``, ``Act``, ``Observe`` or ``Terminate``."""
    trust_level: str
    version: str
    status: str
    """How the run stands: ``running``, ``paused``, ``succeeded``, ``failed`` or ``killed``."""
    run_id: str
    parent_id: str | None
    spawned_at: str
    uptime_secs: int


class Resources(Struct, kw_only=True):
    """The most that the agent's processes may use; ``null`` is the host's default."""

    memory_limit_bytes: int | None
    cpu_shares: int
    max_open_files: int | None
    max_processes: int | None


class NetworkRules(Struct, kw_only=True):
    policy: str
    allowlist: list[str]


class EnforcementReport(Struct, kw_only=True):
    """What really holds for the agent on this host."""

    backend: str
    layers: dict[str, bool]
    reasons: dict[str, str]
    """Why a layer does not hold."""


class Amounts(Struct, kw_only=True):
    """What may be used, or was; ``null`` is no limit. ``cost`` is in the unit that tools are priced in."""

    calls: int | None = None
    tokens: int | None = None
    cost: float | None = None
    wall_time_secs: int | None = None


class PlannedStep(Struct, kw_only=True, forbid_unknown_fields=True):
    description: Annotated[str, Meta(min_length=1, max_length=4096)]
    tool: Annotated[str, Meta(max_length=256)] | None = None


class AgentInfo(AgentSummary, kw_only=True):
    """All that is known of an agent."""

    description: str | None
    manifest_digest: str
    capabilities: list[str]
    depth: int
    run_started_at: str
    ended_at: str | None
    resources: Resources
    network: NetworkRules
    task: str | None
    model: str | None
    tainted: bool
    cost_total: float
    budget: Amounts
    spent: Amounts
    priority: int
    deadline: str | None
    restart_policy: str
    restarts: int
    restart_at: str | None
    """When the next run begins, where one follows."""
    exit_code: int | None
    last_error: str | None
    has_process: bool
    plan: list[PlannedStep]
    pending_approvals: int
    enforcement: EnforcementReport | None
    """``null`` for an agent that ended before the daemon was started."""


class HierarchyNode(Struct, kw_only=True):
    id: str
    name: str
    state: str
    trust_level: str
    status: str
    children: list["HierarchyNode"]


def summary_fields(agent: GovernedAgent) -> dict[str, object]:
    """Return what lists show of an agent."""
    until = utc_now() if agent.status in LIVE or agent.ended_at is None else agent.ended_at
    return {
        "id": agent.id,
        "name": agent.name,
        "state": agent.phase.value,
        "trust_level": agent.trust_level.value,
        "version": agent.version,
        "status": agent.status.value,
        "run_id": agent.run_id,
        "parent_id": agent.parent_id,
        "spawned_at": rfc3339(agent.spawned_at),
        "uptime_secs": max(0, int((until - agent.run_started_at).total_seconds())),
    }


def summary(agent: GovernedAgent) -> AgentSummary:
    """Return an agent of a list."""
    return AgentSummary(**summary_fields(agent))  # type: ignore[arg-type] # by name, from the one place that has them


def info(details: AgentDetails) -> AgentInfo:
    """Return all that is known of an agent."""
    agent, manifest, course = details.agent, details.manifest, details.course
    return AgentInfo(
        **summary_fields(agent),  # type: ignore[arg-type] # by name, from the one place that has them
        description=manifest.description,
        manifest_digest=agent.manifest_digest,
        capabilities=[str(capability) for capability in manifest.capabilities],
        depth=agent.depth,
        run_started_at=rfc3339(agent.run_started_at),
        ended_at=moment(agent.ended_at),
        resources=_resources(manifest),
        network=_network(manifest),
        task=agent.task,
        model=agent.model,
        tainted=agent.tainted,
        cost_total=from_micros(details.spent.cost_micros),
        budget=limits(agent.budget),
        spent=spent(details.spent),
        priority=course.priority,
        deadline=moment(course.deadline),
        restart_policy=manifest.lifecycle.restart_policy.value,
        restarts=agent.restarts,
        restart_at=moment(course.restart_at),
        exit_code=agent.exit_code,
        last_error=agent.last_error,
        has_process=details.has_process,
        plan=plan_steps(course),
        pending_approvals=details.pending_approvals,
        enforcement=None if details.enforcement is None else enforcement(details.enforcement),
    )


def limits(of: Limits) -> Amounts:
    """Return a budget."""
    cost = None if of.cost_micros is None else from_micros(of.cost_micros)
    return Amounts(calls=of.calls, tokens=of.tokens, cost=cost, wall_time_secs=of.wall_time_s)


def spent(of: Spent) -> Amounts:
    """Return what was used."""
    return Amounts(calls=of.calls, tokens=of.tokens, cost=from_micros(of.cost_micros), wall_time_secs=of.wall_time_s)


def enforcement(of: Enforcement) -> EnforcementReport:
    """Return what holds."""
    return EnforcementReport(
        backend=of.backend,
        layers={layer.value: holds for layer, holds in of.layers.items()},
        reasons={layer.value: reason for layer, reason in of.reasons.items()},
    )


def plan_steps(course: Course) -> list[PlannedStep]:
    """Return the steps of a plan, none when there is no plan."""
    steps = () if course.plan is None else course.plan.steps
    return [PlannedStep(description=step.description, tool=step.tool) for step in steps]


def node(branch: Branch) -> HierarchyNode:
    """Return an agent with those below it."""
    agent = branch.agent
    return HierarchyNode(
        id=agent.id,
        name=agent.name,
        state=agent.phase.value,
        trust_level=agent.trust_level.value,
        status=agent.status.value,
        children=[node(child) for child in branch.children],
    )


def _resources(manifest: Manifest) -> Resources:
    of = manifest.resources
    return Resources(
        memory_limit_bytes=of.memory_limit_bytes,
        cpu_shares=of.cpu_shares,
        max_open_files=of.max_open_files,
        max_processes=of.max_processes,
    )


def _network(manifest: Manifest) -> NetworkRules:
    return NetworkRules(
        policy=manifest.network.policy.value, allowlist=[str(line) for line in manifest.network.allowlist]
    )

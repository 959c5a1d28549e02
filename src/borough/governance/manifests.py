"""Manifests: what an agent is, what it may do, and how it is run. Everything enforced is derived from this value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from borough.governance.budgets import UNLIMITED, Limits
from borough.governance.capabilities import Capability
from borough.governance.globs import Glob
from borough.governance.hosts import AllowedEndpoint, NetworkPolicy
from borough.governance.lifecycle import NO_RESTARTS, Lifecycle
from borough.governance.rules import Effect, Rule
from borough.governance.trust import TrustLevel

API_VERSION = "scarab/v1"
KIND = "AgentManifest"
DEFAULT_CPU_SHARES = 100
DEFAULT_SNAPSHOT_INTERVAL_S = 300


class Runtime(StrEnum):
    """What runs the agent's code."""

    RUST = "rust"
    """A program of its own; ``native`` is another word for it."""
    PYTHON = "python"
    NODE = "node"


class ModelPolicy(StrEnum):
    """How a model is chosen when a call names none."""

    EXPLICIT = "explicit"
    CHEAPEST = "cheapest"
    FASTEST = "fastest"
    MOST_CAPABLE = "most_capable"


class PlanMode(StrEnum):
    """Whether a declared plan binds."""

    ADVISORY = "advisory"
    STRICT = "strict"


class Transport(StrEnum):
    """How an MCP server is spoken to."""

    STDIO = "stdio"
    HTTP = "http"


class Layer(StrEnum):
    """A layer of confinement that a manifest may require."""

    NAMESPACES = "namespaces"
    NO_NEW_PRIVS = "no_new_privs"
    SECCOMP = "seccomp"
    LANDLOCK = "landlock"
    RLIMITS = "rlimits"
    CGROUPS = "cgroups"
    EGRESS_PROXY = "egress_proxy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The most that the agent's processes may use together; ``None`` is the host's default."""

    memory_limit_bytes: int | None = None
    cpu_shares: int = DEFAULT_CPU_SHARES
    max_open_files: int | None = None
    max_processes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Where the agent may connect."""

    policy: NetworkPolicy = NetworkPolicy.NONE
    allowlist: tuple[AllowedEndpoint, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """The agent's files, and what happens to them by itself."""

    base: str | None = None
    """A folder that the agent finds in its workspace and that it never changes; relative to the manifest's own."""
    auto_snapshot: bool = False
    snapshot_interval_s: int = DEFAULT_SNAPSHOT_INTERVAL_S


class MatcherType(StrEnum):
    """Which agents a secret policy speaks of."""

    ANY = "any"
    BY_ID = "by_id"
    BY_NAME_GLOB = "by_name_glob"
    BY_TRUST_LEVEL = "by_trust_level"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentMatcher:
    """Agents: all, one, those of a name, or those of at least a trust level."""

    type: MatcherType = MatcherType.ANY
    id: str | None = None
    pattern: Glob | None = None
    level: TrustLevel | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRule:
    """Which secrets may be used by which tool towards which host without asking again."""

    label: str
    secret: Glob
    tool: Glob
    host: Glob | None = None
    expires_at: datetime | None = None
    max_uses: int | None = None
    agents: AgentMatcher = field(default_factory=AgentMatcher)


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServer:
    """A server whose tools are attached at start."""

    name: str
    transport: Transport
    command: str | None = None
    args: tuple[str, ...] = ()
    url: str | None = None
    env_template: tuple[tuple[str, str], ...] = ()
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is started. Neither command nor entrypoint: what was installed with the manifest, or nothing at all."""

    runtime: Runtime = Runtime.RUST
    command: str | None = None
    args: tuple[str, ...] = ()
    entrypoint: str | None = None
    packages: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A whole manifest, checked."""

    name: str
    version: str
    trust_level: TrustLevel
    description: str | None = None
    capabilities: tuple[Capability, ...] = ()
    policy: tuple[Rule, ...] = ()
    """Rules with conditions, prohibitions and approvals, beyond the plain capabilities."""
    task: str | None = None
    model: str | None = None
    model_policy: ModelPolicy = ModelPolicy.EXPLICIT
    program: Program = field(default_factory=Program)
    resources: Resources = field(default_factory=Resources)
    network: Network = field(default_factory=Network)
    lifecycle: Lifecycle = NO_RESTARTS
    secret_policy: tuple[SecretRule, ...] = ()
    mcp_servers: tuple[McpServer, ...] = ()
    workspace: Workspace = field(default_factory=Workspace)
    plan_mode: PlanMode = PlanMode.ADVISORY
    budget: Limits = UNLIMITED
    require: frozenset[Layer] = frozenset()
    """Layers without which the agent is not started."""

    def rules(self) -> tuple[Rule, ...]:
        """Return everything that decides about this agent's acts, in the manifest's order."""
        plain = tuple(
            Rule(id=f"spec.capabilities[{number}]", effect=Effect.ALLOW, capability=capability)
            for number, capability in enumerate(self.capabilities)
        )
        return plain + self.policy

    def held(self) -> tuple[Capability, ...]:
        """Return the capabilities that may be passed on to children: the plain ones only, as they hold always."""
        return self.capabilities

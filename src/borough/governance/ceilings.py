"""Ceilings: the most that an agent of each trust level may hold, whoever wants to give it more.

The level of a capability is the lowest that may hold it. A grant and a manifest are checked against the same table.
"""

from borough.core.errors import Forbidden
from borough.governance.capabilities import Capability
from borough.governance.globs import Glob, compile_glob
from borough.governance.hosts import NetworkPolicy
from borough.governance.trust import TrustLevel

_U, _S, _T, _P = TrustLevel

LEVELS: dict[tuple[str, str], TrustLevel] = {
    ("agent", "discover"): _S,
    ("agent", "grant"): _T,
    ("agent", "spawn"): _T,
    ("agent", "terminate"): _T,
    ("api", "admin"): _P,
    ("audit", "read"): _P,
    ("bb", "read"): _S,
    ("bb", "write"): _S,
    ("bus", "publish"): _S,
    ("bus", "subscribe"): _S,
    ("fs", "delete"): _S,
    ("fs", "list"): _S,
    ("fs", "read"): _S,
    ("fs", "write"): _S,
    ("memory", "*"): _U,
    ("memory", "read"): _U,
    ("memory", "write"): _U,
    ("net", "connect"): _S,
    ("net", "fetch"): _T,
    ("net", "local"): _T,
    ("obs", "*"): _U,
    ("obs", "append"): _U,
    ("obs", "query"): _U,
    ("sandbox", "exec"): _T,
    ("secret", "use"): _S,
    ("tool", "invoke"): _S,
    ("tool", "propose"): _T,
    ("workspace", "commit"): _S,
    ("workspace", "diff"): _S,
    ("workspace", "rollback"): _S,
    ("workspace", "snapshot"): _S,
}
"""The level for a capability that is confined by a scope, or needs none. Other wildcards are for the privileged."""

UNCONFINED_LEVELS: dict[tuple[str, str], TrustLevel] = {
    ("fs", "delete"): _T,
    ("fs", "write"): _T,
    ("net", "connect"): _T,
    ("secret", "use"): _P,
}
"""The level when the scope is missing or leaves nothing out."""

NETWORK_CEILINGS: dict[TrustLevel, frozenset[NetworkPolicy]] = {
    _U: frozenset({NetworkPolicy.NONE}),
    _S: frozenset({NetworkPolicy.NONE, NetworkPolicy.ALLOWLIST}),
    _T: frozenset(NetworkPolicy),
    _P: frozenset(NetworkPolicy),
}
"""The network policies that an agent of each level may declare."""

_HARMLESS_TOOLS = frozenset({"echo", "agent.info"})
"""Tools that anybody may be given."""

_EVERY_PATH = compile_glob("/**")
_EVERY_NAME = compile_glob("*")
_EVERY_HOST = compile_glob("*:443")


def level_of(capability: Capability) -> TrustLevel:
    """Return the lowest trust level that may hold ``capability``."""
    pair = (capability.domain, capability.action)
    if pair == ("tool", "invoke"):
        harmless = capability.scope is not None and capability.scope.pattern in _HARMLESS_TOOLS
        return _U if harmless else _S
    confined = LEVELS.get(pair, _P)
    return UNCONFINED_LEVELS.get(pair, confined) if _is_unconfined(capability.domain, capability.scope) else confined


def within_ceiling(capability: Capability, trust: TrustLevel) -> bool:
    """Tell whether an agent of level ``trust`` may hold ``capability``."""
    return trust.at_least(level_of(capability))


def check_ceiling(capability: Capability, trust: TrustLevel) -> None:
    """Let ``capability`` pass if an agent of level ``trust`` may hold it.

    Raises:
        Forbidden: it may not (``over_ceiling``).
    """
    if not within_ceiling(capability, trust):
        raise Forbidden(
            f"{capability} is above what an agent of trust level {trust.value} may hold",
            code="over_ceiling",
            reason=f"it takes trust level {level_of(capability).value}",
            resolution="narrow its scope, or raise the agent's trust level in its manifest",
        )


def _is_unconfined(domain: str, scope: Glob | None) -> bool:
    if scope is None:
        return True
    if domain == "net":
        # A pattern that fits every host is no confinement, whatever port it names.
        return scope.pattern.rpartition(":")[0].strip("*") == "" or scope.covers(_EVERY_HOST)
    return scope.covers(_EVERY_PATH if domain == "fs" else _EVERY_NAME)

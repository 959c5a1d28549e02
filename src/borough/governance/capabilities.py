"""Capabilities: ``<domain>.<action>[:<scope>]``, and when one covers an act or another capability.

Without a scope a capability is unrestricted within its action; a scoped one never covers an act that has no
subject. What is not covered is denied.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from borough.core.errors import Forbidden, Invalid
from borough.governance.globs import TOPIC_SEPARATORS, Glob, compile_glob
from borough.governance.hosts import canonical_endpoint
from borough.governance.paths import is_canonical

LONGEST_CAPABILITY = 1024
"""Characters."""

ACTIONS: dict[str, frozenset[str]] = {
    "agent": frozenset({"spawn", "discover", "terminate", "grant"}),
    "api": frozenset({"admin"}),
    "audit": frozenset({"read"}),
    "bb": frozenset({"read", "write"}),
    "bus": frozenset({"publish", "subscribe"}),
    "fs": frozenset({"read", "write", "list", "delete"}),
    "memory": frozenset({"read", "write"}),
    "net": frozenset({"connect", "local", "fetch"}),
    "obs": frozenset({"append", "query"}),
    "sandbox": frozenset({"exec"}),
    "secret": frozenset({"use"}),
    "tool": frozenset({"invoke", "propose"}),
    "workspace": frozenset({"snapshot", "diff", "rollback", "commit"}),
}
"""Every act that a capability can allow. Another word is refused: a deny rule with a typo would protect nothing."""

_WORD = re.compile(r"[a-z][a-z0-9_-]*|\*")
_MCP_ALIAS = re.compile(r"mcp\.[A-Za-z0-9._*-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One concrete thing that somebody wants to do: an action, and to what."""

    domain: str
    action: str
    subject: str | None = None
    """In its canonical spelling: a path, ``host:port``, a tool, a key, a topic, a name."""

    def __str__(self) -> str:
        """Return the act as a capability that covers just it is written."""
        return f"{self.domain}.{self.action}" + ("" if self.subject is None else f":{self.subject}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """One permission (or, in a deny rule, one prohibition)."""

    domain: str
    action: str
    scope: Glob | None = None

    def __str__(self) -> str:
        """Return the canonical spelling; parsing it gives this capability again."""
        return f"{self.domain}.{self.action}" + ("" if self.scope is None else f":{self.scope.pattern}")

    def allows(self, act: Act) -> bool:
        """Tell whether ``act`` lies within this capability."""
        if self.domain not in ("*", act.domain) or self.action not in ("*", act.action):
            return False
        return self.scope is None or (act.subject is not None and self.scope.matches(act.subject))

    def touches(self, act: Act) -> bool:
        """Tell whether a prohibition of this forbids ``act``: also an act on everything, if any part is forbidden."""
        if self.domain not in ("*", act.domain) or self.action not in ("*", act.action):
            return False
        return self.scope is None or act.subject is None or self.scope.matches(act.subject)

    def covers(self, other: "Capability") -> bool:
        """Tell whether everything that ``other`` allows is allowed by this one."""
        if self.domain not in ("*", other.domain) or self.action not in ("*", other.action):
            return False
        if self.scope is None:
            return True
        return other.scope is not None and self.scope.covers(other.scope)


@lru_cache(maxsize=4096)
def parse_capability(text: str) -> Capability:
    """Return the capability that ``text`` says.

    ``mcp.<server>.<tool>`` means ``tool.invoke:mcp.<server>.<tool>``; ``tool.invoke:sandbox.exec`` means
    ``sandbox.exec``; ``net.connect`` to a host without a port means any port.

    Raises:
        Invalid: it says none (``invalid_capability``); the resolution names the nearest that does.
    """
    if len(text) > LONGEST_CAPABILITY or not text.isprintable():
        raise _refused(text, f"it has unprintable characters or more than {LONGEST_CAPABILITY}")
    if text == "tool.invoke:sandbox.exec":
        return Capability(domain="sandbox", action="exec")
    if _MCP_ALIAS.fullmatch(text):
        return Capability(domain="tool", action="invoke", scope=compile_glob(text))
    head, colon, scope = text.partition(":")
    domain, _, action = head.partition(".")
    if not (_WORD.fullmatch(domain) and _WORD.fullmatch(action)):
        raise _refused(text, "it has to read domain.action or domain.action:scope")
    if colon and not scope:
        raise _refused(text, "its scope is empty", f"write {head} alone if it is to hold for everything")
    _check_known(text, domain, action)
    if not colon:
        return Capability(domain=domain, action=action)
    return Capability(domain=domain, action=action, scope=_scope(text, domain, action, scope))


def is_alias(text: str) -> bool:
    """Tell whether ``text`` is accepted only as another spelling of a capability."""
    return text == "tool.invoke:sandbox.exec" or _MCP_ALIAS.fullmatch(text) is not None


def check_attenuation(narrower: Iterable[Capability], held: Iterable[Capability]) -> None:
    """Let ``narrower`` pass if it allows nothing that ``held`` does not.

    Raises:
        Forbidden: it does (``capability_escalation_denied``).
    """
    wide = tuple(held)
    for capability in narrower:
        if not any(one.covers(capability) for one in wide):
            raise Forbidden(
                "capability escalation denied",
                code="capability_escalation_denied",
                reason=f"no held capability covers {capability}",
                resolution="ask for a part of what the caller itself holds",
            )


def _check_known(text: str, domain: str, action: str) -> None:
    if domain != "*" and domain not in ACTIONS:
        near = difflib.get_close_matches(domain, ACTIONS, n=1)
        raise _refused(text, f"there is no domain {domain!r}", f"did you mean {near[0]!r}?" if near else None)
    known = ACTIONS.get(domain, frozenset())
    if action != "*" and domain != "*" and action not in known:
        near = difflib.get_close_matches(action, known, n=1)
        raise _refused(
            text,
            f"there is no action {action!r} in {domain!r}",
            f"did you mean {domain}.{near[0]}?" if near else f"choose from {', '.join(sorted(known))}",
        )
    if domain == "*" and action != "*":
        raise _refused(text, "a wildcard domain goes with a wildcard action only", "write *.* or name the domain")


def _scope(text: str, domain: str, action: str, scope: str) -> Glob:
    # Actions of one domain may differ in what their scope means: only for files it is always a path.
    if "*" in (domain, action) and domain != "fs":
        raise _refused(text, "a wildcard action takes no scope here", "write one capability for each action")
    if domain == "fs" and not is_canonical(scope):
        raise _refused(
            text,
            "a path scope is absolute, without '..', '.', '//' or a trailing slash",
            "write it from the root, as in fs.read:/workspace/**",
        )
    if domain == "net" and action == "connect":
        return compile_glob(canonical_endpoint(scope))
    return compile_glob(scope, TOPIC_SEPARATORS if domain == "bus" else "/")


def _refused(text: str, reason: str, resolution: str | None = None) -> Invalid:
    return Invalid(
        f"{text[:200]!r} is not a capability",
        code="invalid_capability",
        reason=reason,
        resolution=resolution or "write it as in tool.invoke:fs.read or fs.read:/workspace/**",
    )

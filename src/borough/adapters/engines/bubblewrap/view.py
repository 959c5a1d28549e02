"""What of the host a box sees, besides the system's programs and its workspace: decided from the manifest alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from borough.governance.capabilities import Capability
from borough.governance.manifests import Manifest
from borough.governance.ports.workspaces import WORKSPACE
from borough.governance.rules import Effect
from borough.governance.trust import TrustLevel

NEVER_SEEN = ("/proc", "/sys", "/dev", "/run", "/var/run")
"""Of the host; /run because programs of the host listen there."""
NEVER_WRITTEN = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/boot", "/etc")
_SYSTEM = "/usr"
"""What every box sees of the host anyway."""
_OWN = (WORKSPACE, "/opt")
"""What the box has of its own; nothing of the host is shown in its place or in it."""
_OWN_ROOTS = ("/tmp", "/var/tmp", "/etc")  # noqa: S108 - the box's own, in memory
"""Of these, too, but single things of the host may be shown in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A path of the host that is in the box under the same name."""

    path: str
    writable: bool = False


def host_binds(manifest: Manifest, *, secret: Sequence[str]) -> tuple[Bind, ...]:
    """Return the paths of the host that are mounted into the agent's box, outer ones first.

    Those are the scopes of ``fs.read`` and, for trusted agents, ``fs.write`` that name a whole tree (``/srv/data/**``)
    or one file. A narrower pattern, or a tree with a prohibition in it, is open to the file tools only: a mount could
    not keep to it. ``secret`` are places that are never shown, nor is what holds them.
    """
    forbidden = [rule.capability for rule in manifest.policy if rule.effect is Effect.DENY]
    readable = _trees(manifest.capabilities, "read")
    writable = _trees(manifest.capabilities, "write") if manifest.trust_level.at_least(TrustLevel.TRUSTED) else set()
    writable = {
        path for path in writable if not overlaps(path, NEVER_WRITTEN) and not _closed(path, "write", forbidden)
    }
    hidden = (*NEVER_SEEN, *secret)
    return tuple(
        Bind(path=path, writable=path in writable)
        for path in sorted(readable | writable)
        if not overlaps(path, (*hidden, *_OWN, _SYSTEM))
        and not any(within(place, path) for place in _OWN_ROOTS)
        and not _closed(path, "read", forbidden)
    )


def readable(manifest: Manifest, *, secret: Sequence[str]) -> tuple[str, ...]:
    """Return the trees of the host outside of its workspace that an agent of any level may read through the tools."""
    forbidden = [rule.capability for rule in manifest.policy if rule.effect is Effect.DENY]
    of_system = {
        path
        for path in _trees(manifest.capabilities, "read")
        if within(path, _SYSTEM) and not _closed(path, "read", forbidden)
    }
    return tuple(sorted(of_system | {bind.path for bind in host_binds(manifest, secret=secret)}))


def overlaps(path: str, places: Iterable[str]) -> bool:
    """Tell whether ``path`` is one of ``places``, lies in one, or holds one."""
    return any(within(path, place) or within(place, path) for place in places)


def within(path: str, place: str) -> bool:
    """Tell whether ``path`` is ``place`` or lies beneath it."""
    return place in ("/", path) or path.startswith(f"{place}/")


def _trees(capabilities: Iterable[Capability], action: str) -> set[str]:
    """Return the whole trees and single paths that the capabilities name for ``fs.<action>``."""
    found = set()
    for capability in capabilities:
        if capability.domain == "fs" and capability.action == action and capability.scope is not None:
            pattern = capability.scope.pattern
            whole = pattern.removesuffix("/**")
            if "*" not in whole:
                found.add(whole or "/")
    return found


def _closed(path: str, action: str, forbidden: Iterable[Capability]) -> bool:
    """Tell whether a prohibition of ``fs.<action>`` may concern something at or beneath ``path``."""
    for capability in forbidden:
        if capability.domain not in ("*", "fs") or capability.action not in ("*", action):
            continue
        if capability.scope is None:
            return True
        anchor = capability.scope.anchor
        if anchor.startswith(path) or path.startswith(anchor):
            return True
    return False

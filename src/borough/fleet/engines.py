"""Engines: what makes a machine, under which names they are known, and what each can do."""

from dataclasses import dataclass, field
from enum import StrEnum

from borough.core.errors import Invalid


class Engine(StrEnum):
    """What makes a machine."""

    QEMU = "qemu"
    FIRECRACKER = "firecracker"
    BHYVE = "bhyve"
    DOCKER = "docker"
    JAIL = "jail"
    BUBBLEWRAP = "bubblewrap"


REFERENCE_ENGINES = frozenset(Engine) - {Engine.BUBBLEWRAP}
"""Those that clients of the reference's API know."""
ALIASES = {"kvm": Engine.QEMU, "fc": Engine.FIRECRACKER, "podman": Engine.DOCKER, "bwrap": Engine.BUBBLEWRAP}
"""Further names, on command lines only."""
DEFAULT_ENGINE = Engine.QEMU
"""Where the reference's API names none."""


class Capability(StrEnum):
    """What an engine on a host can really do; the planner reads it, and a request can insist on it."""

    PUBLISH_TCP = "publish_tcp"
    DENY_OUTGOING = "deny_outgoing"
    EGRESS_ALLOWLIST = "egress_allowlist"
    PRIVATE_NETWORK = "private_network"
    SSH_KEYS = "ssh_keys"
    EXEC = "exec"
    PTY = "pty"
    FILES = "files"
    LOGS = "logs"
    CONSOLE = "console"
    STATS = "stats"
    PAUSE = "pause"
    SNAPSHOT = "snapshot"
    SNAPSHOT_MEMORY = "snapshot_memory"
    CLONE = "clone"
    """Another machine can be made from a snapshot: from its disk, never from its memory."""
    DISK_LIMIT = "disk_limit"
    MEMORY_LIMIT = "memory_limit"
    CPU_LIMIT = "cpu_limit"
    KERNEL = "kernel"
    """A kernel of its own: the strongest isolation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An engine as one host has it."""

    engine: Engine
    version: str = ""
    capabilities: frozenset[Capability] = frozenset()
    reasons: dict[Capability, str] = field(default_factory=dict)
    """Why it cannot do what the engine could elsewhere."""
    acceleration: str | None = None
    """For machines with a kernel of their own: ``kvm`` or ``tcg``, found out by booting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """An engine that a host does not have, and why not."""

    engine: Engine
    reason: str


ISOLATION: dict[Engine, int] = {
    Engine.BUBBLEWRAP: 1,
    Engine.JAIL: 2,
    Engine.DOCKER: 2,
    Engine.BHYVE: 3,
    Engine.QEMU: 3,
    Engine.FIRECRACKER: 3,
}
"""How strong the wall is: processes, containers, kernels. What is asked for is a floor."""


def parse_engine(text: str) -> Engine:
    """Return the engine that a person means.

    Raises:
        Invalid: there is none of that name (``unknown_engine``).
    """
    word = text.strip().lower()
    if word in ALIASES:
        return ALIASES[word]
    try:
        return Engine(word)
    except ValueError:
        raise Invalid(
            f"there is no engine {text[:40]!r}",
            code="unknown_engine",
            resolution=f"choose from {', '.join(sorted(Engine))}",
        ) from None

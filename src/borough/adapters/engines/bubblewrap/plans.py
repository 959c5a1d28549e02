"""From an order for a box to what the keeper is asked for: everything that confines it, worked out in one place."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from borough.adapters import system_calls
from borough.adapters.engines.bubblewrap import argv, landlock, seccomp
from borough.adapters.engines.bubblewrap.argv import GID, SDK_ROOT, UID, BoxView, System
from borough.adapters.engines.bubblewrap.limits import resource_limits
from borough.adapters.engines.bubblewrap.settings import BoxSettings
from borough.adapters.engines.bubblewrap.view import Bind, host_binds
from borough.governance.capabilities import Act
from borough.governance.hosts import NetworkPolicy
from borough.governance.manifests import Manifest, Runtime
from borough.governance.ports.workspaces import WORKSPACE

PROXY = "http://127.0.0.1:3128"
_FIRST_UID = 1_879_048_192
_UIDS = 1 << 26
"""A range that systemd's documentation of users and groups leaves unused."""
_EXECUTE = Act(domain="sandbox", action="exec")


@dataclass(frozen=True, slots=True, kw_only=True)
class Private:
    """A private file in a box's memory."""

    path: str
    mode: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxOrder:
    """One program in one box."""

    box: str
    """A plain name, unique on this machine while the box lasts."""
    owner: str
    """The value of the marker that all its processes carry."""
    manifest: Manifest
    runtime: Runtime
    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    workspace: str
    """Where the keeper has it."""
    identity: tuple[int, int] | None
    programs: Sequence[str] = ()
    """Files of the host that are shown under their own names, since they are to be run."""
    extra: Sequence[tuple[str, str]] = ()
    """Paths of the host shown read-only elsewhere: source and target."""
    private: Sequence[Private] = ()
    lasts: bool
    at_once: bool
    """Whether the program is started as soon as the box stands; not where its network has to be opened first."""
    record: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What goes to the keeper; the descriptors are in memory, and closed by ``close``."""

    plan: int
    names: Sequence[str]
    descriptors: Sequence[int]

    def close(self) -> None:
        """Close them."""
        for descriptor in (self.plan, *self.descriptors):
            os.close(descriptor)


def identity_of(agent_id: str) -> tuple[int, int]:
    """Return the user and group of the host that an agent's boxes and files belong to, where root gives them one."""
    number = int.from_bytes(hashlib.sha256(agent_id.encode()).digest()[:4], "big") % _UIDS
    return _FIRST_UID + number, _FIRST_UID + number


def environment(manifest: Manifest, more: Mapping[str, str], *, sdk: bool) -> dict[str, str]:
    """Return the environment of a program in a box: little, the manifest's own, and ``more``, which wins."""
    found = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/tmp",  # noqa: S108 - the box's own, in memory
        "TMPDIR": "/tmp",  # noqa: S108 - as above
        "LANG": "C.UTF-8",
        "USER": "agent",
    }
    if sdk:
        found["PYTHONPATH"] = SDK_ROOT
    found |= manifest.program.env
    if has_way_out(manifest):
        # No exception for loopback: what a policy of the local network means by it is the host's, behind the proxy.
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            found |= {name: PROXY, name.lower(): PROXY}
    return found | dict(more)


def has_way_out(manifest: Manifest) -> bool:
    """Tell whether the agent may reach anything outside of its box."""
    return manifest.network.policy is not NetworkPolicy.NONE


def filters(manifest: Manifest) -> bytes:
    """Return the system call filter of an agent."""
    inet = has_way_out(manifest) or manifest.trust_level.rank > 0
    executes = any(capability.allows(_EXECUTE) for capability in manifest.capabilities)
    return seccomp.program(platform.machine(), manifest.trust_level, processes=executes, inet=inet)


def prepare(
    order: BoxOrder, settings: BoxSettings, system: System, *, staging: str, groups: Sequence[str], memory_group: bool,
    stdio: Mapping[str, int],
) -> Prepared:  # fmt: skip
    """Return what to send to the keeper for ``order``; ``stdio`` are descriptors, by what they are for."""
    binds = _binds(order, settings)
    sources = [bind.path for bind in binds] + [source for source, _ in order.extra]
    staged = [f"{staging}/b/{order.box}/{place}" for place in range(len(sources))]
    extra = [(where, target) for where, (_, target) in zip(staged[len(binds) :], order.extra, strict=True)]
    if settings.sdk is not None:
        extra.append((f"{staging}/sdk", f"{SDK_ROOT}/borough/agent"))
    view = BoxView(
        workspace=order.workspace,
        skeleton=f"{staging}/skeleton",
        binds=list(zip(staged, binds, strict=False)),
        extra=extra,
        private=[(private.path, private.mode) for private in order.private],
        tmp_bytes=settings.limits.tmp_bytes,
        shm_bytes=settings.limits.shm_bytes,
        hostname="box",
    )
    filtered = filters(order.manifest)
    # The holder starts no program and needs nothing; it is under the same filter as what it must not help.
    data = [seccomp.program(platform.machine(), order.manifest.trust_level, processes=True, inet=False)]
    data += [private.content for private in order.private]
    plan = _plan(
        order, settings, binds=binds, sources=sources, filtered=filtered, groups=groups, memory_group=memory_group
    )
    words = b"".join(word.encode() + b"\0" for word in argv.arguments(system, view))
    names = ["arguments", *(f"data{place}" for place in range(len(data))), *stdio]
    made = [_memory(words), *(_memory(content) for content in data), *(os.dup(given) for given in stdio.values())]
    return Prepared(plan=_memory(json.dumps(plan).encode()), names=names, descriptors=made)


def _binds(order: BoxOrder, settings: BoxSettings) -> list[Bind]:
    """Return what of the host the box shows; what is not there, or is reached through a link, is left out."""
    wanted = host_binds(order.manifest, secret=settings.hidden)
    named = {bind.path for bind in wanted}
    programs = tuple(Bind(path=path) for path in order.programs if path not in named)
    return [
        bind
        for bind in sorted((*wanted, *programs), key=lambda bind: bind.path)
        if Path(bind.path).exists() and os.path.realpath(bind.path) == bind.path
    ]


def _plan(
    order: BoxOrder,
    settings: BoxSettings,
    *,
    binds: Sequence[Bind],
    sources: Sequence[str],
    filtered: bytes,
    groups: Sequence[str],
    memory_group: bool,
) -> dict[str, object]:
    version = system_calls.landlock_version() if settings.use_landlock else 0
    shown = [(bind, Path(bind.path).is_dir()) for bind in binds]
    return {
        "box": order.box,
        "marker": {"BOROUGH_OWNER": order.owner, "PATH": "/usr/bin:/bin"},
        "identity": order.identity,
        "binds": [
            {"source": source, "writable": place < len(binds) and binds[place].writable}
            for place, source in enumerate(sources)
        ],
        "log_limit_bytes": settings.limits.log_bytes,
        "lasts": order.lasts,
        "at_once": order.at_once,
        "record": str(order.record),
        "entry": {
            "argv": list(order.argv),
            "env": {**order.env, "BOROUGH_OWNER": order.owner},
            "cwd": WORKSPACE,
            "uid": UID,
            "gid": GID,
            "limits": resource_limits(
                order.manifest.resources, settings.limits, order.runtime, memory_group=memory_group
            ),
            "groups": list(groups),
            "landlock": None
            if version == 0
            else {"attributes": landlock.attributes(version).hex(), "rules": landlock.rules(version, shown)},
            "seccomp": filtered.hex(),
        },
    }


def _memory(content: bytes) -> int:
    descriptor = os.memfd_create("borough", os.MFD_CLOEXEC)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor

"""Machines of every engine: what is asked for, what is kept, and how the state may change.

What is desired and what is found are two things: ``desired`` is what somebody asked for last, ``state`` is what the
host last said. ``UNKNOWN`` is a state of its own: a host that does not answer has not lost its machines.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Address
from typing import NewType

from borough.core.errors import Conflict, Invalid
from borough.fleet.addresses import guest_ports
from borough.fleet.engines import DEFAULT_ENGINE, Capability, Engine
from borough.fleet.names import check_name, check_reference
from borough.fleet.resources import Size
from borough.fleet.ssh_keys import check_keys

VmId = NewType("VmId", str)

DEFAULT_SIZE = Size(cpu=2, mem_mib=1024, disk_mib=40_960)
MOST_SIZE = 2**31 - 1
_VM_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{3}")


class VmState(StrEnum):
    """Where a machine stands."""

    CREATING = "creating"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    FAILED = "failed"
    DELETING = "deleting"
    UNKNOWN = "unknown"


REFERENCE_STATES: Mapping[VmState, VmState] = {
    VmState.DELETING: VmState.FAILED,
    VmState.UNKNOWN: VmState.FAILED,
}
"""What the reference's clients are told instead, where they know no better word."""

MOVES: Mapping[VmState, frozenset[VmState]] = {
    VmState.CREATING: frozenset({VmState.RUNNING, VmState.FAILED, VmState.DELETING, VmState.UNKNOWN, VmState.STOPPED}),
    VmState.RUNNING: frozenset({VmState.PAUSED, VmState.STOPPED, VmState.FAILED, VmState.DELETING, VmState.UNKNOWN}),
    VmState.PAUSED: frozenset({VmState.RUNNING, VmState.STOPPED, VmState.FAILED, VmState.DELETING, VmState.UNKNOWN}),
    VmState.STOPPED: frozenset({VmState.RUNNING, VmState.FAILED, VmState.DELETING, VmState.UNKNOWN}),
    VmState.FAILED: frozenset({VmState.RUNNING, VmState.STOPPED, VmState.DELETING, VmState.UNKNOWN}),
    VmState.DELETING: frozenset({VmState.DELETING}),
    VmState.UNKNOWN: frozenset(set(VmState) - {VmState.CREATING}),
}
"""Where a machine may go. What is being deleted never comes back; it leaves when its host has confirmed."""


class Action(StrEnum):
    """What can be asked of a machine that exists."""

    STOP = "stop"
    START = "start"
    PAUSE = "pause"
    DELETE = "delete"


GOALS: Mapping[Action, VmState] = {
    Action.STOP: VmState.STOPPED,
    Action.START: VmState.RUNNING,
    Action.PAUSE: VmState.PAUSED,
    Action.DELETE: VmState.DELETING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The snapshot of another machine from which one is made, instead of from its image."""

    vm_id: VmId
    snapshot: str
    host_id: str = ""
    """Where the snapshot is kept; to a host itself nothing has to be said of that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSpec:
    """One machine as it is asked for, with every default filled in."""

    image: str
    engine: Engine = DEFAULT_ENGINE
    size: Size = DEFAULT_SIZE
    ports: tuple[int, ...] = (22,)
    deny_outgoing: bool = False
    egress_allowlist: tuple[str, ...] = ()
    """``host:port`` that may be reached although outgoing traffic is denied."""
    ssh_keys: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    required: frozenset[Capability] = frozenset()
    """What the host has to be able to do, beyond what the other fields need anyway."""
    origin: Origin | None = None

    @property
    def needs(self) -> frozenset[Capability]:
        """Return what an engine must be able to do for this machine."""
        needs = set(self.required)
        if self.deny_outgoing:
            needs.add(Capability.DENY_OUTGOING)
        if self.egress_allowlist:
            needs.add(Capability.EGRESS_ALLOWLIST)
        if self.origin is not None:
            needs.add(Capability.CLONE)
        return frozenset(needs)


def vm_spec(
    *,
    image: str,
    engine: Engine,
    cpu: int | None = None,
    mem_mib: int | None = None,
    disk_mib: int | None = None,
    ports: tuple[int, ...] = (),
    ssh_keys: tuple[str, ...] = (),
    deny_outgoing: bool = False,
    egress_allowlist: tuple[str, ...] = (),
    command: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
    required: frozenset[Capability] = frozenset(),
    origin: Origin | None = None,
) -> VmSpec:
    """Return a machine as it is asked for; ``None`` stands for the default size.

    Raises:
        Invalid: a name (``invalid_name``), size (``invalid_size``), port (``invalid_port``) or key
            (``invalid_ssh_key``) is none.
    """
    if engine is Engine.DOCKER:
        check_reference(image)
    else:
        check_name(image, what="an image")
    return VmSpec(
        image=image,
        engine=engine,
        size=Size(
            cpu=_sized("cpu", cpu, DEFAULT_SIZE.cpu),
            mem_mib=_sized("mem", mem_mib, DEFAULT_SIZE.mem_mib),
            disk_mib=_sized("disk", disk_mib, DEFAULT_SIZE.disk_mib),
        ),
        ports=guest_ports(ports),
        deny_outgoing=deny_outgoing,
        egress_allowlist=egress_allowlist,
        ssh_keys=check_keys(ssh_keys),
        command=command,
        env=dict(env or {}),
        required=required,
        origin=origin,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm:
    """A machine as it is kept. The row is there before anything of the machine is."""

    id: VmId
    env_id: str
    host_id: str
    spec: VmSpec
    state: VmState
    desired: VmState
    created_at: datetime
    ip: IPv4Address | None = None
    port_map: Mapping[int, int] = field(default_factory=dict)
    """Guest port → host port."""
    error: str | None = None
    """Why it is not as it should be."""
    since: datetime | None = None
    """Since when it is in its state."""
    disk_enforced: bool = True
    revision: int = 0
    """Rises with each change; a change that was prepared on an older one is refused."""

    @property
    def runs(self) -> bool:
        """Tell whether it takes processor and memory: everything counts that may still run, or is to run again."""
        return self.state is not VmState.STOPPED or self.desired is VmState.RUNNING


def is_troubled(vm: Vm) -> bool:
    """Tell whether a machine is not as it should be: it failed, nobody knows how it is, or it was to go and did not."""
    lost = vm.state in (VmState.FAILED, VmState.UNKNOWN)
    return lost or (vm.state is VmState.DELETING and vm.error is not None)


def vm_id_of(random_text: str) -> VmId:
    """Return the id of a machine: the first twelve characters of a random UUID.

    Raises:
        ValueError: ``random_text`` is no lower-case UUID.
    """
    return VmId(check_vm_id(random_text[:12]))


def check_vm_id(text: str) -> VmId:
    """Return ``text`` as a machine's id; raises ``ValueError``."""
    if not _VM_ID.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a machine's id")
    return VmId(text)


def check_move(vm: Vm, to: VmState) -> VmState:
    """Return ``to`` if the machine may go there; where it is already it may stay.

    Raises:
        Conflict: it may not (``illegal_state``).
    """
    if to is not vm.state and to not in MOVES[vm.state]:
        raise Conflict(
            f"a machine that is {vm.state.value} cannot become {to.value}",
            code="illegal_state",
            reason=vm.error,
            resolution="wait until it is there, or delete it" if vm.state is VmState.CREATING else "read its state",
        )
    return to


def _sized(what: str, given: int | None, default: int) -> int:
    if given is None:
        return default
    if not 0 < given <= MOST_SIZE:
        raise Invalid(
            f"{what} cannot be {given}",
            code="invalid_size",
            resolution=f"give {what} a number from 1, or leave it out for {default}",
        )
    return given

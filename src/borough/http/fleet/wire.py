"""What goes over the fleet's wire. The reference's members come first, in its order; ours follow and may be absent.

Memory and disk are in MiB, moments in seconds since the epoch, lifetimes in seconds, all as in the reference.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Count = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Port = Annotated[int, Meta(ge=0, le=65_535)]

EngineName = Literal["qemu", "firecracker", "bhyve", "docker", "jail", "bubblewrap"]


class VmSpec(Struct, kw_only=True):
    """One machine as it is asked for."""

    image: str
    engine: EngineName = "qemu"
    cpu: Count | None = None
    mem: Count | None = None
    disk: Count | None = None
    ports: list[Port] = []
    deny_outgoing: bool = False
    ssh_keys: list[str] = []
    egress_allowlist: list[str] = []
    """``host:port``, ``*.host:port`` or ``CIDR:port``: what alone may be reached, by the proxy of its variables."""
    command: list[str] = []
    env: dict[str, str] = {}
    required: list[str] = []
    """Capabilities that the host's engine must have."""


class Placing(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What an environment wants of its hosts."""

    spread: Literal["pack", "spread"] = "pack"
    labels: dict[str, str] = {}
    near: list[str] = []
    apart: list[str] = []
    isolation: Annotated[int, Meta(ge=0, le=3)] = 0


class Source(Struct, kw_only=True, forbid_unknown_fields=True):
    """A snapshot from which machines are made: of one machine, or of every machine of an environment."""

    snapshot: str
    vm_id: str | None = None
    env_id: str | None = None
    copies: Annotated[int, Meta(ge=1, le=1000)] = 1
    """How many of each."""
    env: dict[str, str] = {}
    """Their variables; those of the first are not carried over, and neither are its keys."""


class Origin(Struct, kw_only=True):
    """The snapshot from which a machine was made."""

    vm_id: str
    snapshot: str


class CreateEnv(Struct, kw_only=True):
    """An environment as it is asked for."""

    id: str
    ssh_keys: list[str]
    vms: list[VmSpec]
    owner: str = ""
    lifetime: Annotated[int, Meta(ge=0)] | None = None
    labels: dict[str, str] = {}
    on_expiry: Literal["delete", "stop"] = "delete"
    placing: Placing = Placing()
    private_network: bool = False
    wait_for_capacity: Annotated[int, Meta(ge=1, le=86_400)] | None = None
    """For so many seconds it may wait for room, in the order of asking; else it is refused where there is none."""
    source: Source | None = None
    """Make the machines from a snapshot; then ``vms`` is empty."""


class ChangeEnv(Struct, kw_only=True, forbid_unknown_fields=True):
    """What is to be otherwise; a lifetime counts from now."""

    lifetime: Annotated[int, Meta(ge=0)] | None = None
    owner: Annotated[str, Meta(max_length=128)] | None = None
    labels: dict[str, str] | None = None
    on_expiry: Literal["delete", "stop"] | None = None


class RegisterHost(Struct, kw_only=True):
    """A host as it is registered."""

    addr: str
    token: Annotated[str, Meta(max_length=256)] | None = None
    """Its join token, where it has one; else it is spoken to with the fleet's key."""


class Labels(Struct, kw_only=True, forbid_unknown_fields=True):
    """What a host is."""

    labels: dict[str, str]


class Resource(Struct, kw_only=True):
    """What a host has, and what of it is promised."""

    cpu_total: int
    cpu_used: int
    mem_total: int
    mem_used: int
    disk_total: int
    disk_used: int
    vm_count: int


class Offer(Struct, kw_only=True):
    """An engine as a host has it."""

    engine: str
    version: str
    capabilities: list[str]
    reasons: dict[str, str]
    """Capability → why it is lacking there."""
    acceleration: str | UnsetType = UNSET


class Pressure(Struct, kw_only=True):
    """How a host feels: percent of the last ten seconds in which work waited."""

    memory_some_avg10: float
    cpu_some_avg10: float
    io_some_avg10: float
    memory_available_mib: int | UnsetType = UNSET
    disk_free_mib: int | UnsetType = UNSET


class Host(Struct, kw_only=True):
    """A host."""

    id: str
    addr: str
    resource: Resource
    state: str
    engines: list[str]
    storage: str
    registered_at: int
    heard_at: int | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET
    cordoned: bool | UnsetType = UNSET
    draining: bool | UnsetType = UNSET
    error: str | UnsetType = UNSET
    offers: list[Offer] | UnsetType = UNSET
    images: list[str] | UnsetType = UNSET
    pressure: Pressure | UnsetType = UNSET
    warnings: list[str] | UnsetType = UNSET


class Vm(Struct, kw_only=True):
    """A machine."""

    id: str
    env_id: str
    host_id: str
    image: str
    engine: str
    cpu: int
    mem: int
    disk: int
    ip: str
    port_map: dict[int, int]
    state: str
    created_at: int
    desired: str | UnsetType = UNSET
    since: int | UnsetType = UNSET
    error: str | UnsetType = UNSET
    disk_limit: Literal["enforced", "advisory"] | UnsetType = UNSET
    deny_outgoing: bool | UnsetType = UNSET
    egress_allowlist: list[str] | UnsetType = UNSET
    origin: Origin | UnsetType = UNSET


class CreatedVm(Struct, kw_only=True):
    """The machine that a host made."""

    vm: Vm


class Env(Struct, kw_only=True):
    """An environment."""

    id: str
    owner: str
    vm_ids: list[str]
    created_at: int
    expires_at: int
    state: str
    on_expiry: str | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET
    private_network: bool | UnsetType = UNSET


class EnvDetail(Struct, kw_only=True):
    """An environment with its machines."""

    env: Env
    vms: list[Vm]
    warnings: list[str] | UnsetType = UNSET
    operation_id: str | UnsetType = UNSET


class Image(Struct, kw_only=True):
    """An image on a host."""

    name: str
    host_id: str
    digest: str | UnsetType = UNSET


class Status(Struct, kw_only=True):
    """Sums over the hosts that are there."""

    hosts: int
    hosts_online: int
    total_vms: int
    total_envs: int
    cpu_total: int
    cpu_used: int
    mem_total: int
    mem_used: int
    disk_total: int
    disk_used: int


class PlacedVm(Struct, kw_only=True):
    """Where a machine would go, and why nowhere else."""

    image: str
    engine: str
    host_id: str
    why: str
    others: dict[str, str]


class Preview(Struct, kw_only=True):
    """What would be done; nothing is."""

    placed: list[PlacedVm]
    refused: str | UnsetType = UNSET
    """Why it cannot be done."""
    number: int | UnsetType = UNSET
    """Which machine, counted from 0, finds no host."""
    hosts: dict[str, str] | UnsetType = UNSET
    """Host → why it cannot take that one."""
    later: list[str] | UnsetType = UNSET
    """Hosts that could take it if they had room."""


class Operation(Struct, kw_only=True):
    """Long work under way, or done."""

    id: str
    kind: str
    subject: str
    state: str
    started_at: int
    total: int
    done: int
    errors: dict[str, str]
    warnings: list[str] | UnsetType = UNSET
    """What is to be known meanwhile: why there is no room yet."""
    ended_at: int | UnsetType = UNSET
    doing: str | UnsetType = UNSET
    """What is done just now, where that takes long."""


class Event(Struct, kw_only=True):
    """Something that happened."""

    id: str
    type: str
    at: str
    message: str
    subjects: dict[str, str]


class Drain(Struct, kw_only=True, forbid_unknown_fields=True):
    """What happens to the machines of a host that is drained, and for how long that is waited for."""

    machines: Literal["wait", "stop", "delete"] = "wait"
    """They leave with their environments, are stopped where they are, or are deleted with their disks."""
    timeout: Annotated[int, Meta(ge=1, le=2_592_000)] | None = None
    """Seconds; a day unless told."""


class Drained(Struct, kw_only=True):
    """A host that takes nothing new, and what is still there."""

    host: Host
    vms: list[Vm]
    operation_id: str
    """It ends when nothing is left."""


class Health(Struct, kw_only=True):
    """The process answers."""

    status: str
    uptime_secs: int
    ledger: str | UnsetType = UNSET
    """Who writes the ledger that the controller shares with other programs."""

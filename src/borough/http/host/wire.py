"""What goes over the wire of a host daemon, beyond what it shares with the controller's."""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from borough.http.fleet.wire import Count, EngineName, Offer, Port, Pressure, Resource


class SnapshotOf(Struct, kw_only=True, forbid_unknown_fields=True):
    """A snapshot of another machine of the host."""

    vm_id: str
    name: str


class CreateVm(Struct, kw_only=True):
    """A machine that the host is to make. Sent again it means the same machine."""

    vm_id: str
    env_id: str
    image: str
    engine: EngineName
    cpu: Count
    mem: Count
    disk: Count
    ports: list[Port]
    deny_outgoing: bool
    ssh_keys: list[str] = []
    egress_allowlist: list[str] = []
    command: list[str] = []
    env: dict[str, str] = {}
    required: list[str] = []
    private_network: bool = False
    snapshot_of: SnapshotOf | None = None


class Info(Struct, kw_only=True):
    """What a host says of itself."""

    host_id: str
    resource: Resource
    engines: list[str]
    storage: str
    images: list[str]
    image_digests: dict[str, str] | UnsetType = UNSET
    image_engines: dict[str, list[str]] | UnsetType = UNSET
    """Which engines start from each."""
    own_images: list[str] | UnsetType = UNSET
    """Those that are made of the host itself, and cannot be brought to another."""
    offers: list[Offer] | UnsetType = UNSET
    pressure: Pressure | UnsetType = UNSET
    warnings: list[str] | UnsetType = UNSET


class HostImage(Struct, kw_only=True):
    """An image of the host."""

    name: str
    form: str
    digest: str
    size_bytes: int
    created_at: int
    engines: list[str]


class Join(Struct, kw_only=True):
    """A controller that wants to be known."""

    token: Annotated[str, Meta(min_length=16, max_length=256)]


class Joined(Struct, kw_only=True):
    """What the controller is known by from now on."""

    host_id: str
    credential: str

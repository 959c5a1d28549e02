"""What a host daemon says, as it is read here: the reference's members, and ours where the host has them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Final

import msgspec
from msgspec import Struct

from borough.core.errors import BoroughError, Conflict, Forbidden, Invalid, NotFound, Unavailable
from borough.fleet.engines import Capability, Engine, Offer
from borough.fleet.hosts import HostReport, Pressure
from borough.fleet.images import Image, ImageForm
from borough.fleet.ports.engines import Chunk, ExecOrder, FileEntry, SnapshotInfo, Stream
from borough.fleet.ports.host_agent import CreateOrder
from borough.fleet.resources import Resource, Size
from borough.fleet.storage import parse_storage
from borough.fleet.vms import Vm, VmId, VmSpec, VmState, check_vm_id

_OF_ALL: Final = frozenset({Capability.PUBLISH_TCP})
"""What an engine can do whose host does not tell."""


class Said(Struct, kw_only=True):
    """The envelope."""

    ok: bool
    data: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    code: str = ""
    reason: str | None = None
    resolution: str | None = None


class SaidOffer(Struct, kw_only=True):
    engine: str
    version: str = ""
    capabilities: list[str] = []
    reasons: dict[str, str] = {}
    acceleration: str | None = None


class SaidInfo(Struct, kw_only=True):
    host_id: str
    resource: Resource
    engines: list[str]
    storage: str
    images: list[str]
    image_digests: dict[str, str] = {}
    image_engines: dict[str, list[str]] = {}
    own_images: list[str] = []
    offers: list[SaidOffer] | None = None
    pressure: Pressure = Pressure()
    warnings: list[str] = []


class SaidChange(Struct, kw_only=True):
    vm_id: str


class SaidVm(Struct, kw_only=True):
    id: str
    env_id: str
    host_id: str
    image: str
    engine: Engine
    cpu: int
    mem: int
    disk: int
    ip: str
    port_map: dict[int, int]
    state: VmState
    created_at: int
    desired: VmState | None = None
    since: int | None = None
    error: str | None = None
    disk_limit: str = "enforced"
    deny_outgoing: bool = False
    egress_allowlist: list[str] = []


class SaidCreated(Struct, kw_only=True):
    vm: SaidVm


class SaidJoined(Struct, kw_only=True):
    host_id: str
    credential: str


class SaidChunk(Struct, kw_only=True):
    stream: str
    data: bytes = b""
    exit_code: int | None = None
    error: str = ""
    code: str = "host_failed"


class SaidFile(Struct, kw_only=True):
    name: str
    path: str
    is_dir: bool
    size: int
    modified: int


class SaidSnapshot(Struct, kw_only=True):
    name: str
    created_at: int
    size_bytes: int
    with_memory: bool


class SaidWritten(Struct, kw_only=True):
    bytes: int


class SaidImage(Struct, kw_only=True):
    name: str
    form: ImageForm
    digest: str
    size_bytes: int
    created_at: int
    engines: list[str] = []


def report_of(info: SaidInfo) -> HostReport:
    """Return what a host says of itself. Engines that are not known here are of no use and left out."""
    offers = info.offers if info.offers is not None else [SaidOffer(engine=name) for name in info.engines]
    return HostReport(
        host_id=info.host_id,
        resource=info.resource,
        offers=tuple(_offer(each, known=info.offers is not None) for each in offers if each.engine in set(Engine)),
        storage=parse_storage(info.storage),
        images=tuple(info.images),
        image_digests=info.image_digests,
        image_engines={name: _known(engines) for name, engines in info.image_engines.items()},
        own_images=frozenset(info.own_images),
        pressure=info.pressure,
        warnings=tuple(info.warnings),
    )


def offer_of(said: SaidOffer) -> Offer:
    """Return an engine as a host of ours has it."""
    return _offer(said, known=True)


def _known(engines: list[str]) -> frozenset[Engine]:
    return frozenset(engine for engine in Engine if engine.value in engines)


def _offer(said: SaidOffer, *, known: bool) -> Offer:
    capabilities = {capability for capability in Capability if capability.value in said.capabilities}
    return Offer(
        engine=Engine(said.engine),
        version=said.version,
        capabilities=frozenset(capabilities) if known else _OF_ALL,
        reasons={each: said.reasons[each.value] for each in Capability if each.value in said.reasons},
        acceleration=said.acceleration,
    )


def vm_of(said: SaidVm) -> Vm:
    """Return a machine as its host tells of it."""
    spec = VmSpec(
        image=said.image,
        engine=said.engine,
        size=Size(cpu=said.cpu, mem_mib=said.mem, disk_mib=said.disk),
        ports=tuple(said.port_map),
        deny_outgoing=said.deny_outgoing,
        egress_allowlist=tuple(said.egress_allowlist),
    )
    return Vm(
        id=VmId(said.id),
        env_id=said.env_id,
        host_id=said.host_id,
        spec=spec,
        state=said.state,
        desired=said.desired or VmState.UNKNOWN,  # hosts of the reference do not tell
        created_at=_moment(said.created_at),
        ip=IPv4Address(said.ip) if said.ip else None,
        port_map=said.port_map,
        error=said.error,
        since=None if said.since is None else _moment(said.since),
        disk_enforced=said.disk_limit == "enforced",
    )


def order_body(order: CreateOrder) -> dict[str, object]:
    """Return the body that asks for a machine; what the reference's hosts do not know only where it matters."""
    spec = order.spec
    body: dict[str, object] = {
        "vm_id": order.vm_id,
        "env_id": order.env_id,
        "image": spec.image,
        "engine": spec.engine.value,
        "cpu": spec.size.cpu,
        "mem": spec.size.mem_mib,
        "disk": spec.size.disk_mib,
        "ports": list(spec.ports),
        "deny_outgoing": spec.deny_outgoing,
    }
    extras: dict[str, object] = {
        "ssh_keys": list(spec.ssh_keys),
        "egress_allowlist": list(spec.egress_allowlist),
        "command": list(spec.command),
        "env": dict(spec.env),
        "required": sorted(spec.required),
        "private_network": order.private_network,
        "snapshot_of": spec.origin and {"vm_id": spec.origin.vm_id, "name": spec.origin.snapshot},
    }
    return body | {name: value for name, value in extras.items() if value}


def exec_body(order: ExecOrder, stdin: bytes) -> dict[str, object]:
    """Return the body that asks for a command."""
    tty = order.tty and {"rows": order.tty[0], "cols": order.tty[1]}
    whole: dict[str, object] = {
        "argv": list(order.argv),
        "env": dict(order.env),
        "cwd": order.cwd,
        "user": order.user,
        "stdin": stdin,
        "tty": tty,
        "timeout_s": order.timeout_s,
    }
    return {name: value for name, value in whole.items() if value}


def chunk_of(said: SaidChunk) -> Chunk:
    """Return a part of what a command prints.

    Raises:
        BoroughError: the host tells that it went wrong.
    """
    if said.stream == "error":
        raise refusal(0, Said(ok=False, error=said.error, code=said.code))
    return Chunk(stream=Stream(said.stream), data=said.data, exit_code=said.exit_code)


def file_of(said: SaidFile) -> FileEntry:
    """Return one name of a folder."""
    return FileEntry(
        name=said.name, path=said.path, is_dir=said.is_dir, size=said.size, modified=_moment(said.modified)
    )


def snapshot_of(said: SaidSnapshot) -> SnapshotInfo:
    """Return a state that can be returned to."""
    return SnapshotInfo(
        name=said.name,
        created_at=_moment(said.created_at),
        size_bytes=said.size_bytes,
        with_memory=said.with_memory,
    )


def image_of(said: SaidImage) -> Image:
    """Return an image of a host."""
    return Image(
        name=said.name,
        form=said.form,
        digest=said.digest,
        size_bytes=said.size_bytes,
        created_at=_moment(said.created_at),
        engines=frozenset(engine for engine in Engine if engine.value in said.engines),
    )


_KINDS: Final[Mapping[int, type[BoroughError]]] = {
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: Invalid,
}
_KINDS_BY_CODE: Final[Mapping[str, type[BoroughError]]] = {
    "vm_not_found": NotFound,
    "file_not_found": NotFound,
    "snapshot_not_found": NotFound,
    "not_possible": Conflict,
    "vm_not_running": Conflict,
    "no_room": Conflict,
    "vm_exists": Conflict,
    "engine_missing": Invalid,
}
_UNAUTHORIZED: Final = 401
OF_ANOTHER_SERVER: Final = frozenset({"route_not_found", "method_not_allowed"})
"""What a server says that has not the routes of a host."""


def changed_of(said: bytes) -> VmId:
    """Return the machine that a host says has changed; raises ``ValueError`` for what is none."""
    try:
        return VmId(check_vm_id(msgspec.json.decode(said, type=SaidChange).vm_id))
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None


def refusal(status: int, said: Said) -> BoroughError:
    """Return the error that a host tells of, with its own text."""
    if status == _UNAUTHORIZED:
        return Forbidden(
            "the host does not accept this controller's key",
            code="host_refused_key",
            reason=said.error or None,
            resolution="start both with the same TT_API_KEY, or join the host: tt-agent --invite there tells how",
        )
    kind = _KINDS_BY_CODE.get(said.code) or _KINDS.get(status, Unavailable)
    return kind(
        said.error or f"the host answered {status}",
        code=said.code or "host_failed",
        reason=said.reason,
        resolution=said.resolution or "read what the host says; its log has more",
    )


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)

"""What is asked for: a task, a manifest, a machine and a budget, checked once."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from borough.core.errors import Invalid
from borough.fleet.engines import Engine
from borough.governance.hosts import canonical_host

DEFAULT_IMAGE = "host"
DEFAULT_CPU = 1
DEFAULT_MEMORY_MIB = 512
DEFAULT_DISK_MIB = 2048
DEFAULT_TIMEOUT_S = 3600
MOST_TIMEOUT_S = 6 * 3600 - 900
"""A machine lives for six hours at most, and what was made in it is collected before."""
DEFAULT_ATTEMPTS = 3
MOST_ATTEMPTS = 20
MOST_SOURCE_BYTES = 512 << 20
"""Of the files that a run begins with."""
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,254}")
_REMOTE = re.compile(
    r"(?P<scheme>https|http|git|ssh)://(?P<user>[^@/\s]*@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^:/@\s\x00-\x1f\[\]]{1,253})"
    r"(:(?P<port>[0-9]{1,5}))?(/[^\s\x00-\x1f]{0,2000})?"
)
_PORTS: Mapping[str, int] = {"https": 443, "http": 80, "git": 9418, "ssh": 22}
_MOST_PORT = 65535


class Isolation(StrEnum):
    """How strong the wall around the machine is at least."""

    PROCESS = "process"
    CONTAINER = "container"
    VM = "vm"

    @property
    def rank(self) -> int:
        """Return the place in the order, 1 for the weakest; as ``borough.fleet.engines.ISOLATION`` counts."""
        return _RANKS[self]


_RANKS = {each: number for number, each in enumerate(Isolation, start=1)}


class SourceKind(StrEnum):
    """Where the files come from that the run begins with."""

    FOLDER = "folder"
    """A folder on the server's own machine."""
    GIT = "git"
    """A remote, cloned inside the machine by what the manifest lets it reach."""
    UPLOAD = "upload"
    """A tar archive that the caller sends before the run starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The files that a run begins with."""

    kind: SourceKind
    path: str | None = None
    url: str | None = None
    ref: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """Where a git remote is."""

    scheme: str
    host: str
    port: int


def remote_of(url: str) -> Remote | None:
    """Return where a remote's URL leads; ``None``: it is none, or carries a credential, which is nobody's to see."""
    found = _REMOTE.fullmatch(url)
    if found is None:
        return None
    scheme, user, port = found["scheme"], found["user"] or "", int(found["port"] or _PORTS[found["scheme"]])
    has_credential = ":" in user or (user and scheme != "ssh")
    if has_credential or not 1 <= port <= _MOST_PORT:
        return None
    try:
        return Remote(scheme=scheme, host=canonical_host(found["host"]), port=port)
    except Invalid:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The most that a run may use, beyond what its manifest says; ``None`` is no limit."""

    tokens: int | None = None
    cost_micros: int | None = None
    tool_calls: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrder:
    """A run as it is asked for, with every default filled in."""

    task: str
    manifest: str | None = field(default=None, repr=False)
    """The manifest's text; ``None``: the one that ``agent`` names, or the one that comes with Borough."""
    agent: str | None = None
    command: tuple[str, ...] = ()
    """What is run inside; nothing: what the manifest says."""
    image: str = DEFAULT_IMAGE
    engine: Engine | None = None
    isolation: Isolation = Isolation.PROCESS
    source: Source | None = None
    cpu: int = DEFAULT_CPU
    memory_mib: int = DEFAULT_MEMORY_MIB
    disk_mib: int = DEFAULT_DISK_MIB
    timeout_s: int = DEFAULT_TIMEOUT_S
    max_attempts: int = DEFAULT_ATTEMPTS
    budget: Budget = field(default_factory=Budget)
    labels: Mapping[str, str] = field(default_factory=dict)


def check_order(order: RunOrder) -> RunOrder:
    """Return ``order`` if it can be meant.

    Raises:
        Invalid: it names two manifests (``two_manifests``), or its source is none (``invalid_source``).
    """
    if order.manifest is not None and order.agent is not None:
        raise Invalid(
            "a run has one manifest",
            code="two_manifests",
            resolution="send its text as manifest, or the name of an installed one as agent",
            details={"pointer": "/agent"},
        )
    if order.source is not None:
        _check_source(order.source)
    return order


def _check_source(source: Source) -> None:
    if not _MEANT[source.kind](source):
        raise Invalid(
            "that is no source",
            code="invalid_source",
            reason=_TOLD[source.kind],
            resolution="send one of {kind: folder, path}, {kind: git, url, ref}, {kind: upload}",
            details={"pointer": "/source"},
        )


def _is_folder(source: Source) -> bool:
    return source.path is not None and source.path.startswith("/") and source.url is None and source.ref is None


def _is_remote(source: Source) -> bool:
    named = source.url is not None and remote_of(source.url) is not None
    return named and source.path is None and (source.ref is None or _REFERENCE.fullmatch(source.ref) is not None)


def _is_upload(source: Source) -> bool:
    return source.path is None and source.url is None and source.ref is None


_MEANT: Mapping[SourceKind, Callable[[Source], bool]] = {
    SourceKind.FOLDER: _is_folder,
    SourceKind.GIT: _is_remote,
    SourceKind.UPLOAD: _is_upload,
}
_TOLD: Mapping[SourceKind, str] = {
    SourceKind.FOLDER: "a folder has an absolute path, on the server's machine",
    SourceKind.GIT: "a git source has the url of a remote (https, http, git, ssh), without a credential, perhaps a ref",
    SourceKind.UPLOAD: "an upload says nothing more: its archive is sent afterwards",
}

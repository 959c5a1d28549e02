"""What can be set: one frozen section a table of ``tinytown.toml``; each field says its meaning and its unit.

Field names are the keys of the file. Secrets never show in a ``repr``.
"""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from borough.auth.scopes import Scope

Port = Annotated[int, Meta(ge=1, le=65_535)]
Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
AwareTime = Annotated[datetime, Meta(tz=True)]
InputMode = Literal["stdin", "file", "argument"]
AfterExitZero = Literal["complete", "reprompt"]
BoxMode = Literal["auto", "require", "off"]

_SECRET_FIELDS = frozenset({"password", "hash", "api_key_hash", "url", "env"})


class Section(Struct, frozen=True, kw_only=True):
    """Base of all sections."""

    def __repr__(self) -> str:
        shown = (
            f"{name}={'****' if name in _SECRET_FIELDS and getattr(self, name) else repr(getattr(self, name))}"
            for name in self.__struct_fields__
        )
        return f"{type(self).__name__}({', '.join(shown)})"


class RedisSection(Section, frozen=True, kw_only=True):
    """``[redis]``: where the town's state is kept; with nothing set, an embedded server on a Unix socket."""

    url: str | None = None
    """A running Valkey or Redis; beats everything below. ``redis://``, ``rediss://`` or ``unix://``."""
    use_socket: bool = True
    """The embedded server on ``socket_path``; ``false`` connects to ``host`` and ``port``."""
    socket_path: str = ".tt/redis.sock"
    """Relative to the town's folder."""
    host: str = "127.0.0.1"
    port: Port = 6379
    bind: str = "127.0.0.1"
    """Without meaning here: the embedded server listens on its socket only."""
    password: str | None = None
    """Better given in ``TINYTOWN_REDIS_PASSWORD``."""
    tls_enabled: bool = False
    """Speak TLS to ``host``."""
    tls_cert: str | None = None
    """The client's certificate, PEM."""
    tls_key: str | None = None
    tls_ca_cert: str | None = None
    """Whom to trust, PEM; without it the system's store."""
    persist: bool = False
    """Without meaning here: every acknowledged write is on disk."""
    aof_path: str = ".tt/redis.aof"
    """Without meaning here."""


class KeySection(Section, frozen=True, kw_only=True):
    """``[[townhall.auth.keys]]``: one named API key."""

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    hash: str
    """Argon2id in PHC form, as ``tt auth gen-key`` prints it."""
    scopes: tuple[Scope, ...] = ()
    """Empty: all four."""
    expires_at: AwareTime | None = None
    not_before: AwareTime | None = None


class AuthSection(Section, frozen=True, kw_only=True):
    """``[townhall.auth]``: who may call."""

    mode: Literal["none", "api_key", "oidc"] = "none"
    api_key_hash: str | None = None
    """Argon2id in PHC form, as ``tt auth gen-key`` prints it."""
    api_key_scopes: tuple[Scope, ...] = ()
    """Of the key above. Empty: all four."""
    keys: tuple[KeySection, ...] = ()
    """More keys, each with a name, scopes and times of its own."""
    issuer: str | None = None
    """OIDC: the issuer's URL, as it stands in ``iss``."""
    audience: str | None = None
    """OIDC: what ``aud`` has to name."""
    jwks_url: str | None = None
    """OIDC: the key set; without it, the issuer's discovery document tells."""
    required_scopes: tuple[str, ...] = ()
    """OIDC: scopes without which a token is refused outright."""
    clock_skew_seconds: Annotated[int, Meta(ge=0, le=600)] = 60
    """OIDC: how far clocks may disagree."""
    algorithms: tuple[str, ...] = ()
    """OIDC: signature algorithms to accept, asymmetric ones only; empty: all of those that are known to be sound."""


class TlsSection(Section, frozen=True, kw_only=True):
    """``[townhall.tls]``: PEM files, relative to the town's folder."""

    enabled: bool = False
    cert_file: str | None = None
    key_file: str | None = None


class MtlsSection(Section, frozen=True, kw_only=True):
    """``[townhall.mtls]``: certificates of clients."""

    enabled: bool = False
    """Ask clients for a certificate and check it if they have one."""
    required: bool = False
    """Refuse clients without one."""
    ca_file: str | None = None


class RateLimitSection(Section, frozen=True, kw_only=True):
    """``[townhall.rate_limit]``: buckets per principal, one for reads and one for writes."""

    enabled: bool | None = None
    """Unset: on, except for loopback in mode ``none``."""
    requests_per_minute: Positive = 600
    """Refill of the bucket of reads."""
    mutating_requests_per_minute: Positive = 300
    """Refill of the bucket of writes."""
    burst_size: Positive = 300
    """Requests that either bucket holds when full, and never more than a minute's: out of reach by hand."""


class TownhallSection(Section, frozen=True, kw_only=True):
    """``[townhall]``: the REST server."""

    bind: str = "127.0.0.1"
    """An IPv4 or IPv6 address, or ``localhost``."""
    rest_port: Port = 8080
    request_timeout_ms: Annotated[int, Meta(ge=1, le=3_600_000)] = 30_000
    """How long a request may take before it is answered 408."""
    drain_timeout_secs: Annotated[int, Meta(ge=0, le=3600)] = 30
    """How long a stopping server waits for requests under way."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that a ``Host`` header may carry besides the server's own."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose ``X-Forwarded-For`` is believed."""
    auth: AuthSection = AuthSection()
    tls: TlsSection = TlsSection()
    mtls: MtlsSection = MtlsSection()
    rate_limit: RateLimitSection = RateLimitSection()


class AgentSection(Section, frozen=True, kw_only=True):
    """``[agent]``: workers."""

    idle_timeout_secs: Count = 300
    """How long an idle worker stays; 0: for ever."""
    lease_ms: Annotated[int, Meta(ge=1000, le=600_000)] = 15_000
    """How long a worker may be silent before it is taken for dead."""
    reclaim_after_secs: Count = 60
    """How long after an agent's end its unread work returns to the backlog by itself; 0: at once."""
    task_timeout_secs: Annotated[int, Meta(ge=1, le=604_800)] = 3600
    """How long one attempt may run, unless its CLI or the task says otherwise."""
    box: BoxMode = "auto"
    """Whether workers of this machine are started in boxes: where the server governs and can make them, always, never.
    ``BOROUGH_WORKER_BOX`` wins, and ``borough up --worker-box`` over both."""
    box_home: bool = True
    """Show what the known agent CLIs and tools keep in the home folder, by name."""
    box_show: tuple[str, ...] = ()
    """Further paths that a box shows, relative to the town's folder or beginning with ``~/``."""
    box_write: tuple[str, ...] = ()
    """Further ones that can be written."""


class TasksSection(Section, frozen=True, kw_only=True):
    """``[tasks]``: attempts and their pauses."""

    max_attempts: Annotated[int, Meta(ge=1, le=20)] = 3
    retry_base_ms: Positive = 1000
    """The pause after the first failed attempt; it doubles with each."""
    retry_cap_ms: Positive = 300_000
    """The longest pause."""
    retention_days: Positive = 30
    """How long finished tasks are kept."""


class AgentCliSection(Section, frozen=True, kw_only=True):
    """``[agent_clis.NAME]``: a program that does tasks. What is left out comes from the preset of that name."""

    name: str | None = None
    """Without meaning here beyond the table's own name."""
    command: str | list[str] | None = None
    """Words as a POSIX shell would split them, or a list. Never run by a shell."""
    workdir: str | None = None
    """Where it runs, relative to the town's folder; without it, there."""
    env: dict[str, str] = msgspec.field(default_factory=dict)
    """Added to its environment."""
    input: InputMode | None = None
    """How it gets its prompt."""
    input_option: str | None = None
    """The option that goes before the file or the argument, if it takes one."""
    on_exit_zero: AfterExitZero | None = None
    """What a good end without an explicit completion means: done, or to be asked again."""
    timeout_secs: Annotated[int, Meta(ge=1, le=604_800)] | None = None


class TownFileSection(Section, frozen=True, kw_only=True):
    """The whole of ``tinytown.toml``."""

    name: str
    default_cli: str = "claude"
    conductor_cli: str | None = None
    """For ``tt conductor``; without it, ``default_cli``."""
    max_agents: Count = 10
    """Live agents at most; also the cap of ``desired_agents``."""
    use_central_redis: bool = False
    """Without meaning here: each town has its own store, or the one that ``redis.url`` names."""
    use_streams: bool = True
    """Streams are always used."""
    redis: RedisSection = RedisSection()
    townhall: TownhallSection = TownhallSection()
    agent: AgentSection = AgentSection()
    tasks: TasksSection = TasksSection()
    agent_clis: dict[str, AgentCliSection] = msgspec.field(default_factory=dict)

"""``agentd``'s settings: its environment, over ``agentd.toml``, over defaults; read once.

The file is optional. What the environment says wins over it, and the command line over both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from borough.config import agentd_places as places
from borough.config.environment import LEDGER_VARIABLE, flag, shared_ledger, text
from borough.config.reading import read_toml, to_section
from borough.config.sections import Positive, Section
from borough.core.errors import Invalid

DEFAULT_ADDRESS = "127.0.0.1:8080"
DEFAULT_TOKEN_DB = Path("/tmp/agentd_api_tokens.db")  # noqa: S108 - the reference page's default; opened with care
DEFAULT_MODEL = "anthropic/claude-haiku-4-5"
DEFAULT_MODELS_URL = "https://openrouter.ai/api/v1"
TOWN_DATA = "governance"
TOWN_TOKENS = "tokens.db"
BODY_LIMIT_BYTES = 8 * 1_048_576
_LEVELS = {"debug": True, "trace": True, "info": False, "warn": False, "warning": False, "error": False}


class ModelsSection(Section, frozen=True, kw_only=True):
    """``[models]``: where language models are asked."""

    base_url: str = DEFAULT_MODELS_URL
    """Of any endpoint that speaks OpenAI's protocol."""
    default_model: str | None = None
    """Used where neither the call nor the manifest chooses one; ``SCARAB_DEFAULT_MODEL`` wins."""
    registry_file: str | None = None
    """A YAML or JSON file of models with their prices and ranks, instead of the built-in table."""
    timeout_secs: Annotated[int, Meta(ge=1, le=3600)] = 120


class AgentdSection(Section, frozen=True, kw_only=True):
    """The whole of ``agentd.toml``."""

    socket: str | None = None
    """Path of the operators' socket; the agents' one is beside it."""
    api_addr: str | None = None
    """``host:port`` of the gateway."""
    api_cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call; none, or ``*``: all."""
    api_authz: Literal["default", "strict"] = "default"
    """``strict``: every token reaches only its own agent and what descends from it."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that a ``Host`` header may carry besides those of loopback."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose ``X-Forwarded-For`` is believed."""
    data_dir: str | None = None
    token_db: str | None = None
    max_hierarchy_depth: Annotated[int, Meta(ge=1, le=64)] = 8
    """How many agents may stand above one another."""
    body_limit_bytes: Annotated[int, Meta(ge=1024, le=1_073_741_824)] = BODY_LIMIT_BYTES
    request_timeout_ms: Annotated[int, Meta(ge=1, le=3_600_000)] = 30_000
    drain_timeout_secs: Annotated[int, Meta(ge=0, le=3600)] = 10
    """How long a stopping daemon waits for requests under way."""
    ended_agents_kept_secs: Annotated[int, Meta(ge=0)] = 86_400
    """How long an agent that has ended can still be looked up."""
    ledger_retention_days: Annotated[int, Meta(ge=1, le=36_500)] | None = None
    """After how many days ledger entries are dropped (their hashes stay); unset: never."""
    checkpoint_every_secs: Positive = 1
    """How long a new ledger entry may wait for a signed checkpoint over it."""
    models: ModelsSection = ModelsSection()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlaces:
    """Where a daemon finds what its runs need beyond itself."""

    town: Path
    """The folder of the town."""
    fleet: str
    """Where its controller is, as in ``http://127.0.0.1:9200``."""
    fleet_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernanceSettings:
    """What ``agentd`` was told, all of it."""

    host: str
    port: int
    """0: a free one."""
    socket: Path
    data_folder: Path
    token_db: Path
    cors_origins: tuple[str, ...] = ()
    """Empty: all."""
    strict: bool = False
    verbose: bool = False
    allowed_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    max_depth: int = 8
    body_limit_bytes: int = BODY_LIMIT_BYTES
    request_timeout_s: float = 30.0
    drain_s: int = 10
    ended_kept: timedelta = timedelta(days=1)
    ledger_kept: timedelta | None = None
    checkpoint_every_s: int = 1
    models_url: str = DEFAULT_MODELS_URL
    models_key: str | None = field(default=None, repr=False)
    models_timeout_s: float = 120.0
    models_registry: Path | None = None
    default_model: str = DEFAULT_MODEL
    shares_ledger: bool = False
    """Other programs record in this daemon's ledger too."""
    runs: RunPlaces | None = None
    """``None``: it serves no runs."""
    hidden: tuple[Path, ...] = ()
    """What no agent's box ever shows, beside the data folder and the operators' socket."""

    @property
    def agents_socket(self) -> Path:
        """Return where agents connect."""
        return places.agents_socket(self.socket)


def load_governance(
    environ: Mapping[str, str], *, socket: Path | None = None, file: Path | None = None
) -> GovernanceSettings:
    """Return the settings; ``socket`` and ``file`` are what the command line named.

    Raises:
        Invalid: a setting is unknown (``unknown_setting``) or no possible one (``invalid_setting``,
            ``invalid_environment``), or the file that was named is not there (``unreadable_settings``).
    """
    section, base = _section(environ, file)
    host, port = parse_address(text(environ, "AGENTD_API_ADDR") or section.api_addr or DEFAULT_ADDRESS)
    data = places.data_folder(environ)
    if section.data_dir and not text(environ, places.DATA_VARIABLE):
        data = base / section.data_dir
    token_db = text(environ, "AGENTD_API_TOKEN_DB")
    return GovernanceSettings(
        host=host,
        port=port,
        socket=_socket(environ, socket, section, base),
        data_folder=data,
        token_db=Path(token_db).absolute() if token_db else _beneath(base, section.token_db) or DEFAULT_TOKEN_DB,
        cors_origins=_origins(environ, section),
        strict=_strict(environ, section),
        verbose=_verbose(environ),
        allowed_hosts=section.allowed_hosts,
        trusted_proxies=section.trusted_proxies,
        max_depth=section.max_hierarchy_depth,
        body_limit_bytes=section.body_limit_bytes,
        request_timeout_s=section.request_timeout_ms / 1000,
        drain_s=section.drain_timeout_secs,
        ended_kept=timedelta(seconds=section.ended_agents_kept_secs),
        ledger_kept=None if section.ledger_retention_days is None else timedelta(days=section.ledger_retention_days),
        checkpoint_every_s=section.checkpoint_every_secs,
        shares_ledger=_shares_ledger(environ, data),
        runs=_runs(environ),
        models_url=_url(section.models.base_url),
        models_key=text(environ, "OPENROUTER_API_KEY"),
        models_timeout_s=float(section.models.timeout_secs),
        models_registry=_beneath(base, section.models.registry_file),
        default_model=text(environ, "SCARAB_DEFAULT_MODEL") or section.models.default_model or DEFAULT_MODEL,
    )


def governance_of_town(environ: Mapping[str, str], state_folder: Path, *, host: str, port: int) -> GovernanceSettings:
    """Return the settings of a town that governs too: all its state is in the town's own folder.

    ``AGENTD_API_TOKEN_DB`` and ``SCARAB_SOCKET`` still name other places. Raises as ``load_governance``.
    """
    state = state_folder.absolute()
    data = state / TOWN_DATA
    told = load_governance({**environ, places.DATA_VARIABLE: str(data)})
    named = text(environ, places.SOCKET_VARIABLE)
    return replace(
        told,
        host=host,
        port=port,
        socket=Path(named).absolute() if named else places.socket_of_town(environ, state),
        data_folder=data,
        token_db=told.token_db if text(environ, "AGENTD_API_TOKEN_DB") else data / TOWN_TOKENS,
        runs=None,
        hidden=(state,),
    )


def _shares_ledger(environ: Mapping[str, str], data: Path) -> bool:
    told = shared_ledger(environ)
    if told is None or told.resolve() == data.absolute().resolve():
        return told is not None
    raise Invalid(
        f"{LEDGER_VARIABLE} names {told}, and this daemon keeps its ledger in {data}",
        code="invalid_environment",
        resolution=f"let {LEDGER_VARIABLE} name the data folder of agentd for all programs, or unset it",
    )


def _runs(environ: Mapping[str, str]) -> RunPlaces | None:
    town, fleet = text(environ, "BOROUGH_TOWN"), text(environ, "BOROUGH_FLEET")
    if town is None and fleet is None:
        return None
    if town is None or fleet is None:
        raise Invalid(
            f"runs need a town and a fleet, and BOROUGH_{'TOWN' if town is None else 'FLEET'} is not set",
            code="invalid_environment",
            resolution="set BOROUGH_TOWN to the town's folder and BOROUGH_FLEET to tt-ctl's address, or neither",
        )
    parts = urlsplit(fleet)
    if parts.scheme != "http" or not parts.netloc or parts.path not in ("", "/"):
        raise Invalid(
            f"BOROUGH_FLEET is {fleet!r}",
            code="invalid_environment",
            resolution="write tt-ctl's address as http://127.0.0.1:9200",
        )
    return RunPlaces(town=Path(town).expanduser().absolute(), fleet=fleet, fleet_key=text(environ, "TT_API_KEY"))


def parse_address(written: str) -> tuple[str, int]:
    """Return host and port of ``127.0.0.1:8080``, ``localhost:8080``, ``[::1]:8080``.

    Raises:
        Invalid: it is none (``invalid_setting``).
    """
    host, colon, port = written.strip().rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    is_port = port.isascii() and port.isdigit() and int(port) <= 65_535  # noqa: PLR2004 - the largest port
    if not colon or not bare or not is_port or (":" in bare and host == bare):
        raise Invalid(
            f"{written!r} is no address to listen on",
            code="invalid_setting",
            resolution="write host and port as 127.0.0.1:8080 or [::1]:8080; port 0 takes a free one",
        )
    return bare, int(port)


def _section(environ: Mapping[str, str], named: Path | None) -> tuple[AgentdSection, Path]:
    told = text(environ, "AGENTD_CONFIG")
    path = named or (Path(told) if told else None)
    chosen = path or places.settings_file(environ)
    try:
        data = read_toml(chosen)
    except FileNotFoundError:
        if path is not None:
            raise Invalid(
                f"there is no file {path}", code="unreadable_settings", resolution="name another, or leave it out"
            ) from None
        return AgentdSection(), Path()
    return to_section(data, AgentdSection, file=str(chosen)), chosen.absolute().parent


def _socket(environ: Mapping[str, str], named: Path | None, section: AgentdSection, base: Path) -> Path:
    if named is not None:
        return named.absolute()
    if section.socket and not text(environ, places.SOCKET_VARIABLE):
        return base / section.socket
    return places.operators_socket(environ)


def _origins(environ: Mapping[str, str], section: AgentdSection) -> tuple[str, ...]:
    told = environ.get("AGENTD_API_CORS_ORIGINS")
    listed = section.api_cors_origins if told is None else tuple(told.split(","))
    origins = tuple(dict.fromkeys(origin.strip().rstrip("/") for origin in listed if origin.strip()))
    return () if "*" in origins else origins


def _strict(environ: Mapping[str, str], section: AgentdSection) -> bool:
    told = text(environ, "AGENTD_API_AUTHZ")
    if told is None:
        return section.api_authz == "strict"
    if told.lower() not in {"strict", "default"}:
        # A misspelt wish for strictness must not end in its opposite.
        raise Invalid(
            f"the environment variable AGENTD_API_AUTHZ is {told!r}",
            code="invalid_environment",
            resolution="set it to 'strict' or 'default', or unset it",
        )
    return told.lower() == "strict"


def _verbose(environ: Mapping[str, str]) -> bool:
    told = text(environ, "AGENTD_LOG")
    if told is None:
        return False
    if told.lower() not in _LEVELS and not flag(environ, "AGENTD_LOG"):
        raise Invalid(
            f"the environment variable AGENTD_LOG is {told!r}",
            code="invalid_environment",
            resolution=f"choose from {', '.join(_LEVELS)}",
        )
    return _LEVELS.get(told.lower(), True)


def _url(written: str) -> str:
    parts = urlsplit(written)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Invalid(
            f"models.base_url is {written!r}", code="invalid_setting", resolution="write it as https://host/path"
        )
    return written.rstrip("/")


def _beneath(base: Path, written: str | None) -> Path | None:
    return None if written is None else base / written

"""The settings of one town: ``tinytown.toml`` and the environment, read once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from borough.auth.credentials import check_phc
from borough.config import agent_clis, environment
from borough.config.agent_clis import AgentCli, Resolved
from borough.config.reading import read_toml, to_section
from borough.config.sections import AgentSection, RedisSection, TasksSection, TownFileSection, TownhallSection
from borough.config.store import StorePlace, store_place
from borough.config.worker_boxes import WorkerBoxing, worker_boxing
from borough.core.errors import Invalid, NotFound
from borough.town.names import town_name

TOWN_FILE = "tinytown.toml"
STATE_FOLDER = ".tt"


@dataclass(frozen=True, slots=True, kw_only=True)
class TownSettings:
    """Everything that a program needs to know of a town."""

    root: Path
    name: str
    default_cli: str
    """A name in ``agent_clis`` or a command."""
    conductor_cli: str
    max_agents: int
    store: StorePlace
    townhall: TownhallSection
    agent: AgentSection
    tasks: TasksSection
    agent_clis: Mapping[str, AgentCli]
    boxes: WorkerBoxing = field(default_factory=WorkerBoxing)
    holds_secret: bool = False
    """Whether the file has a password in it."""
    warnings: tuple[str, ...] = ()
    """One line each, to be shown once by the program that reads the settings."""

    @property
    def state_folder(self) -> Path:
        """Where sockets, logs, keys and credentials of the town are."""
        return self.root / STATE_FOLDER

    def cli(self, text: str | None = None) -> Resolved:
        """Return the agent CLI that ``text`` stands for; ``None`` is the town's default."""
        return agent_clis.resolve(self.default_cli if text is None else text, self.agent_clis)

    def file_in_town(self, written: str | None) -> Path | None:
        """Return the path that a setting names, relative to the town's folder."""
        return self.root / Path(written).expanduser() if written else None


def town_exists(root: Path) -> bool:
    """Tell whether ``root`` is a town's folder."""
    return (root / TOWN_FILE).is_file()


def load_town(
    root: Path, environ: Mapping[str, str], *, more_clis: Mapping[str, str | list[str]] | None = None
) -> TownSettings:
    """Return the settings of the town at ``root``. ``more_clis`` are the user's own, from the global file.

    Raises:
        NotFound: there is no town (``town_not_initialised``).
        Invalid: the file is wrong (``unreadable_settings``, ``unknown_setting``, ``invalid_setting`` …).
    """
    root = root.absolute()
    try:
        data = read_toml(root / TOWN_FILE)
    except FileNotFoundError:
        raise NotFound(
            f"there is no town at {root}",
            code="town_not_initialised",
            reason=f"{TOWN_FILE} is not there",
            resolution="run 'tt init' in that folder, or name the town's folder with --town",
        ) from None
    return settings_from(data, root=root, environ=environ, more_clis=more_clis or {})


def settings_from(
    data: Mapping[str, Any],
    *,
    root: Path,
    environ: Mapping[str, str],
    more_clis: Mapping[str, str | list[str]],
    file: str = TOWN_FILE,
) -> TownSettings:
    """Return settings from parsed TOML. Raises as ``load_town``."""
    section = to_section(data, TownFileSection, file=file)
    town_name(section.name)
    _check_keys(section.townhall, file=file)
    clis = agent_clis.merged(section.agent_clis, file=file)
    for name, command in more_clis.items():
        if name not in section.agent_clis:
            argv = agent_clis.split_command(command, where=f"~/.tt/config.toml: agent_clis.{name}")
            clis[name] = agent_clis.named(name, argv)
    default = _known_or_same(section.default_cli, clis)
    return TownSettings(
        root=root,
        name=section.name,
        default_cli=default,
        conductor_cli=_known_or_same(section.conductor_cli, clis) if section.conductor_cli else default,
        max_agents=section.max_agents,
        store=store_place(section.redis, root=root, environ=environ, file=file),
        townhall=section.townhall,
        agent=section.agent,
        tasks=section.tasks,
        agent_clis=clis,
        holds_secret=section.redis.password is not None or "@" in (section.redis.url or ""),
        boxes=worker_boxing(section.agent, root=root, environ=environ),
        warnings=(*_without_meaning(data, file=file), *_store_warnings(section.redis, environ, file=file)),
    )


def _known_or_same(text: str, clis: Mapping[str, AgentCli]) -> str:
    """Return the name of the CLI that ``text`` stands for, or ``text`` where it is a command of its own."""
    resolved = agent_clis.resolve(text, clis).cli
    return resolved.name if resolved == clis.get(resolved.name) else text


def _check_keys(townhall: TownhallSection, *, file: str) -> None:
    auth = townhall.auth
    # A broken hash must not stop the server in a mode that never reads it, but a named key is always meant.
    for index, key in enumerate(auth.keys):
        try:
            check_phc(key.hash)
        except Invalid as error:
            raise Invalid(
                f"{file}: townhall.auth.keys.{index}.hash: {error.message}",
                code="invalid_setting",
                reason=error.reason,
                resolution=error.resolution,
            ) from None
    ids = [key.id for key in auth.keys]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise Invalid(
            f"{file}: townhall.auth.keys: the id {twice[0]!r} is there twice",
            code="invalid_setting",
            resolution="give each key an id of its own; while one is rotated, old and new need two",
        )


_WITHOUT_MEANING: tuple[tuple[str, str], ...] = (
    ("use_central_redis", "each town has its own store, or the one that redis.url names"),
    ("redis.bind", "the embedded store listens on its socket only"),
    ("redis.persist", "every acknowledged write is on disk"),
    ("redis.aof_path", "the embedded store keeps its files in .tt"),
)


def _without_meaning(data: Mapping[str, Any], *, file: str) -> tuple[str, ...]:
    warnings = [
        f"{file}: {path} has no meaning here: {why}"
        for path, why in _WITHOUT_MEANING
        if _at(data, path) not in {None, False}
    ]
    if data.get("use_streams") is False:
        warnings.append(f"{file}: use_streams = false has no meaning here: streams are always used")
    return tuple(warnings)


def _store_warnings(redis: RedisSection, environ: Mapping[str, str], *, file: str) -> tuple[str, ...]:
    warnings = []
    if redis.password is not None:
        warnings.append(f"{file}: redis.password is a secret in clear text; better set TINYTOWN_REDIS_PASSWORD")
    external = redis.url or environment.text(environ, "REDIS_URL")
    if not redis.use_socket and not external and not environment.flag(environ, "TT_USE_SOCKET"):
        warnings.append(
            f"{file}: redis.use_socket = false: a server has to run at {redis.host}:{redis.port}, none is started"
        )
    return tuple(warnings)


def _at(data: Mapping[str, Any], path: str) -> Any:
    value: Any = data
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value

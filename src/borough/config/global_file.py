"""What is a user's own and no town's: ``~/.tt/config.toml`` and the list of towns, ``~/.tt/towns.toml``."""

import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from borough.config import agent_clis, editing
from borough.config.files import write_whole
from borough.config.reading import read_toml, to_section
from borough.config.sections import Port, Section
from borough.config.town import TownSettings, load_town
from borough.core.errors import Invalid

_SECRET_MODE = 0o600
_FOLDER_MODE = 0o700


class GlobalRedisSection(Section, frozen=True, kw_only=True):
    """``[redis]``: of a central server, which is not used here; read so that existing files are accepted."""

    host: str = "127.0.0.1"
    port: Port = 16_379
    password: str | None = None
    use_central: bool = False


class GlobalFileSection(Section, frozen=True, kw_only=True):
    """The whole of ``~/.tt/config.toml``."""

    default_cli: str = "claude"
    """For towns that are made from now on."""
    conductor_cli: str | None = None
    agent_clis: dict[str, str | list[str]] = msgspec.field(default_factory=dict)
    """Commands by name, for all towns."""
    redis: GlobalRedisSection = GlobalRedisSection()


class RegisteredTown(Section, frozen=True, kw_only=True):
    """One town that was made on this machine."""

    path: str
    name: str


class _TownsFile(Section, frozen=True, kw_only=True):
    towns: tuple[RegisteredTown, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalSettings:
    """The user's own settings."""

    file: GlobalFileSection
    warnings: tuple[str, ...] = ()


def global_folder(environ: Mapping[str, str]) -> Path:
    """Return ``~/.tt`` of the user whose environment it is."""
    home = environ.get("HOME", "").strip()
    return (Path(home) if home else Path.home()) / ".tt"


def load_global(environ: Mapping[str, str]) -> GlobalSettings:
    """Return the user's settings; without a file, the defaults.

    Raises:
        Invalid: the file is wrong (``unreadable_settings``, ``unknown_setting``, ``invalid_setting``).
    """
    path = _config_path(environ)
    try:
        data = read_toml(path)
    except FileNotFoundError:
        return GlobalSettings(file=GlobalFileSection())
    section = _checked(data, file=str(path))
    warnings = []
    if section.redis.use_central:
        warnings.append(f"{path}: redis.use_central has no meaning here: each town has its own store")
    if section.redis.password and stat.S_IMODE(path.stat().st_mode) & 0o077:
        warnings.append(f"{path} holds a password and others may read it: chmod 600 {path}")
    return GlobalSettings(file=section, warnings=tuple(warnings))


def load_settings(root: Path, environ: Mapping[str, str]) -> TownSettings:
    """Return the settings of the town at ``root`` with the user's own agent CLIs; raises as ``load_town``."""
    own = load_global(environ)
    settings = load_town(root, environ, more_clis=own.file.agent_clis)
    return replace(settings, warnings=(*own.warnings, *settings.warnings))


def change_global_setting(environ: Mapping[str, str], key: str, written: str) -> None:
    """Set one key of the user's file, which is made if it is not there; nobody else can read it.

    Raises:
        Invalid: the key is unknown or the value does not fit; the file is as it was.
    """
    with _locked(environ) as folder:
        path = folder / "config.toml"
        document = path.read_text(encoding="utf-8") if path.exists() else ""

        def check(data: Mapping[str, Any]) -> object:
            return _checked(data, file=str(path))

        changed = editing.with_setting(document, key, written, check=check, file=str(path))
        write_whole(path, changed, mode=_SECRET_MODE)


def read_global_setting(environ: Mapping[str, str], key: str) -> Any:
    """Return what the user's file sets ``key`` to; raises ``NotFound`` where it does not."""
    path = _config_path(environ)
    try:
        data = read_toml(path)
    except FileNotFoundError:
        data = {}
    return editing.setting(data, key, file=str(path))


def registered_towns(environ: Mapping[str, str]) -> tuple[RegisteredTown, ...]:
    """Return the towns that were made on this machine, oldest first.

    Raises:
        Invalid: the list cannot be read (``unreadable_settings``, ``invalid_setting`` …).
    """
    path = global_folder(environ) / "towns.toml"
    try:
        return to_section(read_toml(path), _TownsFile, file=str(path)).towns
    except FileNotFoundError:
        return ()


def register_town(environ: Mapping[str, str], root: Path, name: str) -> None:
    """Add a town to the list, or give the one at that path its new name. Safe beside other programs doing so."""
    with _locked(environ):
        path = str(root.absolute())
        others = registered_towns(environ)
        known = any(town.path == path for town in others)
        kept = tuple(RegisteredTown(path=path, name=name) if town.path == path else town for town in others)
        _write_towns(environ, kept if known else (*kept, RegisteredTown(path=path, name=name)))


def forget_town(environ: Mapping[str, str], root: Path) -> bool:
    """Take a town off the list; return whether it was there."""
    with _locked(environ):
        others = registered_towns(environ)
        kept = tuple(town for town in others if town.path != str(root.absolute()))
        if len(kept) == len(others):
            return False
        _write_towns(environ, kept)
        return True


def _write_towns(environ: Mapping[str, str], towns: tuple[RegisteredTown, ...]) -> None:
    import tomlkit  # noqa: PLC0415 - a server that only reads starts without it

    text = tomlkit.dumps({"towns": [{"path": town.path, "name": town.name} for town in towns]})
    write_whole(global_folder(environ) / "towns.toml", text, mode=_SECRET_MODE)


def _config_path(environ: Mapping[str, str]) -> Path:
    return global_folder(environ) / "config.toml"


def _checked(data: Mapping[str, Any], *, file: str) -> GlobalFileSection:
    section = to_section(data, GlobalFileSection, file=file)
    for name, command in section.agent_clis.items():
        agent_clis.split_command(command, where=f"{file}: agent_clis.{name}")
    return section


@contextmanager
def _locked(environ: Mapping[str, str]) -> Iterator[Path]:
    """Hold the one lock under which the files of ``~/.tt`` are changed."""
    folder = global_folder(environ)
    try:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _SECRET_MODE)
    except OSError as error:
        raise Invalid(
            f"{folder} cannot be written: {error.strerror}",
            code="unwritable_settings",
            resolution="set HOME to a folder that you own",
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(descriptor)

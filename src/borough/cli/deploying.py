"""What is to be put on which machine, as ``deploy.toml`` says: values that somebody wrote, each checked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from borough.core.errors import Invalid
from borough.fleet.names import check_name
from borough.fleet.storage import parse_storage

PREFIX: Final = "/opt/ttstack"
USER: Final = "ttstack"
_USER_NAME: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,252}")
_FOLDER: Final = re.compile(r"/[A-Za-z0-9._/+-]{1,200}")
_LISTEN: Final = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}")
_KEY: Final = re.compile(r"[\x21-\x7e]{8,256}")
_SIZE: Final = re.compile(r"([0-9]{1,9})([Gg]?)")
_MIB_PER_GIB: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A machine that something is put on over SSH."""

    host: str
    ssh_user: str = "root"
    ssh_port: int = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A program that a machine is to run."""

    name: str
    """``tt-ctl`` or ``tt-agent``."""
    user: str
    arguments: tuple[str, ...]
    folders: tuple[str, ...]
    """Made for its user, and for nobody else to read."""
    target: Target | None = None
    """``None``: this machine."""
    has_key: bool = True
    """Whether the fleet's key is good there; without, controllers are let in by the host's join token only."""
    release_dir: str | None = None
    """Where its wheel is; ``None``: where the others' is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Everything that is to be put somewhere."""

    services: tuple[Service, ...]
    """The controller first."""
    prefix: str = PREFIX
    user: str = USER
    api_key: str | None = field(default=None, repr=False)
    """``None``: the one that was made before, else a new one."""
    release_dir: str = "dist"


def deployment(document: Mapping[str, Any]) -> Deployment:
    """Return what ``deploy.toml`` says.

    Raises:
        Invalid: a value is none that could be used (``invalid_deployment``), or a key is not known.
    """
    _known(document, {"general", "controller", "agents"}, where="the file")
    general = document.get("general", {})
    _known(general, {"prefix", "user", "release_dir", "api_key"}, where="general")
    user = _matched(_USER_NAME, general.get("user", USER), "general.user")
    controller = document.get("controller")
    services = [] if controller is None else [_controller(controller, user)]
    services += [_agent(each, user, number) for number, each in enumerate(document.get("agents", []))]
    key = general.get("api_key")
    return Deployment(
        services=tuple(services),
        prefix=_matched(_FOLDER, general.get("prefix", PREFIX), "general.prefix"),
        user=user,
        api_key=None if key is None else _matched(_KEY, key, "general.api_key", secret=True),
        release_dir=str(general.get("release_dir", "dist")),
    )


def _controller(section: Mapping[str, Any], user: str) -> Service:
    _known(section, {"host", "ssh_user", "ssh_port", "listen", "data_dir"}, where="controller")
    data = _matched(_FOLDER, section.get("data_dir", f"/home/{user}/ctl"), "controller.data_dir")
    listen = _matched(_LISTEN, section.get("listen", "0.0.0.0:9200"), "controller.listen")
    return controller_service(user=user, listen=listen, data_dir=data, target=_target(section, "controller"))


def controller_service(
    *, user: str = USER, listen: str = "127.0.0.1:9200", data_dir: str | None = None, target: Target | None = None
) -> Service:
    """Return the controller as a machine runs it: as a user of its own."""
    data = data_dir or f"/home/{user}/ctl"
    return Service(
        name="tt-ctl", user=user, arguments=("--listen", listen, "--data-dir", data), folders=(data,), target=target
    )


def _agent(section: Mapping[str, Any], user: str, number: int) -> Service:
    where = f"agents[{number}]"
    names = {"host", "ssh_user", "ssh_port", "listen", "storage", "image_dir", "runtime_dir", "host_id"}
    totals = {"cpu_total", "mem_total", "disk_total"}
    _known(section, names | totals | {"data_dir", "join_only", "user_network", "release_dir"}, where=where)
    return agent_service(
        user=user,
        listen=_matched(_LISTEN, section.get("listen", "0.0.0.0:9100"), f"{where}.listen"),
        storage=parse_storage(str(section.get("storage", "file"))).value,
        image_dir=_matched(_FOLDER, section.get("image_dir", f"/home/{user}/images"), f"{where}.image_dir"),
        runtime_dir=_matched(_FOLDER, section.get("runtime_dir", f"/home/{user}/runtime"), f"{where}.runtime_dir"),
        data_dir=_matched(_FOLDER, section.get("data_dir", f"/home/{user}/data"), f"{where}.data_dir"),
        totals=(
            _count(section.get("cpu_total", 0), f"{where}.cpu_total"),
            _count(section.get("mem_total", 0), f"{where}.mem_total"),
            size_mib(section.get("disk_total", "200G"), f"{where}.disk_total"),
        ),
        host_id=None if "host_id" not in section else check_name(str(section["host_id"]), what="a host"),
        join_only=_flag(section.get("join_only", False), f"{where}.join_only"),
        user_network=_flag(section.get("user_network", False), f"{where}.user_network"),
        release_dir=None if "release_dir" not in section else str(section["release_dir"]),
        target=_target(section, where),
    )


def agent_service(
    *,
    user: str = USER,
    listen: str = "127.0.0.1:9100",
    storage: str = "file",
    image_dir: str | None = None,
    runtime_dir: str | None = None,
    data_dir: str | None = None,
    totals: tuple[int, int, int] = (0, 0, 204_800),
    host_id: str | None = None,
    join_only: bool = False,
    user_network: bool = False,
    release_dir: str | None = None,
    target: Target | None = None,
) -> Service:
    """Return a host daemon as a machine runs it: as root, which makes machines for others."""
    images, runtime = image_dir or f"/home/{user}/images", runtime_dir or f"/home/{user}/runtime"
    data = data_dir or f"/home/{user}/data"
    cpu, mem, disk = totals
    arguments = [
        "--listen", listen, "--image-dir", images, "--runtime-dir", runtime, "--data-dir", data, "--storage", storage,
        "--cpu-total", str(cpu), "--mem-total", str(mem), "--disk-total", str(disk),
        *(["--host-id", host_id] if host_id else []),
        *(["--join-only"] if join_only else []),
        *(["--user-network"] if user_network else []),
    ]  # fmt: skip
    folders = (images, runtime, data) if storage == "file" else (data,)
    return Service(
        name="tt-agent",
        user="root",
        arguments=tuple(arguments),
        folders=folders,
        target=target,
        has_key=not join_only,
        release_dir=release_dir,
    )


def size_mib(value: object, where: str) -> int:
    """Return MiB for ``"200G"`` or a number of MiB."""
    found = _SIZE.fullmatch(str(value))
    if found is None:
        raise _invalid(where, value, "as in 200G, or a number of MiB")
    return int(found[1]) * (_MIB_PER_GIB if found[2] else 1)


def _target(section: Mapping[str, Any], where: str) -> Target:
    if "host" not in section:
        raise Invalid(
            f"{where} has no host", code="invalid_deployment", resolution=f"say in {where} which machine it is"
        )
    return Target(
        host=_matched(_HOST_NAME, section["host"], f"{where}.host"),
        ssh_user=_matched(_USER_NAME, section.get("ssh_user", "root"), f"{where}.ssh_user"),
        ssh_port=_count(section.get("ssh_port", 22), f"{where}.ssh_port"),
    )


def _count(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _invalid(where, value, "a number from 0")
    return value


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise _invalid(where, value, "true or false")
    return value


def _matched(pattern: re.Pattern[str], value: object, where: str, *, secret: bool = False) -> str:
    if not isinstance(value, str) or pattern.fullmatch(value) is None or ".." in value:
        raise _invalid(where, "it" if secret else value, "plain letters, digits and - _ . / where they belong")
    return value


def _known(section: Mapping[str, Any], names: set[str], *, where: str) -> None:
    if unknown := sorted(set(section) - names):
        raise Invalid(
            f"{where} has unknown entries: {', '.join(unknown)}",
            code="invalid_deployment",
            resolution=f"choose from {', '.join(sorted(names))}",
        )


def _invalid(where: str, value: object, good: str) -> Invalid:
    return Invalid(f"{where} cannot be {str(value)[:80]!r}", code="invalid_deployment", resolution=f"write {good}")

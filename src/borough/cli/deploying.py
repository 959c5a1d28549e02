"""What is put on hosts to run controller and host daemons there: files, units and scripts. Pure functions.

Values come from a file that somebody wrote; each is checked, and quoted for whoever reads it. A key is only ever in a
file of mode 0600, which the script takes from its own text: never an argument of a command.
"""

import re
import shlex
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
_END: Final = "BOROUGH_END_OF_FILE"


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
    _known(section, names | {"cpu_total", "mem_total", "disk_total"}, where=where)
    return agent_service(
        user=user,
        listen=_matched(_LISTEN, section.get("listen", "0.0.0.0:9100"), f"{where}.listen"),
        storage=parse_storage(str(section.get("storage", "file"))).value,
        image_dir=_matched(_FOLDER, section.get("image_dir", f"/home/{user}/images"), f"{where}.image_dir"),
        runtime_dir=_matched(_FOLDER, section.get("runtime_dir", f"/home/{user}/runtime"), f"{where}.runtime_dir"),
        totals=(
            _count(section.get("cpu_total", 0), f"{where}.cpu_total"),
            _count(section.get("mem_total", 0), f"{where}.mem_total"),
            size_mib(section.get("disk_total", "200G"), f"{where}.disk_total"),
        ),
        host_id=None if "host_id" not in section else check_name(str(section["host_id"]), what="a host"),
        target=_target(section, where),
    )


def agent_service(
    *,
    user: str = USER,
    listen: str = "127.0.0.1:9100",
    storage: str = "file",
    image_dir: str | None = None,
    runtime_dir: str | None = None,
    totals: tuple[int, int, int] = (0, 0, 204_800),
    host_id: str | None = None,
    target: Target | None = None,
) -> Service:
    """Return a host daemon as a machine runs it: as root, which makes machines for others."""
    images, runtime = image_dir or f"/home/{user}/images", runtime_dir or f"/home/{user}/runtime"
    data = f"/home/{user}/data"
    cpu, mem, disk = totals
    arguments = [
        "--listen", listen, "--image-dir", images, "--runtime-dir", runtime, "--data-dir", data, "--storage", storage,
        "--cpu-total", str(cpu), "--mem-total", str(mem), "--disk-total", str(disk),
        *(["--host-id", host_id] if host_id else []),
    ]  # fmt: skip
    folders = (images, runtime, data) if storage == "file" else (data,)
    return Service(name="tt-agent", user="root", arguments=tuple(arguments), folders=folders, target=target)


def unit(service: Service, prefix: str) -> str:
    """Return the systemd unit (systemd.service(5), systemd.kill(5)) of a program."""
    words = (f"{prefix}/bin/{service.name}", *service.arguments)
    return f"""[Unit]
Description=Borough {service.name}
After=network-online.target
Wants=network-online.target

[Service]
Type=simple
User={service.user}
EnvironmentFile={prefix}/etc/{service.name}.env
ExecStart={" ".join(_unit_word(word) for word in words)}
Restart=on-failure
RestartSec=5
# Machines run on when the daemon is stopped or replaced, and are found again.
KillMode=process
TimeoutStopSec=60
LimitNOFILE=65536
Delegate=yes

[Install]
WantedBy=multi-user.target
"""


def environment_file(api_key: str) -> str:
    """Return the file that only the service manager reads."""
    escaped = api_key.replace("\\", "\\\\").replace('"', '\\"')
    return f'TT_API_KEY="{escaped}"\n'


def script(service: Service, made: Deployment, *, api_key: str, wheel: str) -> str:
    """Return what is run as root on the machine, over the standard input of ``sh``.

    ``wheel`` is where the package lies there. Running it again changes what differs and starts the program anew.
    """
    prefix, name = made.prefix, service.name
    quoted = shlex.quote
    steps = [
        "set -eu",
        "umask 077",
        "test -d /run/systemd/system || { echo 'this machine is not run by systemd' >&2; exit 3; }",
        f"id -u {quoted(made.user)} >/dev/null 2>&1 || useradd --system --create-home {quoted(made.user)}",
        f"install -d -m 0755 {quoted(prefix)} {quoted(prefix + '/bin')}",
        f"install -d -m 0700 {quoted(prefix + '/etc')}",
        *(f"install -d -m 0700 -o {quoted(service.user)} {quoted(folder)}" for folder in service.folders),
        f"test -x {quoted(prefix + '/venv/bin/python')} || python3 -m venv {quoted(prefix + '/venv')}",
        f"{quoted(prefix + '/venv/bin/python')} -m pip install --quiet --upgrade {quoted(wheel)}",
        f"chmod -R go+rX {quoted(prefix + '/venv')}",
        *(
            f"ln -sf {quoted(f'{prefix}/venv/bin/{program}')} {quoted(f'{prefix}/bin/{program}')}"
            for program in ("tt", "tt-ctl", "tt-agent")
        ),
        _file(f"{prefix}/etc/{name}.env", environment_file(api_key), mode="0600"),
        _file(f"/etc/systemd/system/{name}.service", unit(service, prefix), mode="0644"),
        "systemctl daemon-reload",
        f"systemctl enable --quiet {quoted(name)}",
        f"systemctl restart {quoted(name)}",
        f"systemctl is-active --quiet {quoted(name)}",
    ]
    return "\n".join(steps) + "\n"


def ssh_argv(target: Target) -> list[str]:
    """Return the command that runs a script, given on standard input, as root on a machine."""
    sudo = [] if target.ssh_user == "root" else ["sudo", "-n"]
    who = ["-p", str(target.ssh_port), "-l", target.ssh_user]
    return ["ssh", *_ssh_options(), *who, "--", target.host, *sudo, "sh", "-s"]


def scp_argv(target: Target, source: str, there: str) -> list[str]:
    """Return the command that copies a file to a machine."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    return ["scp", "-q", *_ssh_options(), "-P", str(target.ssh_port), "--", source, f"{target.ssh_user}@{host}:{there}"]


def _ssh_options() -> list[str]:
    # A machine's key is remembered when it is first seen; from then on no other is accepted (ssh_config(5)).
    return ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new", "-o", "ConnectTimeout=10"]


def size_mib(value: object, where: str) -> int:
    """Return MiB for ``"200G"`` or a number of MiB."""
    found = _SIZE.fullmatch(str(value))
    if found is None:
        raise _invalid(where, value, "as in 200G, or a number of MiB")
    return int(found[1]) * (_MIB_PER_GIB if found[2] else 1)


def _file(path: str, content: str, *, mode: str) -> str:
    draft = shlex.quote(f"{path}.new")
    return "\n".join(
        [
            f"cat > {draft} <<'{_END}'",
            f"{content.rstrip()}",
            _END,
            f"chmod {mode} {draft}",
            f"mv -f {draft} {shlex.quote(path)}",
        ]
    )


def _unit_word(word: str) -> str:
    """Return a word as systemd reads it back (systemd.syntax(7)): quoted, without specifiers or variables."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


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

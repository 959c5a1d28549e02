"""Settings of the fleet's two programs: flags over the environment over defaults, checked before anything is opened."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from borough.config.environment import shared_ledger, text
from borough.core.errors import Invalid
from borough.fleet.addresses import FIRST_HOST_PORT, LAST_HOST_PORT, PortRange
from borough.fleet.environments import MOST_LIFETIME
from borough.fleet.hosts import MOST_HOSTS, MOST_VMS, check_address
from borough.fleet.names import check_name
from borough.fleet.storage import Storage, parse_storage

CONTROLLER_ADDRESS: Final = "127.0.0.1:9200"
HOST_ADDRESS: Final = "127.0.0.1:9100"
REFERENCE_HOME: Final = Path("/home/ttstack")
KEY_VARIABLE: Final = "TT_API_KEY"
DOCKER_SOCKET: Final = Path("/var/run/docker.sock")
DISK_TOTAL_MIB: Final = 204_800
TOWN_FLEET: Final = "fleet"
"""The fleet's folder in the state folder of a town."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where a program listens and who is let in."""

    host: str
    port: int
    """0: a free one."""
    api_key: str | None = field(default=None, repr=False)
    join_only: bool = False
    """Without a key, let in only whom a join token made known."""
    tls: bool = False
    """Serve HTTPS, and nothing else, with a certificate of one's own."""

    @property
    def is_loopback(self) -> bool:
        """Tell whether only this machine can connect."""
        return _is_loopback(self.host)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    """What ``tt-ctl`` was told."""

    listening: Listening
    data_dir: Path
    ledger: Path | None = None
    """The data folder of the ``agentd`` whose ledger it shares."""
    strict: bool = False
    most_hosts: int = MOST_HOSTS
    most_vms: int = MOST_VMS
    most_lifetime: timedelta = MOST_LIFETIME
    verbose: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """What ``tt-agent`` was told."""

    listening: Listening
    image_dir: str
    """A folder, or the name of a ZFS dataset."""
    runtime_dir: str
    data_dir: Path
    storage: Storage = Storage.FILE
    cpu_total: int = 0
    """0: as many as this process may use."""
    mem_total_mib: int = 0
    """0: all there is."""
    disk_total_mib: int = DISK_TOTAL_MIB
    host_id: str | None = None
    most_vms: int = MOST_VMS
    ports: PortRange = PortRange()  # noqa: RUF009 - frozen, and the same for all
    bridge: str = "tt0"
    change_network: bool = True
    """Whether to try to make bridge and firewall; without, user-mode networking only."""
    server: tuple[str, int] | None = None
    """Host and port of the server that machines reach as ``borough.internal``, where their list names it."""
    host_image: bool = False
    """Whether machines may be made of this host's own programs, as the image ``host``."""
    docker_socket: Path = DOCKER_SOCKET
    """Where a container runtime listens."""
    strict: bool = False
    verbose: bool = False


def controller_settings(
    environ: Mapping[str, str],
    *,
    listen: str = CONTROLLER_ADDRESS,
    data_dir: Path | None = None,
    api_key: str | None = None,
    insecure: bool = False,
    strict: bool = False,
    max_hosts: int = MOST_HOSTS,
    max_vms: int = MOST_VMS,
    max_lifetime_s: int | None = None,
    verbose: bool = False,
) -> ControllerSettings:
    """Return the controller's settings.

    Raises:
        Invalid: an address (``invalid_bind``) or key (``invalid_key``) is none, or the program would let everybody in
            (``insecure``).
    """
    listening = _listening(environ, listen, api_key, insecure=insecure, join_only=False)
    return ControllerSettings(
        listening=listening,
        data_dir=data_dir or default_folder("ctl", environ),
        ledger=shared_ledger(environ),
        strict=strict,
        most_hosts=max_hosts,
        most_vms=max_vms,
        most_lifetime=MOST_LIFETIME if max_lifetime_s is None else timedelta(seconds=max_lifetime_s),
        verbose=verbose,
    )


def host_settings(
    environ: Mapping[str, str],
    *,
    listen: str = HOST_ADDRESS,
    image_dir: str | None = None,
    runtime_dir: str | None = None,
    data_dir: Path | None = None,
    storage: str = "file",
    cpu_total: int = 0,
    mem_total: int = 0,
    disk_total: int = DISK_TOTAL_MIB,
    host_id: str | None = None,
    api_key: str | None = None,
    insecure: bool = False,
    join_only: bool = False,
    tls: bool | None = None,
    strict: bool = False,
    max_vms: int = MOST_VMS,
    ports: Sequence[int] = (FIRST_HOST_PORT, LAST_HOST_PORT),
    bridge: str = "tt0",
    change_network: bool = True,
    host_image: bool = False,
    server: str | None = None,
    verbose: bool = False,
) -> HostSettings:
    """Return the host daemon's settings.

    ``tls`` ``None``: HTTPS where only joined controllers are let in and others can connect. Elsewhere the reference's
    clients are served, which speak plain HTTP.

    Raises:
        Invalid: an address (``invalid_bind``), key (``invalid_key``), storage (``unknown_storage``), id
            (``invalid_name``) or range (``invalid_ports``) is none, or the program would let everybody in
            (``insecure``).
    """
    first, last = ports
    if not 0 < first <= last <= LAST_HOST_PORT:
        raise Invalid(
            f"{first} to {last} is no range of ports", code="invalid_ports", resolution="as in 20000 and 65535"
        )
    listening = _listening(environ, listen, api_key, insecure=insecure, join_only=join_only)
    return HostSettings(
        listening=replace(listening, tls=join_only and not listening.is_loopback if tls is None else tls),
        image_dir=image_dir or str(default_folder("images", environ)),
        runtime_dir=runtime_dir or str(default_folder("runtime", environ)),
        data_dir=data_dir or default_folder("data", environ),
        storage=parse_storage(storage),
        cpu_total=cpu_total,
        mem_total_mib=mem_total,
        disk_total_mib=disk_total,
        host_id=None if host_id is None else check_name(host_id, what="a host"),
        most_vms=max_vms,
        ports=PortRange(first=first, last=last),
        bridge=bridge,
        change_network=change_network,
        host_image=host_image,
        server=None if server is None else parse_listen(check_address(server)),
        docker_socket=container_socket(environ),
        strict=strict,
        verbose=verbose,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Housing:
    """What was said of the fleet where a town is started."""

    image_dir: Path | None = None
    """Where base images lie; ``None``: in the town's own folder."""
    change_network: bool = False
    """The first host may make bridge and firewall; nobody who only wanted a town should find them changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TownFleetSettings:
    """What a town that houses needs: its controller, and this machine as its first host."""

    controller: ControllerSettings
    host: HostSettings


def fleet_of_town(
    environ: Mapping[str, str], state_folder: Path, housing: Housing, *, host: str, port: int, tls: bool = False
) -> TownFleetSettings:
    """Return the settings of the fleet of a town that is served at ``host`` and ``port``, with all its state inside.

    With ``tls`` its machines cannot reach the server: the proxy passes plain requests on.

    Raises:
        Invalid: the key in ``TT_API_KEY`` is none (``invalid_key``).
    """
    listening = Listening(host=host, port=port, api_key=_key(environ, None))
    state = state_folder.absolute() / TOWN_FLEET
    return TownFleetSettings(
        controller=ControllerSettings(listening=listening, data_dir=state / "ctl"),
        host=HostSettings(
            listening=listening,
            image_dir=str((housing.image_dir or state / "images").absolute()),
            runtime_dir=str(state / "runtime"),
            data_dir=state / "host",
            change_network=housing.change_network,
            server=None if tls else (_from_here(host), port),
            host_image=True,
            docker_socket=container_socket(environ),
        ),
    )


def _from_here(host: str) -> str:
    """Return where this machine reaches what listens at ``host``."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - to be recognised


def container_socket(environ: Mapping[str, str]) -> Path:
    """Return the container runtime's socket: the one in ``DOCKER_HOST``, else Docker's, else Podman's where it is."""
    scheme, mark, path = (text(environ, "DOCKER_HOST") or "").partition("://")
    if mark and scheme == "unix":
        return Path(path)
    own = Path(text(environ, "XDG_RUNTIME_DIR") or "/run/user/0")
    podmans = (Path("/run/podman/podman.sock"), own / "podman" / "podman.sock")
    return next((socket for socket in (DOCKER_SOCKET, *podmans) if socket.exists()), DOCKER_SOCKET)


def default_folder(name: str, environ: Mapping[str, str]) -> Path:
    """Return the reference's folder of that name where this user may use it, else one in the user's state folder."""
    wanted = REFERENCE_HOME / name
    there = next(folder for folder in (wanted, *wanted.parents) if folder.exists())
    if os.access(there, os.W_OK | os.X_OK):
        return wanted
    state = text(environ, "XDG_STATE_HOME")
    base = Path(state) if state else Path(text(environ, "HOME") or "~").expanduser() / ".local" / "state"
    return base / "borough" / name


def _listening(
    environ: Mapping[str, str], listen: str, api_key: str | None, *, insecure: bool, join_only: bool
) -> Listening:
    host, port = parse_listen(listen)
    key = _key(environ, api_key)
    listening = Listening(host=host, port=port, api_key=key, join_only=join_only)
    if key is None and not join_only and not listening.is_loopback and not insecure:
        raise Invalid(
            f"{listen} can be reached from elsewhere, and there is no key",
            code="insecure",
            reason="whoever can connect could run anything here",
            resolution=f"set {KEY_VARIABLE}, or listen on 127.0.0.1, or pass --insecure",
        )
    return listening


def _key(environ: Mapping[str, str], told: str | None) -> str | None:
    key = told if told is not None else environ.get(KEY_VARIABLE)
    if key is not None and (not key or not key.isascii() or not key.isprintable() or " " in key):
        raise Invalid(
            "the API key is not usable",
            code="invalid_key",
            reason="it has to be printable ASCII without blanks, and not empty",
            resolution=f"correct --api-key or {KEY_VARIABLE}, or leave both out",
        )
    return key


def parse_listen(listen: str) -> tuple[str, int]:
    """Return host and port of ``0.0.0.0:9200``, ``localhost:9200``, ``[::1]:9200``; port 0 is a free one.

    Raises:
        Invalid: it is none (``invalid_bind``).
    """
    host, _, port = listen.rpartition(":")
    try:
        check_address(f"{host}:{port}" if port != "0" else f"{host}:1")
    except Invalid:
        raise Invalid(
            f"{listen[:80]!r} is not an address to listen on",
            code="invalid_bind",
            resolution=f"write it as host:port, as in {CONTROLLER_ADDRESS}",
        ) from None
    return host.strip("[]"), int(port)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False

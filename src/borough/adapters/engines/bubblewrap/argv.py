"""Bubblewrap's arguments for a box, as a list built from values. They are handed over in memory, not as argv."""

from collections.abc import Sequence
from dataclasses import dataclass

from borough.adapters.engines.bubblewrap.keeper.boxes import FIRST_DATA, STATUS
from borough.adapters.engines.bubblewrap.view import Bind
from borough.governance.ports.workspaces import WORKSPACE

UID = GID = 1000
"""Who everything in a box belongs to, as seen from inside."""
NONCE_FILE = "/run/borough/nonce"
CODE_FILE = "/run/borough/code"
SOCKET_FOLDER = "/run/agentd"
SDK_ROOT = "/opt/borough"
INSTALLED = "/opt/agent"
"""Where an agent that was installed finds its files."""
TMP, VAR_TMP, SHM = "/tmp", "/var/tmp", "/dev/shm"  # noqa: S108 - the box's own, in memory
ETC = (
    "/etc/alternatives", "/etc/ca-certificates", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
    "/etc/localtime", "/etc/mime.types", "/etc/pki/ca-trust", "/etc/pki/tls/certs", "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
)  # fmt: skip
"""Of the host, where they are: what programs need to start and to check certificates. Nothing private lies there."""
ETC_OF_OURS = ("passwd", "group", "hosts", "nsswitch.conf")


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """How this host's system is laid out."""

    links: Sequence[tuple[str, str]]
    """Links at the root, as of a merged /usr: name and target."""
    folders: Sequence[str]
    """What are real folders there instead."""
    etc: Sequence[str]
    """Those of ``ETC`` that exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxView:
    """What is in one box."""

    workspace: str
    """Where the keeper has it mounted."""
    skeleton: str
    """The folder with the box's own files of /etc."""
    binds: Sequence[tuple[str, Bind]]
    """What of the host is shown, and where the keeper has it."""
    extra: Sequence[tuple[str, str]]
    """Further read-only paths: where the keeper has them, and where they are in the box."""
    private: Sequence[tuple[str, str]]
    """Private files in memory: the path in the box, and the mode in octal; their content comes as data, in order."""
    tmp_bytes: int
    shm_bytes: int
    hostname: str


def arguments(system: System, view: BoxView) -> list[str]:
    """Return bubblewrap's arguments; the first data descriptor is the holder's system call filter."""
    own_etc = [word for name in ETC_OF_OURS for word in ("--ro-bind", f"{view.skeleton}/{name}", f"/etc/{name}")]
    private = [
        word
        for place, (path, mode) in enumerate(view.private, start=FIRST_DATA + 1)
        for word in ("--perms", mode, "--ro-bind-data", str(place), path)
    ]
    return [
        "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup",
        "--disable-userns", "--uid", str(UID), "--gid", str(GID), "--hostname", view.hostname,
        "--cap-drop", "ALL", "--die-with-parent", "--new-session", "--clearenv", "--setenv", "PATH", "/usr/bin:/bin",
        "--ro-bind", "/usr", "/usr",
        *(word for name, target in system.links for word in ("--symlink", target, name)),
        *(word for name in system.folders for word in ("--ro-bind", name, name)),
        *(word for name in system.etc for word in ("--ro-bind", name, name)),
        *own_etc,
        "--proc", "/proc",
        "--dev", "/dev", "--size", str(view.shm_bytes), "--perms", "1777", "--tmpfs", SHM,
        "--size", str(view.tmp_bytes), "--perms", "1777", "--tmpfs", TMP,
        "--symlink", "../tmp", VAR_TMP,
        *(
            word
            for source, bind in view.binds
            for word in ("--bind" if bind.writable else "--ro-bind", source, bind.path)
        ),
        "--bind", view.workspace, WORKSPACE,
        *(word for source, target in view.extra for word in ("--ro-bind", source, target)),
        *private,
        # Last, since nothing can be made in them afterwards: what is in memory and has no size must not be written to.
        "--remount-ro", "/dev", "--remount-ro", "/",
        "--seccomp", str(FIRST_DATA), "--json-status-fd", str(STATUS), "--chdir", "/",
    ]  # fmt: skip

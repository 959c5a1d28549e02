"""Where ``agentd`` keeps its things and where its sockets are, known alike to the daemon and to whoever speaks to it.

Nothing here looks at the daemon's own settings: a client that was told nothing has to come to the same answer.
"""

import os
import pwd
import stat
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from borough.config.environment import text

SOCKET_VARIABLE = "SCARAB_SOCKET"
DATA_VARIABLE = "AGENTD_DATA_DIR"
AGENTS_SUFFIX = ".agents"
"""Agents connect to the operators' path with this behind it."""

_SOCKET = Path("agentd") / "agentd.sock"
_SYSTEM_RUN = Path("/run")
_SYSTEM_STATE = Path("/var/lib/agentd")
_SYSTEM_SETTINGS = Path("/etc/agentd/agentd.toml")
_OTHERS = 0o077
MOST_SOCKET_PATH_BYTES = 107
"""``sun_path`` of unix(7), without its final NUL."""


def operators_socket(environ: Mapping[str, str], *, uid: int | None = None) -> Path:
    """Return the operators' socket: ``SCARAB_SOCKET``, else ``agentd/agentd.sock`` in the folder for such things.

    That folder is ``/run`` for root, and otherwise ``XDG_RUNTIME_DIR``; a program without that variable (started by
    cron, say, or over ssh without a session) finds ``/run/user/<uid>`` by itself, and where there is none either,
    the socket is in the folder where the daemon keeps its state by default.
    """
    named = text(environ, SOCKET_VARIABLE)
    if named:
        return Path(named).absolute()
    user = os.geteuid() if uid is None else uid
    if user == 0:
        return _SYSTEM_RUN / _SOCKET
    told = text(environ, "XDG_RUNTIME_DIR")
    runtime = Path(told) if told else _SYSTEM_RUN / "user" / str(user)
    if told or _is_own_folder(runtime, user):
        return runtime / _SOCKET
    return default_state_folder(environ, uid=user) / "run" / _SOCKET.name


def socket_of_town(environ: Mapping[str, str], state_folder: Path) -> Path:
    """Return the operators' socket of a town: in its folder, or in a short one where that path is too long.

    The running server tells which in its record; the short one is the same at each start.
    """
    own = state_folder / _SOCKET.name
    if len(os.fsencode(agents_socket(own))) <= MOST_SOCKET_PATH_BYTES:
        return own
    runtime = text(environ, "XDG_RUNTIME_DIR")
    base = Path(runtime) if runtime else Path(f"/tmp/borough-{os.geteuid()}")  # noqa: S108 - refused unless it is ours
    return base / f"agentd-{sha256(os.fsencode(state_folder)).hexdigest()[:12]}.sock"


def agents_socket(operators: Path) -> Path:
    """Return the agents' socket that belongs to the operators' one."""
    return operators.with_name(operators.name + AGENTS_SUFFIX)


def data_folder(environ: Mapping[str, str], *, uid: int | None = None) -> Path:
    """Return where all state is: ``AGENTD_DATA_DIR``, else the user's folder for state."""
    named = text(environ, DATA_VARIABLE)
    return Path(named).absolute() if named else default_state_folder(environ, uid=uid)


def default_state_folder(environ: Mapping[str, str], *, uid: int | None = None) -> Path:
    """Return ``/var/lib/agentd`` for root, else ``agentd`` in ``XDG_STATE_HOME`` or ``~/.local/state``."""
    user = os.geteuid() if uid is None else uid
    if user == 0:
        return _SYSTEM_STATE
    told = text(environ, "XDG_STATE_HOME")
    return (Path(told) if told else _home(environ, user) / ".local" / "state") / "agentd"


def settings_file(environ: Mapping[str, str], *, uid: int | None = None) -> Path:
    """Return where ``agentd.toml`` is looked for when none is named."""
    user = os.geteuid() if uid is None else uid
    if user == 0:
        return _SYSTEM_SETTINGS
    told = text(environ, "XDG_CONFIG_HOME")
    return (Path(told) if told else _home(environ, user) / ".config") / "agentd" / "agentd.toml"


def _home(environ: Mapping[str, str], user: int) -> Path:
    return Path(text(environ, "HOME") or pwd.getpwuid(user).pw_dir)


def _is_own_folder(folder: Path, user: int) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == user and not stat.S_IMODE(found.st_mode) & _OTHERS

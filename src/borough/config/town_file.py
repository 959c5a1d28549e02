"""Making a town's folder and editing its ``tinytown.toml``."""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from borough.config import editing
from borough.config.agent_clis import FALLBACK_CLI
from borough.config.files import write_new, write_whole
from borough.config.reading import read_toml
from borough.config.town import STATE_FOLDER, TOWN_FILE, settings_from
from borough.core.errors import Conflict, Invalid, NotFound
from borough.town.names import town_name

STATE_SUBFOLDERS = ("agents", "logs", "tasks")
_FOLDER_MODE = 0o700
_FILE_MODE = 0o644
_LONGEST_HEAD_BYTES = 4096

_TEMPLATE = """\
# A town of agents. Every setting that is not here has its default; unknown ones are refused.
name = {name}
default_cli = {default_cli}     # one of the built-in ones, or a name under [agent_clis]
max_agents = {max_agents}

# The town's state is kept by an embedded store under {state}. To use a server that runs already:
# [redis]
# url = "redis://127.0.0.1:6379"      # or set REDIS_URL; keep a password in TINYTOWN_REDIS_PASSWORD

[townhall]
bind = "127.0.0.1"
rest_port = 8080
request_timeout_ms = 30000

# To let others in, make a key with 'tt auth gen-key' and set:
# [townhall.auth]
# mode = "api_key"
# api_key_hash = "$argon2id$..."
# api_key_scopes = ["town.read", "town.write", "agent.manage"]

[agent]
idle_timeout_secs = 300               # 0: a worker without work never leaves
# box = "require"                     # workers in boxes, or none; "auto": where borough up can make them

# A program of your own that does tasks:
# [agent_clis.mine]
# command = "my-agent --print"        # split into words, never run by a shell
# input = "stdin"                     # or "file", "argument"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTown:
    """What ``create_town`` made."""

    root: Path
    name: str
    gitignore_changed: bool


def create_town(
    root: Path, *, name: str | None = None, default_cli: str | None = None, max_agents: int = 10
) -> NewTown:
    """Make ``root`` a town's folder: ``tinytown.toml``, the state folder, a line in ``.gitignore``.

    Raises:
        Conflict: there is a town already (``town_exists``), or something stands where the state folder goes.
        Invalid: the name cannot be a town's (``invalid_town_name``).
        NotFound: there is no folder ``root`` (``folder_not_found``).
    """
    root = root.absolute()
    if not root.is_dir():
        raise NotFound(f"there is no folder {root}", code="folder_not_found", resolution="make it, or name another")
    chosen = town_name(name) if name is not None else proposed_name(root)
    text = _TEMPLATE.format(
        name=editing.toml_string(chosen),
        default_cli=editing.toml_string(default_cli or FALLBACK_CLI),
        max_agents=max_agents,
        state=STATE_FOLDER,
    )
    if os.path.lexists(root / TOWN_FILE):
        raise _exists(root)
    prepare_state_folder(root)
    changed = _ignore_state_folder(root)
    # The file comes last: a folder is a town when it is there, and then all the rest is.
    try:
        write_new(root / TOWN_FILE, text, mode=_FILE_MODE)
    except FileExistsError:
        raise _exists(root) from None
    return NewTown(root=root, name=chosen, gitignore_changed=changed)


def prepare_state_folder(root: Path) -> Path:
    """Return the state folder of the town at ``root``, made with its subfolders where they lack; nobody else enters.

    Raises:
        Conflict: a link, a file or another user's folder is there (``state_folder_taken``).
    """
    state = root / STATE_FOLDER
    for folder in (state, *(state / name for name in STATE_SUBFOLDERS)):
        folder.mkdir(mode=_FOLDER_MODE, exist_ok=True) if not os.path.lexists(folder) else None
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {os.geteuid(), 0}:
            raise Conflict(
                f"{folder} is not a folder of yours",
                code="state_folder_taken",
                reason="a link, a file or another user's folder stands there",
                resolution=f"look at it, then move it away: ls -ld {folder}",
            )
    return state


def proposed_name(root: Path) -> str:
    """Return ``<repository>-<branch>`` inside a git work tree, else the folder's name, made fit for a town."""
    repository, branch = _git_names(root)
    text = f"{repository}-{branch.replace('/', '-')}" if repository and branch else repository or root.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:63].rstrip("-._") or "town"


def change_town_setting(root: Path, key: str, written: str) -> None:
    """Set one key of the town's file, keeping its comments.

    Raises:
        NotFound: there is no town (``town_not_initialised``).
        Invalid: the key is unknown or the value does not fit; the file is as it was.
    """
    path = root / TOWN_FILE
    try:
        document = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _no_town(root) from None

    def check(data: Mapping[str, Any]) -> object:
        return settings_from(data, root=root, environ={}, more_clis={})

    changed = editing.with_setting(document, key, written, check=check, file=TOWN_FILE)
    write_whole(path, changed, mode=stat.S_IMODE(path.stat().st_mode))


def read_town_setting(root: Path, key: str) -> Any:
    """Return what the town's file sets ``key`` to; raises ``NotFound`` where it does not, or there is no town."""
    try:
        return editing.setting(read_toml(root / TOWN_FILE), key, file=TOWN_FILE)
    except FileNotFoundError:
        raise _no_town(root) from None


def _exists(root: Path) -> Conflict:
    return Conflict(
        f"{root} is a town already",
        code="town_exists",
        resolution=f"use it as it is, or remove {root / TOWN_FILE} first",
    )


def _no_town(root: Path) -> NotFound:
    return NotFound(
        f"there is no town at {root}",
        code="town_not_initialised",
        resolution="run 'tt init' in that folder, or name the town's folder with --town",
    )


def _ignore_state_folder(root: Path) -> bool:
    """Add the state folder to ``.gitignore`` unless it is there; a link is left alone."""
    path = root / ".gitignore"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)
    except OSError as error:
        raise Invalid(
            f"{path} cannot be written: {error.strerror}",
            code="unwritable_gitignore",
            reason="the town's state holds credentials and must not be committed",
            resolution=f"make it an ordinary file and add a line {STATE_FOLDER}",
        ) from None
    with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
        written = file.read()
        if any(line.strip().strip("/") == STATE_FOLDER for line in written.splitlines()):
            return False
        file.write(f"{'' if written.endswith(chr(10)) or not written else chr(10)}{STATE_FOLDER}\n")
    return True


def _git_names(root: Path) -> tuple[str | None, str | None]:
    """Return repository and branch of the work tree that holds ``root``.

    Read from its files: gitrepository-layout(5).
    """
    for folder in (root, *root.parents):
        entry = folder / ".git"
        try:
            if entry.is_dir():
                return folder.name or None, _branch(entry)
            if entry.is_file():
                git_folder = folder / _start_of(entry).removeprefix("gitdir:").strip()
                return _main_repository(git_folder) or folder.name, _branch(git_folder)
        except (OSError, UnicodeError):
            # An unreadable repository only costs the nicer name.
            return folder.name or None, None
    return None, None


def _branch(git_folder: Path) -> str | None:
    head = _start_of(git_folder / "HEAD")
    return head.removeprefix("ref: refs/heads/") if head.startswith("ref: refs/heads/") else None


def _main_repository(git_folder: Path) -> str | None:
    common = git_folder / "commondir"
    if not common.is_file():
        return None
    return (git_folder / _start_of(common)).resolve().parent.name or None


def _start_of(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.read(_LONGEST_HEAD_BYTES).strip()

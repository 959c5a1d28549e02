"""The box's own files of /etc, and what of the host's system is shown: looked up once, on this machine."""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from borough.adapters.engines.bubblewrap.argv import ETC, GID, TMP, UID, System

_FILES = {
    "passwd": (
        f"root:x:0:0:root:/:/bin/sh\nagent:x:{UID}:{GID}:agent:{TMP}:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
    ),
    "group": f"root:x:0:\nagent:x:{GID}:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost box\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
_ROOT_NAMES = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreters:
    """What runs code in boxes; ``None``: this host has none that a box can see."""

    sh: str | None
    python3: str | None
    node: str | None


def write(folder: Path) -> None:
    """Write the box's own files of /etc into ``folder``."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder.chmod(0o755)
    for name, content in _FILES.items():
        file = folder / name
        if not file.exists() or file.read_text() != content:
            file.write_text(content)
        file.chmod(0o644)


def system() -> System:
    """Return how this host's system is laid out."""
    links = [(name, str(Path(name).readlink())) for name in _ROOT_NAMES if Path(name).is_symlink()]
    folders = [name for name in _ROOT_NAMES if Path(name).is_dir() and not Path(name).is_symlink()]
    return System(links=links, folders=folders, etc=[name for name in ETC if Path(name).exists()])


def interpreters() -> Interpreters:
    """Return the programs under /usr (all that a box sees of the host's programs) that run code."""
    return Interpreters(
        sh=_first("/bin/sh", "/usr/bin/sh"),
        python3=_python(),
        node=_first("/usr/bin/node", "/usr/local/bin/node", "/usr/bin/nodejs"),
    )


def _first(*paths: str) -> str | None:
    return next((path for path in paths if os.access(path, os.X_OK) and _beneath_usr(path)), None)


def _python() -> str | None:
    """Return the system's Python, or the first that is new enough; by its name, since asking it would run it."""
    if (found := _first("/usr/bin/python3")) and _version(os.path.realpath(found)) >= _OLDEST_PYTHON:
        return found
    own = os.path.realpath(sys.executable)
    named = [str(path) for folder in ("/usr/local/bin", "/usr/bin") for path in Path(folder).glob("python3.*")]
    fitting = [path for path in named if _version(path) >= _OLDEST_PYTHON and _first(path)]
    return max(fitting, key=_version, default=own if _first(own) else None)


def _version(path: str) -> tuple[int, int]:
    found = re.search(r"python(\d+)\.(\d+)$", path)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _beneath_usr(path: str) -> bool:
    return os.path.realpath(path).startswith("/usr/")

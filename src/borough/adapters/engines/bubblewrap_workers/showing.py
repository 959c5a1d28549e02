"""What of this machine a worker's box shows, looked up on it: system, Python, the project's repository."""

import os
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import borough
from borough.adapters.engines.bubblewrap.view import within
from borough.adapters.engines.bubblewrap_workers.following import Followed, follow
from borough.adapters.engines.bubblewrap_workers.layout import DEVICES, SYSTEM, Place

_RESOLVER = "/etc/resolv.conf"
_OPEN_FOLDER, _OPEN_FILE = 0o005, 0o004


def folders() -> list[str]:
    """Return those of the system's folders that are here."""
    return [path for path in (*SYSTEM, *DEVICES) if Path(path).is_dir() and not Path(path).is_symlink()]


def resolver() -> list[str]:
    """Return where the resolver's settings lie outside of the system's folders: as a folder, as they get replaced."""
    real = os.path.realpath(_RESOLVER)
    if not Path(real).exists() or any(within(real, folder) for folder in SYSTEM):
        return []
    folder = str(Path(real).parent)
    return [real if folder in ("/", "/run", "/var") else folder]


def closed(top: str = "/etc") -> list[tuple[str, bool]]:
    """Return what beneath ``top`` we may read and not everybody may, and whether it is a folder."""
    found: list[tuple[str, bool]] = []
    waiting = [top]
    while waiting:
        with suppress(FileNotFoundError), os.scandir(waiting.pop()) as entries:  # it may go while we look
            for entry in entries:
                folder = entry.is_dir(follow_symlinks=False)
                open_to_all = _OPEN_FOLDER if folder else _OPEN_FILE
                if folder and _is_open(entry, open_to_all):
                    waiting.append(entry.path)
                elif (folder or entry.is_file(follow_symlinks=False)) and not _is_open(entry, open_to_all):
                    found.append((entry.path, folder))
    return sorted((path, folder) for path, folder in found if os.access(path, os.R_OK))


def _is_open(entry: "os.DirEntry[str]", bits: int) -> bool:
    return entry.stat(follow_symlinks=False).st_mode & bits == bits


def python() -> Followed:
    """Return where this program and the Python that runs it are."""
    found = Followed()
    package = str(Path(borough.__file__).parent)
    for path in (sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), package, sys.executable):
        real, links = follow(path)
        found.links += links
        if real is not None and path != sys.executable and Path(real).exists():
            found.paths.append(real)
    return found


def is_in_the_way(root: str) -> bool:
    """Tell whether a project at ``root`` would hide the system's own folders."""
    return any(within(place, root) for place in (*SYSTEM, "/proc", "/sys", "/dev", "/run"))


def repositories(roots: Iterable[str]) -> list[str]:
    """Return the repositories that hold what git keeps of work trees at ``roots``: commits are written there.

    A repository is believed only if it names the work tree in turn: what lies in the tree, agents may have written.
    """
    found = []
    for root in roots:
        try:
            told = (Path(root) / ".git").read_text(encoding="utf-8")
            own = Path(root, told.removeprefix("gitdir:").strip())
            if (own / "gitdir").read_text(encoding="utf-8").strip() == f"{root}/.git":
                found.append(os.path.realpath(own / (own / "commondir").read_text(encoding="utf-8").strip()))
        except (OSError, UnicodeError):
            continue  # no work tree of another repository
    return found


def reached(wanted: Sequence[Place], links: Sequence[tuple[str, str]], *, seen: Sequence[str]) -> list[tuple[str, str]]:
    """Return those of ``links`` that the box has to make: not what is seen of the host in it anyway."""
    shown = (*seen, *(place.path for place in wanted))
    return [(link, target) for link, target in dict(links).items() if not any(within(link, one) for one in shown)]

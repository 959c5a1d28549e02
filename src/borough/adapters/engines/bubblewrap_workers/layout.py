"""Bubblewrap's arguments for a worker's box, as a list built from values; nothing is looked at here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from borough.adapters.engines.bubblewrap.argv import SHM, TMP, VAR_TMP, System
from borough.adapters.engines.bubblewrap.view import within

SYSTEM = ("/usr", "/etc", "/opt", "/nix", "/snap", "/var/lib/ca-certificates")
"""Of the host, read-only; the folders and links at the root that belong to them come with ``System``."""
DEVICES = ("/sys/block", "/sys/bus", "/sys/class", "/sys/dev", "/sys/devices")
"""Likewise: what programs ask for the machine's processors and memory."""
OF_THE_KERNEL = ("/proc", "/sys", "/dev", "/run")
SCRIPT = 'echo >&0; exec "$@" 2>&1'
"""Says on standard input, which is a socket, that the box stands, and becomes the worker: the same process, whose end
is the end of all in the box since it is the first."""


@dataclass(frozen=True, slots=True)
class Place:
    """A path of the host that is in the box under the same name."""

    path: str
    writable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """What is in one worker's box; all paths are real ones, without links."""

    uid: int
    gid: int
    system: System
    folders: Sequence[str]
    """Those of ``SYSTEM`` and ``DEVICES`` that exist."""
    closed: Sequence[tuple[str, bool]] = ()
    """What of them not everybody may read, and whether it is a folder: not shown."""
    resolver: Sequence[str] = ()
    """Where the names of the network are asked for, outside of them."""
    home: str
    own_home: str
    """The folder that is the home in the box."""
    own_tmp: str
    places: Sequence[Place]
    links: Sequence[tuple[str, str]] = ()
    """By which of them are reached: the link and its target."""
    state: str
    """The folder of the town's state, of which nothing is shown but ``kept``."""
    kept: Sequence[Place] = ()
    """What a worker itself needs of it, or of what is ``closed``."""
    hidden: Sequence[tuple[str, bool]] = ()
    """Further places that hold secrets, and whether it is a folder."""
    fixed: Sequence[str] = ()
    """Files that are shown, read-only even where all around can be written."""
    cwd: str


def arguments(view: WorkerView) -> list[str]:
    """Return bubblewrap's arguments, without the program."""
    return [
        "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
        "--uid", str(view.uid), "--gid", str(view.gid), "--as-pid-1", "--cap-drop", "ALL", "--new-session",
        *(word for name, target in view.system.links for word in ("--symlink", target, name)),
        *(word for name in (*view.system.folders, *view.folders) for word in ("--ro-bind", name, name)),
        *_covered(view.closed),
        "--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", SHM,
        "--tmpfs", "/run", *(word for path in view.resolver for word in ("--ro-bind-try", path, path)),
        "--bind", view.own_tmp, TMP, "--symlink", "../tmp", VAR_TMP,
        *_shown(view),
        *(word for link, target in view.links for word in ("--symlink", target, link)),
        *_secret(view),
        *(word for path in _folders(view) for word in ("--remount-ro", path)), "--chdir", view.cwd,
    ]  # fmt: skip


def _shown(view: WorkerView) -> list[str]:
    """Outer places first, so that an inner one is seen in them; the home is one of them, of the worker's own."""
    wanted = settled(view.places)
    guarded = [view.state, *(path for path, _ in view.hidden), *view.fixed]
    guarded += [place.path for place in wanted if not place.writable]
    known = {place.path for place in wanted}
    pins = {Place(pin, writable=True) for path in guarded for pin in pinned(path, wanted) if pin not in known}
    own = {view.home} - known
    ordered = sorted({*wanted, *pins, *(Place(path, writable=True) for path in own)}, key=_depth)
    return [
        word
        for place in ordered
        for word in (
            "--dev-bind" if within(place.path, "/dev") else "--bind" if place.writable else "--ro-bind",
            view.own_home if place.path in own else place.path,
            place.path,
        )
    ]


def settled(places: Iterable[Place]) -> list[Place]:
    """Return ``places`` without those that others show anyway, outer ones first. Writable wins over the same place."""
    found: list[Place] = []
    for place in sorted(set(places), key=lambda place: (_depth(place), not place.writable)):
        outer = next((one for one in reversed(found) if within(place.path, one.path)), None)
        if outer is None or (outer.path != place.path and outer.writable != place.writable):
            found.append(place)
    return found


def pinned(path: str, places: Iterable[Place]) -> list[str]:
    """Return the folders between ``path`` and the writable place that holds it: as mounts they cannot be renamed."""
    holders = [place.path for place in places if place.writable and place.path != path and within(path, place.path)]
    if not holders:
        return []
    words = path.removeprefix(max(holders, key=len)).strip("/").split("/")[:-1]
    holder = max(holders, key=len).rstrip("/")
    return [f"{holder}/{'/'.join(words[: count + 1])}" for count in range(len(words))]


def _secret(view: WorkerView) -> list[str]:
    hidden = [(path, folder) for path, folder in view.hidden if _is_seen(path, view)]
    return [
        *(word for path in view.fixed for word in ("--ro-bind", path, path)),
        *_covered(hidden),
        *_covered([(view.state, True)]),
        *(word for kept in view.kept for word in ("--bind" if kept.writable else "--ro-bind", kept.path, kept.path)),
    ]  # fmt: skip


def _is_seen(path: str, view: WorkerView) -> bool:
    shown = (*view.folders, *view.system.folders, *(place.path for place in view.places))
    return not within(path, view.state) and any(within(path, one) for one in shown)


def _covered(places: Iterable[tuple[str, bool]]) -> list[str]:
    return [
        word
        for path, folder in places
        for word in (("--perms", "0755", "--tmpfs", path) if folder else ("--ro-bind", "/dev/null", path))
    ]


def _folders(view: WorkerView) -> list[str]:
    """Return what is in memory and has no size: nothing may be written to it once all is in its place."""
    covered = (*view.closed, *((path, folder) for path, folder in view.hidden if _is_seen(path, view)))
    return [*(path for path, folder in covered if folder), view.state, "/run", "/"]


def _depth(place: Place) -> tuple[int, str]:
    return place.path.count("/"), place.path

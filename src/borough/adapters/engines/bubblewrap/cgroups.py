"""Control groups of boxes: memory, processes and the share of the processor, counted for a whole box together.

Both interfaces are used: version 1 (one tree for each controller) and version 2 (one tree). Whether they may be used
is found out by using them. Paths are given, so that a tree of plain files does for a test.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_REMOVED_WITHIN_S = 5.0
_NEEDED_V2 = ("memory", "pids", "cpu")
_PERIOD_US = 100_000
_FIRST = "borough-"
"""How the names of groups begin."""
_WEIGHT_OF_SHARES = 100
"""A weight in version 2 that is as much as the 1024 shares of version 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """What a group may use."""

    memory_bytes: int
    processes: int
    cpu_weight: int
    """As ``cpu.weight`` has it: 100 is what everybody has."""
    cpus: int | None = None
    """How many processors' time it may take, at most."""


@dataclass(frozen=True, slots=True)
class Trees:
    """Where groups can be made: folder of the parent by controller (version 1), or one for all (version 2)."""

    version: int
    parents: dict[str, Path]


def find_trees(
    *,
    mounts: str | None = None,
    own: str | None = None,
    pid: Callable[[], int] = os.getpid,
) -> Trees:
    """Return where this process may make groups.

    Raises:
        OSError: nowhere; the text says why.
    """
    mounted = list(_mounted(Path("/proc/self/mountinfo").read_text() if mounts is None else mounts))
    membership = _membership(Path("/proc/self/cgroup").read_text() if own is None else own)
    v1 = {
        controller: point
        for kind, point, options in mounted
        if kind == "cgroup"
        for controller in options
        if controller in ("memory", "pids", "cpu", "freezer")
    }
    if {"memory", "pids"} <= v1.keys():
        parents = {name: _below(point, membership.get(name, "/")) for name, point in v1.items()}
        for parent in parents.values():
            _try(parent)
        return Trees(1, parents)
    unified = next((point for kind, point, _ in mounted if kind == "cgroup2"), None)
    if unified is None:
        raise OSError("no control groups are mounted")
    parent = _delegated(unified, _below(unified, membership.get("", "/")), pid())
    return Trees(2, {"": parent})


class Groups:
    """The groups of one box."""

    def __init__(self, trees: Trees, name: str) -> None:
        self._trees = trees
        self._folders = {controller: parent / f"{_FIRST}{name}" for controller, parent in trees.parents.items()}

    @property
    def members(self) -> list[str]:
        """The files into which a process writes itself to join."""
        return [str(folder / "cgroup.procs") for folder in dict.fromkeys(self._folders.values())]

    def make(self, amounts: Amounts | None = None) -> None:
        """Make the groups, with limits where they are known; leaves none when it raises ``OSError``."""
        try:
            for folder in dict.fromkeys(self._folders.values()):
                folder.mkdir(exist_ok=True)
            if amounts is not None:
                self.limit(amounts)
        except OSError:
            self.remove()
            raise

    def limit(self, amounts: Amounts) -> None:
        """Let the members use so much; raises ``OSError``."""
        for controller, name, value in self._settings(amounts):
            (self._folders[controller] / name).write_text(value)

    def rename(self, name: str) -> None:
        """Give the groups another name, with whoever is in them; in version 1 only.

        Raises:
            OSError: it cannot be given to all of them; some may have it.
        """
        renamed = {controller: parent / f"{_FIRST}{name}" for controller, parent in self._trees.parents.items()}
        for before, after in dict.fromkeys(zip(self._folders.values(), renamed.values(), strict=True)):
            before.rename(after)
        self._folders = renamed

    def freeze(self, *, frozen: bool) -> bool:
        """Stop or let go on all members at once; ``False`` where that cannot be done here."""
        folder = self._folders.get("freezer" if self._trees.version == 1 else "")
        if folder is None:
            return False
        name, words = ("freezer.state", ("THAWED", "FROZEN")) if self._trees.version == 1 else ("cgroup.freeze", "01")
        try:
            (folder / name).write_text(words[frozen])
        except FileNotFoundError:
            return False
        return True

    def pids(self) -> set[int]:
        """Return the members."""
        found: set[int] = set()
        for member in self.members:
            with suppress(FileNotFoundError):  # a group that is gone has none
                found |= {int(word) for word in Path(member).read_text().split()}
        return found

    def memory_bytes(self) -> int | None:
        """Return how much memory the members use now."""
        folder = self._folders.get("memory" if self._trees.version == 1 else "")
        if folder is None:
            return None
        name = "memory.usage_in_bytes" if self._trees.version == 1 else "memory.current"
        return int((folder / name).read_text())

    def out_of_memory_kills(self) -> int:
        """Return how many members the kernel ended because the group's memory was used up."""
        folder = self._folders.get("memory" if self._trees.version == 1 else "")
        file = (
            None if folder is None else folder / ("memory.oom_control" if self._trees.version == 1 else "memory.events")
        )
        if file is None or not file.exists():
            return 0
        counted = dict(line.split() for line in file.read_text().splitlines())
        return int(counted.get("oom_kill", 0))

    def remove(self) -> None:
        """Remove the groups once they are empty, which may be a moment after their last member's end."""
        deadline = time.monotonic() + _REMOVED_WITHIN_S
        for folder in dict.fromkeys(self._folders.values()):
            while True:
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
                else:
                    break

    def _settings(self, amounts: Amounts) -> list[tuple[str, str, str]]:
        if self._trees.version == 2:  # noqa: PLR2004 - the version
            return [
                ("", "memory.max", str(amounts.memory_bytes)),
                ("", "memory.oom.group", "1"),
                ("", "pids.max", str(amounts.processes)),
                ("", "cpu.weight", str(amounts.cpu_weight)),
                *([] if amounts.cpus is None else [("", "cpu.max", f"{amounts.cpus * _PERIOD_US} {_PERIOD_US}")]),
            ]
        settings = [
            ("memory", "memory.limit_in_bytes", str(amounts.memory_bytes)),
            ("pids", "pids.max", str(amounts.processes)),
        ]
        if "cpu" in self._folders:
            shares = max(2, amounts.cpu_weight * 1024 // _WEIGHT_OF_SHARES)
            settings.append(("cpu", "cpu.shares", str(shares)))
            if amounts.cpus is not None:
                settings.append(("cpu", "cpu.cfs_period_us", str(_PERIOD_US)))
                settings.append(("cpu", "cpu.cfs_quota_us", str(amounts.cpus * _PERIOD_US)))
        return settings


def remove_empty(trees: Trees, prefix: str) -> None:
    """Remove all groups whose names begin so and in which nobody is."""
    for parent in dict.fromkeys(trees.parents.values()):
        for folder in parent.glob(f"{_FIRST}{prefix}*"):
            with suppress(OSError):  # somebody is in it, or it has gone: that is for its own maker
                folder.rmdir()


def _mounted(table: str) -> Iterator[tuple[str, Path, list[str]]]:
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            yield kind, Path(before.split()[4]), options.split(",")


def _membership(table: str) -> dict[str, str]:
    found = {}
    for line in table.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _below(point: Path, path: str) -> Path:
    own = point / path.lstrip("/")
    return own if own.is_dir() else point  # in a container the path may be the host's


def _try(parent: Path) -> None:
    trial = parent / f"borough-trial-{os.getpid()}"
    trial.mkdir()
    trial.rmdir()


def _delegated(root: Path, own: Path, pid: int) -> Path:
    """Return a group of version 2 whose children may have limits.

    A group with members cannot give controllers to children, so we move into a leaf of our own first, as systemd's
    delegation foresees; only if nobody else is a member. Root may also use the tree's root, which is exempt.
    """
    for parent in dict.fromkeys((own, root)):
        try:
            members = {int(word) for word in (parent / "cgroup.procs").read_text().split()}
            if parent != root and members == {pid}:
                leaf = parent / "borough-daemon"
                leaf.mkdir(exist_ok=True)
                (leaf / "cgroup.procs").write_text(str(pid))
            for controller in _NEEDED_V2:
                (parent / "cgroup.subtree_control").write_text(f"+{controller}")
            _try(parent)
        except OSError:
            continue
        return parent
    raise OSError(f"{own} is not delegated to us with the controllers {', '.join(_NEEDED_V2)}")

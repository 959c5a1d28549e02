"""What differs between a workspace and its base, read from disk: files by their content, never by their times."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from borough.adapters.workspaces import opening
from borough.core.errors import Conflict

MOST_PATHS = 200_000
_OPAQUE = "user.overlay.opaque"
_CHUNK = 1 << 20


class NodeKind(StrEnum):
    """What a path is. Pipes, sockets and devices are not kept."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One path's state."""

    kind: NodeKind
    mode: int = 0
    size: int = 0
    digest: str | None = None
    """Of a file's content, SHA-256."""
    target: str | None = None
    """Of a link."""


Changes = dict[str, Node | None]
"""By path below the workspace; ``None``: it is in the base and was deleted."""


def overlay_changes(upper: Path, base: Path) -> Changes:
    """Return what ``upper``, laid over ``base`` by overlayfs, changes of it.

    A character device 0:0 there means "deleted", and an attribute on a folder that nothing of the base's folder is
    seen (the kernel's documentation of overlayfs).
    """
    found: Changes = {}
    with opened_base(base) as below:
        for where, folders, files, descriptor in os.fwalk(upper):
            relative = os.path.relpath(where, upper)
            prefix = "" if relative == "." else f"{relative}/"
            if prefix and _is_opaque(descriptor):
                for path in _all_beneath(below, relative):
                    found[path] = None
            for name in (*folders, *files):
                _note(found, f"{prefix}{name}", name, descriptor, below)
            _check_count(found)
    return found


def copy_changes(copy: Path, base: Path | None) -> Changes:
    """Return what ``copy`` has otherwise than ``base``, or at all when there is none."""
    found: Changes = {}
    seen: set[str] = set()
    with opened_base(base) as below:
        for where, folders, files, descriptor in os.fwalk(copy):
            relative = os.path.relpath(where, copy)
            prefix = "" if relative == "." else f"{relative}/"
            for name in (*folders, *files):
                seen.add(f"{prefix}{name}")
                _note(found, f"{prefix}{name}", name, descriptor, below)
            _check_count(found)
        if below is not None:
            for path in _all_beneath(below, ""):
                if path not in seen:
                    found[path] = None
    return found


def node_of(name: str, folder: int) -> Node | None:
    """Return the state of ``name`` in an open folder; ``None`` when it is gone or of a kind that is not kept."""
    try:
        found = os.lstat(name, dir_fd=folder)
        mode = stat.S_IMODE(found.st_mode) & 0o777
        if stat.S_ISDIR(found.st_mode):
            return Node(kind=NodeKind.FOLDER, mode=mode)
        if stat.S_ISLNK(found.st_mode):
            return Node(kind=NodeKind.LINK, target=os.readlink(name, dir_fd=folder))
        if stat.S_ISREG(found.st_mode):
            with opening.opened(folder, name) as named:
                descriptor = opening.reopen(named, os.O_RDONLY)
            try:
                return Node(kind=NodeKind.FILE, mode=mode, size=os.fstat(descriptor).st_size, digest=digest(descriptor))
            finally:
                os.close(descriptor)
    except FileNotFoundError:
        return None
    return None


def base_node(base: int | None, path: str) -> Node | None:
    """Return the state of ``path`` in the base."""
    if base is None:
        return None
    try:
        with opening.parent(base, path) as folder:
            return node_of(path.rpartition("/")[2], folder)
    except (FileNotFoundError, NotADirectoryError, opening.LinkOnTheWay):
        return None


def digest(descriptor: int) -> str:
    """Return the SHA-256 of an open file's content."""
    digested = hashlib.sha256()
    while part := os.read(descriptor, _CHUNK):
        digested.update(part)
    return digested.hexdigest()


def _note(found: Changes, path: str, name: str, folder: int, base: int | None) -> None:
    """Take in what ``name`` of an open upper folder says about ``path``."""
    before = _base_kind(base, path)
    if _is_whiteout(name, folder):
        if before is not None:
            found[path] = None
            for below in _all_beneath(base, path) if before is NodeKind.FOLDER else ():
                found[below] = None
        return
    now = node_of(name, folder)
    if now is None:
        return
    if before is NodeKind.FOLDER and now.kind is not NodeKind.FOLDER:
        for below in _all_beneath(base, path):
            found[below] = None
    if before is now.kind and _same(now, base_node(base, path)):
        found.pop(path, None)
    else:
        found[path] = now


def _same(now: Node, before: Node | None) -> bool:
    """Tell whether nothing was changed; a folder's mode is not a change worth telling."""
    return now == before or (before is not None and now.kind is before.kind is NodeKind.FOLDER)


def _base_kind(base: int | None, path: str) -> NodeKind | None:
    if base is None:
        return None
    with suppress(FileNotFoundError, NotADirectoryError, opening.LinkOnTheWay), opening.opened(base, path) as named:
        mode = os.fstat(named).st_mode
        if stat.S_ISDIR(mode):
            return NodeKind.FOLDER
        return NodeKind.LINK if stat.S_ISLNK(mode) else NodeKind.FILE
    return None


def _all_beneath(base: int | None, path: str) -> Iterator[str]:
    """Yield every path of the base beneath ``path``."""
    if base is None:
        return
    try:
        top = opening.reopened(base, path, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError, opening.LinkOnTheWay):
        return
    try:
        for where, folders, files, _ in os.fwalk(".", dir_fd=top):
            relative = os.path.normpath(f"{path}/{where}" if path else where)
            prefix = "" if relative == "." else f"{relative}/"
            for name in (*folders, *files):
                yield f"{prefix}{name}"
    finally:
        os.close(top)


def _is_whiteout(name: str, folder: int) -> bool:
    try:
        found = os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _is_opaque(folder: int) -> bool:
    try:
        return os.getxattr(folder, _OPAQUE) == b"y"
    except OSError:
        return False  # it has no such attribute, or the file system knows none


def _check_count(found: Changes) -> None:
    if len(found) > MOST_PATHS:
        raise Conflict(
            f"more than {MOST_PATHS} paths of the workspace differ from its base",
            code="workspace_too_large",
            resolution="delete what is not needed, or begin with another base",
        )


@contextmanager
def opened_base(path: Path | None) -> Iterator[int | None]:
    """Yield a descriptor of the base, if there is one."""
    if path is None:
        yield None
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)

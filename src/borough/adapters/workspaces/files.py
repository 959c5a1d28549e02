"""The file tools: the port ``Files``, over the workspace as its agent sees it and, for some, over the host."""

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar
from uuid import uuid4

from borough.adapters.workspaces import opening
from borough.adapters.workspaces.layout import Layout, Note
from borough.adapters.workspaces.mounting import Mounts
from borough.adapters.workspaces.opening import LinkOnTheWay
from borough.adapters.workspaces.refusals import (
    full,
    is_a_directory,
    not_a_directory,
    not_a_file,
    not_found,
    over_a_link,
)
from borough.core.errors import BoroughError, Forbidden
from borough.core.ids import AgentId
from borough.governance.globs import compile_glob
from borough.governance.ports.workspaces import WORKSPACE, FileContent, FileEntry
from borough.governance.trust import TrustLevel

_NEVER_SHOWN = ("/proc", "/sys", "/dev")
_NEVER_WRITTEN = (
    "/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/boot", "/etc", "/run", "/var/run",
)  # fmt: skip
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MOST_NAMES = 100_000
"""How many names of a folder are looked at."""
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Root:
    """Beneath what a path is opened, and whom new files belong to."""

    descriptor: int
    relative: str
    owner: tuple[int, int]


class WorkspaceFiles:
    """Reads and writes where an agent may. No symbolic link is followed, so a path means what it says."""

    def __init__(self, layout: Layout, mounts: Mounts, *, hidden: Sequence[str], limits: int) -> None:
        """``hidden`` are places of the host that nobody sees; ``limits`` is the size of the largest file."""
        self._layout = layout
        self._mounts = mounts
        self._hidden = (*_NEVER_SHOWN, *hidden)
        self._largest_bytes = limits

    async def read(self, agent_id: AgentId, path: str, *, limit: int) -> FileContent:
        """Return at most ``limit`` bytes; raises ``NotFound`` (``file_not_found``), ``Conflict``
        (``is_a_directory``, ``not_a_file``).
        """
        return await self._on(agent_id, path, lambda root: _read(root, path, limit), write=False)

    async def write(self, agent_id: AgentId, path: str, content: bytes, *, append: bool) -> int:
        """Write a file whole or not at all (or append), making folders; return how many bytes were written.

        Raises:
            Conflict: ``is_a_directory``, or ``disk_full``.
        """
        if len(content) > self._largest_bytes:
            raise full(path, f"a file may have at most {self._largest_bytes} bytes")
        step = _append if append else _replace
        return await self._on(agent_id, path, lambda root: step(root, path, content, self._largest_bytes), write=True)

    async def listing(self, agent_id: AgentId, path: str, *, glob: str | None, limit: int) -> tuple[FileEntry, ...]:
        """Return a folder's names, in order; raises ``NotFound`` (``file_not_found``), ``Conflict``
        (``not_a_directory``).
        """
        return await self._on(agent_id, path, lambda root: _listing(root, path, glob, limit), write=False)

    async def delete(self, agent_id: AgentId, path: str) -> bool:
        """Delete a file and tell whether it was there; raises ``Conflict`` (``is_a_directory``)."""
        return await self._on(agent_id, path, lambda root: _delete(root, path), write=True)

    async def _on(self, agent_id: AgentId, path: str, step: Callable[[_Root], _Answer], *, write: bool) -> _Answer:
        async with self._root(agent_id, path, write=write) as root:
            return await asyncio.to_thread(_told, path, step, root)

    @asynccontextmanager
    async def _root(self, agent_id: AgentId, path: str, *, write: bool) -> AsyncIterator[_Root]:
        _, note = self._layout.find(agent_id)
        if path == WORKSPACE or path.startswith(f"{WORKSPACE}/"):
            async with self._mounts.view(agent_id) as view:
                relative = path[len(WORKSPACE) + 1 :]
                yield _Root(descriptor=view.descriptor, relative=relative, owner=view.owner)
            return
        self._check_outside(note, path, write=write)
        descriptor = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield _Root(descriptor=descriptor, relative=path[1:], owner=(os.geteuid(), os.getegid()))
        finally:
            os.close(descriptor)

    def _check_outside(self, note: Note, path: str, *, write: bool) -> None:
        """Let a path outside of the workspace pass if the agent's trust level lets it see, or write, it."""
        trusted = TrustLevel(note.trust).at_least(TrustLevel.TRUSTED)
        hidden = any(_within(path, place) for place in self._hidden)
        if write:
            fine = trusted and not any(_within(path, place) for place in _NEVER_WRITTEN)
            fine = fine and any(_within(path, place) for place in note.writes)
        else:
            fine = trusted or any(_within(path, place) for place in note.reads)
        if hidden or not fine:
            raise _outside(path, "write" if write else "read", note)


def _told(path: str, step: Callable[[_Root], _Answer], root: _Root) -> _Answer:
    """Take ``step`` and turn what the system says into errors that callers know."""
    try:
        return step(root)
    except BoroughError:
        raise
    except LinkOnTheWay as failure:
        raise over_a_link(path) from failure
    except (FileNotFoundError, NotADirectoryError) as failure:
        raise not_found(path) from failure
    except PermissionError as failure:
        raise Forbidden(
            f"{path} cannot be opened",
            code="outside_workspace",
            reason="the file's own permissions do not let the daemon do that",
            resolution="change the file's mode or owner on the host",
        ) from failure
    except OSError as failure:
        if failure.errno in _FULL:
            raise full(path, os.strerror(failure.errno or 0)) from failure
        raise


def _read(root: _Root, path: str, limit: int) -> FileContent:
    with _regular(root, path) as named:
        descriptor = opening.reopen(named, os.O_RDONLY)
        with os.fdopen(descriptor, "rb") as file:
            return FileContent(content=file.read(limit), size=os.fstat(descriptor).st_size)


def _replace(root: _Root, path: str, content: bytes, _largest: int) -> int:
    mode = 0o644
    with suppress(FileNotFoundError, NotADirectoryError), _regular(root, path) as named:
        mode = stat.S_IMODE(os.fstat(named).st_mode) & 0o777
    name = _name(root, path)
    with opening.parent(root.descriptor, root.relative, make=root.owner) as folder:
        draft = f".{uuid4().hex}.new"
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            with os.fdopen(file, "wb") as writer:
                writer.write(content)
                writer.flush()
                if os.geteuid() == 0:
                    os.fchown(file, *root.owner)
                os.fchmod(file, mode)
                os.fsync(file)
            os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(draft, dir_fd=folder)
            raise
    return len(content)


def _append(root: _Root, path: str, content: bytes, largest: int) -> int:
    try:
        with _regular(root, path) as named:
            size = os.fstat(named).st_size
            if size + len(content) > largest:
                raise full(path, f"a file may have at most {largest} bytes")
            file = opening.reopen(named, os.O_WRONLY | os.O_APPEND)
    except (FileNotFoundError, NotADirectoryError):
        return _replace(root, path, content, largest)
    with os.fdopen(file, "wb", buffering=0) as writer:
        try:
            left = memoryview(content)
            while left:
                left = left[writer.write(left) :]
        except OSError:
            os.ftruncate(file, size)
            raise
    return len(content)


def _delete(root: _Root, path: str) -> bool:
    name = _name(root, path)
    try:
        with opening.parent(root.descriptor, root.relative) as folder:
            if stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
                raise is_a_directory(path)
            os.unlink(name, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _listing(root: _Root, path: str, glob: str | None, limit: int) -> tuple[FileEntry, ...]:
    with opening.opened(root.descriptor, root.relative) as named:
        if not stat.S_ISDIR(os.fstat(named).st_mode):
            raise not_a_directory(path)
        folder = opening.reopen(named, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return tuple(_entries(folder, path, glob, limit))
    finally:
        os.close(folder)


def _entries(folder: int, path: str, glob: str | None, limit: int) -> Iterator[FileEntry]:
    with os.scandir(folder) as scanned:
        names = sorted(entry.name for entry, _ in zip(scanned, range(_MOST_NAMES), strict=False))
    wanted = None if glob is None else compile_glob(glob)
    told = 0
    for name in names:
        if told >= limit:
            return
        if wanted is not None and not wanted.matches(name):
            continue
        with suppress(FileNotFoundError):  # deleted between the two looks
            found = os.lstat(name, dir_fd=folder)
            yield FileEntry(
                name=name,
                path=f"{path.rstrip('/')}/{name}",
                is_dir=stat.S_ISDIR(found.st_mode),
                size=found.st_size,
                modified=datetime.fromtimestamp(found.st_mtime, UTC),
            )
            told += 1


@contextmanager
def _regular(root: _Root, path: str) -> Iterator[int]:
    """Yield a descriptor that names a regular file: neither a device nor a pipe is ever opened."""
    with opening.opened(root.descriptor, root.relative) as named:
        mode = os.fstat(named).st_mode
        if stat.S_ISDIR(mode):
            raise is_a_directory(path)
        if stat.S_ISLNK(mode):
            raise LinkOnTheWay(errno.ELOOP, "it is a symbolic link")
        if not stat.S_ISREG(mode):
            raise not_a_file(path)
        yield named


def _name(root: _Root, path: str) -> str:
    if not root.relative:
        raise is_a_directory(path)
    return root.relative.rpartition("/")[2]


def _within(path: str, place: str) -> bool:
    return place in ("/", path) or path.startswith(f"{place}/")


def _outside(path: str, verb: str, note: Note) -> Forbidden:
    seen = note.writes if verb == "write" else note.reads
    return Forbidden(
        f"a {note.trust} agent may not {verb} {path}",
        code="outside_workspace",
        reason=f"besides its workspace it has {', '.join(seen) or 'nothing'} there",
        resolution=f"use a path below {WORKSPACE}, or name the folder in the manifest's fs.{verb} capability",
    )

"""Workspaces on this machine's disk: the port ``Workspaces``."""

import asyncio
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

from borough.adapters.engines.bubblewrap.plans import identity_of
from borough.adapters.engines.bubblewrap.view import readable
from borough.adapters.workspaces import restoring, trees
from borough.adapters.workspaces.layout import Kind, Layout, Note, Place
from borough.adapters.workspaces.mounting import Mounts, WorkspaceKeeper
from borough.adapters.workspaces.snapshots import SnapshotStore
from borough.adapters.workspaces.trees import Changes
from borough.core.errors import Invalid, Unavailable
from borough.core.ids import AgentId, canonical_id
from borough.governance.manifests import Manifest
from borough.governance.ports.workspaces import WORKSPACE, Change, ChangeKind, Snapshot
from borough.governance.trust import TrustLevel

_Answer = TypeVar("_Answer")


class _Lock(asyncio.Lock):
    """A lock that a weak dictionary can hold."""


class DiskWorkspaces:
    """Makes workspaces, remembers their states and returns to them."""

    def __init__(
        self,
        layout: Layout,
        mounts: Mounts,
        *,
        keeper: WorkspaceKeeper,
        secret: Sequence[str],
        largest_bytes: int,
        overlays: bool = True,
    ) -> None:
        """``secret`` are paths of the host that agents never see; without ``overlays`` a base is copied."""
        self._layout = layout
        self._mounts = mounts
        self._keeper = keeper
        self._secret = secret
        self._largest_bytes = largest_bytes
        self._overlays = overlays
        self._locks: WeakValueDictionary[str, _Lock] = WeakValueDictionary()

    async def create(self, agent_id: AgentId, manifest: Manifest) -> None:
        """Make the agent's workspace; idempotent.

        Raises:
            Invalid: the base is no folder (``workspace_base``).
        """
        base = None if manifest.workspace.base is None else _checked_base(manifest.workspace.base)
        async with self._lock(agent_id):
            place = self._layout.place(agent_id)
            if place.read_note() is not None:
                return
            owner = identity_of(canonical_id(agent_id)) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
            await asyncio.to_thread(_make_folders, place, owner)
            kind = Kind.PLAIN if base is None else await self._kind(place, base, owner)
            if kind is Kind.COPY and base is not None:
                await asyncio.to_thread(_copy, base, place.upper, owner)
            note = self._note(manifest, kind, base, owner)
            await asyncio.to_thread(place.write_note, note)

    async def snapshot(self, agent_id: AgentId, *, at: datetime, description: str) -> Snapshot:
        """Keep the present state."""
        return await self._keep(agent_id, at=at, description=description, lasting=False)

    async def history(self, agent_id: AgentId) -> tuple[Snapshot, ...]:
        """Return the snapshots, oldest first."""
        return await self._with(agent_id, lambda _place, _note, store: tuple(kept.snapshot for kept in store.all()))

    async def diff(self, agent_id: AgentId) -> Sequence[Change]:
        """Return what differs from the last snapshot, or from the base when there is none, by path."""

        def compare(place: Place, note: Note, store: SnapshotStore) -> Sequence[Change]:
            last = store.last()
            return _compared({} if last is None else last.changes, _changes(place, note), _base(note))

        return await self._with(agent_id, compare)

    async def rollback(self, agent_id: AgentId, index: int) -> Snapshot:
        """Return to a snapshot. The agent must not run meanwhile: pause it first.

        The state is restored through the workspace as it is mounted, since nothing may change beneath a mount; an
        agent that is paused sees it when it goes on.

        Raises:
            NotFound: there is no such snapshot (``snapshot_not_found``).
        """
        async with self._lock(agent_id):
            place, note = self._layout.find(agent_id)
            store = SnapshotStore(place, largest_bytes=self._largest_bytes)
            kept = await asyncio.to_thread(store.get, index)
            async with self._mounts.view(agent_id) as view:
                now = await asyncio.to_thread(_changes, place, note)
                base = _base(note)
                await asyncio.to_thread(restoring.restore, view, now, kept.changes, base=base, content=store.content)
            return kept.snapshot

    async def commit(self, agent_id: AgentId, *, at: datetime, description: str) -> Snapshot:
        """Make the present state a lasting snapshot on which later changes are counted anew."""
        return await self._keep(agent_id, at=at, description=description, lasting=True)

    async def discard(self, agent_id: AgentId) -> None:
        """Remove the workspace with its snapshots; idempotent."""
        async with self._lock(agent_id):
            place = self._layout.place(agent_id)
            if place.folder.exists():
                await self._mounts.forget(agent_id)
                await asyncio.to_thread(_remove, place.folder)

    async def _keep(self, agent_id: AgentId, *, at: datetime, description: str, lasting: bool) -> Snapshot:
        return await self._with(
            agent_id,
            lambda place, note, store: store.add(
                _changes(place, note), at=at, description=description, lasting=lasting
            ),
        )

    async def _with(self, agent_id: AgentId, step: Callable[[Place, Note, SnapshotStore], _Answer]) -> _Answer:
        async with self._lock(agent_id):
            place, note = self._layout.find(agent_id)
            store = SnapshotStore(place, largest_bytes=self._largest_bytes)
            return await asyncio.to_thread(step, place, note, store)

    async def _kind(self, place: Place, base: str, owner: tuple[int, int]) -> Kind:
        """Find out by doing it whether a base can be laid under a folder here."""
        if not self._overlays:
            return Kind.COPY
        name = canonical_id(place.folder.name)
        try:
            _, descriptor = await self._keeper.mount_workspace(name, base=base, layers=str(place.folder), owner=owner)
        except (OSError, Unavailable):
            return Kind.COPY
        os.close(descriptor)
        return Kind.OVERLAY

    def _note(self, manifest: Manifest, kind: Kind, base: str | None, owner: tuple[int, int]) -> Note:
        return Note(
            kind=kind,
            base=base,
            uid=owner[0],
            gid=owner[1],
            trust=manifest.trust_level.value,
            reads=readable(manifest, secret=self._secret),
            writes=_writes(manifest) if manifest.trust_level.at_least(TrustLevel.TRUSTED) else (),
        )

    def _lock(self, agent_id: AgentId) -> _Lock:
        return self._locks.setdefault(canonical_id(agent_id), _Lock())


def _checked_base(base: str) -> str:
    path = os.path.realpath(base)
    if not base.startswith("/") or not Path(path).is_dir() or path == "/":
        raise Invalid(
            f"{base[:200]!r} cannot be the base of a workspace",
            code="workspace_base",
            reason="it is not an existing folder with an absolute path",
            resolution="name a folder of this host in spec.workspace.base",
        )
    return path


def _make_folders(place: Place, owner: tuple[int, int]) -> None:
    for folder in (place.folder, place.upper, place.work):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    place.upper.chmod(0o755)  # others cannot come here: the folder above is private
    if os.geteuid() == 0:
        os.chown(place.upper, *owner)


def _copy(base: str, upper: Path, owner: tuple[int, int]) -> None:
    """Copy a base, for good: links stay links, and pipes and devices are left out."""

    def ignored(folder: str, names: list[str]) -> list[str]:
        modes = {name: Path(folder, name).lstat().st_mode for name in names}
        return [n for n, mode in modes.items() if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))]

    shutil.copytree(base, upper, symlinks=True, dirs_exist_ok=True, ignore=ignored)
    if os.geteuid() == 0:
        for _, folders, files, descriptor in os.fwalk(upper):
            for name in (*folders, *files):
                os.chown(name, *owner, dir_fd=descriptor, follow_symlinks=False)


def _remove(folder: Path) -> None:
    """Remove a workspace; overlayfs leaves folders behind that nobody may open."""
    with suppress(FileNotFoundError):  # of a workspace that never had one
        for where, folders, _, descriptor in os.fwalk(folder / "work", onerror=_raise):
            del where
            for name in folders:
                os.chmod(name, 0o700, dir_fd=descriptor)
    shutil.rmtree(folder)


def _raise(failure: OSError) -> None:
    raise failure


def _changes(place: Place, note: Note) -> Changes:
    base = None if note.base is None else Path(note.base)
    if note.kind is Kind.OVERLAY and base is not None:
        return trees.overlay_changes(place.upper, base)
    return trees.copy_changes(place.upper, base)


def _base(note: Note) -> Path | None:
    return None if note.base is None else Path(note.base)


def _compared(before: Changes, now: Changes, base: Path | None) -> list[Change]:
    """Return the paths in which two states differ, each state told by its changes of the same base."""
    found = []
    with trees.opened_base(base) as below:
        for path in sorted(before.keys() | now.keys()):
            old = before[path] if path in before else trees.base_node(below, path)
            new = now[path] if path in now else trees.base_node(below, path)
            if old == new:
                continue
            kind = ChangeKind.ADDED if old is None else ChangeKind.DELETED if new is None else ChangeKind.MODIFIED
            if old is not None and new is not None and old.kind is new.kind is trees.NodeKind.FOLDER:
                continue
            found.append(Change(path=f"{WORKSPACE}/{path}", kind=kind))
    return found


def _writes(manifest: Manifest) -> tuple[str, ...]:
    """Return the trees of the host that the file tools may change; what exactly, the capabilities decide before."""
    found = set()
    for capability in manifest.capabilities:
        if capability.domain in ("fs", "*") and capability.action in ("write", "delete", "*"):
            literal = "/" if capability.scope is None else capability.scope.pattern.partition("*")[0]
            whole = capability.scope is not None and capability.scope.is_literal
            found.add(literal if whole else literal.rpartition("/")[0] or "/")
    return tuple(sorted(found))

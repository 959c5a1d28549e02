"""Workspaces as folders that can be opened: mounted by the keeper where base and changes are laid over one another."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from borough.adapters.workspaces.layout import Kind, Layout
from borough.core.ids import AgentId, canonical_id


class WorkspaceKeeper(Protocol):
    """Who mounts workspaces, so that all boxes of an agent and its file tools share one view of it."""

    async def mount_workspace(
        self, name: str, *, base: str | None, layers: str, owner: tuple[int, int]
    ) -> tuple[str, int]:
        """Mount it, unless it is; return where the keeper has it and a descriptor, which the caller closes.

        ``owner`` is whom the base's files are shown to belong to, where that can be done.

        Raises:
            OSError: it cannot be mounted here.
            Unavailable: there is no keeper.
        """

    async def forget_workspace(self, name: str) -> None:
        """Take the mount away, if a keeper runs and has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A workspace as its agent sees it."""

    descriptor: int
    owner: tuple[int, int]


class Mounts:
    """Opens workspaces."""

    def __init__(self, layout: Layout, keeper: WorkspaceKeeper) -> None:
        self._layout = layout
        self._keeper = keeper

    async def path_for_boxes(self, agent_id: AgentId) -> str:
        """Return where the keeper has the workspace; raises as ``WorkspaceKeeper`` does."""
        place, note = self._layout.find(agent_id)
        base = note.base if note.kind is Kind.OVERLAY else None
        path, descriptor = await self._keeper.mount_workspace(
            canonical_id(agent_id), base=base, layers=str(place.folder), owner=(note.uid, note.gid)
        )
        os.close(descriptor)
        return path

    @asynccontextmanager
    async def view(self, agent_id: AgentId) -> AsyncIterator[View]:
        """Open the workspace, for as long as the context lasts."""
        place, note = self._layout.find(agent_id)
        if note.kind is Kind.OVERLAY:
            _, descriptor = await self._keeper.mount_workspace(
                canonical_id(agent_id), base=note.base, layers=str(place.folder), owner=(note.uid, note.gid)
            )
        else:
            descriptor = os.open(place.upper, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield View(descriptor=descriptor, owner=(note.uid, note.gid))
        finally:
            os.close(descriptor)

    async def forget(self, agent_id: AgentId) -> None:
        """Take the mount away; a box that still has the workspace keeps it."""
        await self._keeper.forget_workspace(canonical_id(agent_id))

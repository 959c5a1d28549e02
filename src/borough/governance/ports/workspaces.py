"""Agents' workspaces: their files, seen the same from inside a sandbox and from the file tools, and their past."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from borough.core.ids import AgentId
from borough.governance.manifests import Manifest

WORKSPACE = "/workspace"
"""Where agents and their tools find the workspace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileContent:
    """What was read of a file."""

    content: bytes
    size: int
    """Of the whole file, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One name of a folder."""

    name: str
    path: str
    is_dir: bool
    size: int
    modified: datetime


class Files(Protocol):
    """The file tools. Paths are canonical and absolute, as the agent sees them; they are opened beneath their root and no
    symbolic link is followed, so that the opened file is the one that was decided upon.

    All raise ``NotFound`` (``agent_not_found``) for an agent without a workspace, and ``Forbidden``
    (``outside_workspace``) for a path that leads over a link or that the agent's trust level does not let it see (or
    write). What is neither a file nor a folder is not opened: ``Conflict`` (``not_a_file``).
    """

    async def read(self, agent_id: AgentId, path: str, *, limit: int) -> FileContent:
        """Return at most ``limit`` bytes; raises ``NotFound`` (``file_not_found``), ``Conflict``
        (``is_a_directory``).
        """

    async def write(self, agent_id: AgentId, path: str, content: bytes, *, append: bool) -> int:
        """Write a file whole or not at all (or append), making folders; return how many bytes were written.

        Raises:
            Conflict: ``is_a_directory``, or ``disk_full``.
        """

    async def listing(self, agent_id: AgentId, path: str, *, glob: str | None, limit: int) -> tuple[FileEntry, ...]:
        """Return a folder's names, in order; raises ``NotFound`` (``file_not_found``), ``Conflict``
        (``not_a_directory``).
        """

    async def delete(self, agent_id: AgentId, path: str) -> bool:
        """Delete a file and tell whether it was there; raises ``Conflict`` (``is_a_directory``)."""


class ChangeKind(StrEnum):
    """How a path differs from the last snapshot."""

    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One path that differs."""

    path: str
    kind: ChangeKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A state of a workspace that can be returned to. ``index`` counts from 0, the oldest."""

    index: int
    created_at: datetime
    description: str
    size_bytes: int


class Workspaces(Protocol):
    """Workspaces: a read-only base and, above it, what the agent wrote. Raise ``NotFound`` (``agent_not_found``)."""

    async def create(self, agent_id: AgentId, manifest: Manifest) -> None:
        """Make the agent's workspace; idempotent.

        Raises:
            Invalid: the base is no folder (``workspace_base``).
        """

    async def snapshot(self, agent_id: AgentId, *, at: datetime, description: str) -> Snapshot:
        """Keep the present state."""

    async def history(self, agent_id: AgentId) -> tuple[Snapshot, ...]:
        """Return the snapshots, oldest first."""

    async def diff(self, agent_id: AgentId) -> Sequence[Change]:
        """Return what differs from the last snapshot, or from the base when there is none, by path."""

    async def rollback(self, agent_id: AgentId, index: int) -> Snapshot:
        """Return to a snapshot. The agent must not run meanwhile: pause it first.

        Raises:
            NotFound: there is no such snapshot (``snapshot_not_found``).
        """

    async def commit(self, agent_id: AgentId, *, at: datetime, description: str) -> Snapshot:
        """Make the present state a lasting snapshot on which later changes are counted anew."""

    async def discard(self, agent_id: AgentId) -> None:
        """Remove the workspace with its snapshots; idempotent."""

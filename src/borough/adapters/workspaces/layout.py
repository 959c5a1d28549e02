"""Where a workspace lies on disk, and what is noted about it."""

import json
import os
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from borough.adapters import beneath
from borough.core.errors import NotFound
from borough.core.ids import AgentId, canonical_id

_NOTE = "workspace.json"


class Kind(StrEnum):
    """How base and changes become one folder."""

    OVERLAY = "overlay"
    """The kernel lays the changes over the base (overlayfs)."""
    PLAIN = "plain"
    """There is no base."""
    COPY = "copy"
    """The base was copied, since this machine cannot lay one folder over another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is noted when a workspace is made."""

    kind: Kind
    base: str | None
    uid: int
    gid: int
    """Whom its files belong to on the host."""
    trust: str
    reads: tuple[str, ...]
    """Paths of the host that the agent sees outside of its workspace."""
    writes: tuple[str, ...]
    """Paths of the host that it may change through the file tools."""


@dataclass(frozen=True, slots=True)
class Place:
    """One agent's folder."""

    folder: Path

    @property
    def upper(self) -> Path:
        """What the agent wrote; of a copy everything."""
        return self.folder / "upper"

    @property
    def work(self) -> Path:
        """What overlayfs needs for itself."""
        return self.folder / "work"

    @property
    def empty(self) -> Path:
        """A base for those that have none."""
        return self.folder / "empty"

    @property
    def snapshots(self) -> Path:
        """One file for each snapshot."""
        return self.folder / "snapshots"

    @property
    def objects(self) -> Path:
        """Contents of files that snapshots need, by their SHA-256."""
        return self.folder / "objects"

    def read_note(self) -> Note | None:
        """Return what was noted, or ``None`` when there is no workspace."""
        try:
            told = json.loads((self.folder / _NOTE).read_bytes())
        except FileNotFoundError:
            return None
        told |= {"kind": Kind(told["kind"]), "reads": tuple(told["reads"]), "writes": tuple(told["writes"])}
        return Note(**told)

    def write_note(self, note: Note) -> None:
        """Note it; from then on the workspace exists."""
        directory = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            beneath.write_private(directory, _NOTE, json.dumps(asdict(note)).encode())
        finally:
            os.close(directory)


class Layout:
    """All workspaces below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def place(self, agent_id: AgentId) -> Place:
        """Return where an agent's workspace is, or would be."""
        return Place(self.root / canonical_id(agent_id))

    def find(self, agent_id: AgentId) -> tuple[Place, Note]:
        """Return an agent's workspace.

        Raises:
            NotFound: it has none (``agent_not_found``).
        """
        place = self.place(agent_id)
        note = place.read_note()
        if note is None:
            raise NotFound(
                f"agent {agent_id} has no workspace",
                code="agent_not_found",
                resolution="check the id; the workspace of an agent goes when the agent is removed",
            )
        return place, note

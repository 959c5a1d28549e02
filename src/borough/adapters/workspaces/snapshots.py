"""Snapshots: states of a workspace as lists of what differs from its base, with the contents kept by their hash.

Equal contents are kept once, whatever the snapshot; on file systems that can, a kept content shares its blocks with
the file it was taken from.
"""

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from borough.adapters import beneath
from borough.adapters.workspaces import opening
from borough.adapters.workspaces.layout import Place
from borough.adapters.workspaces.trees import Changes, Node, NodeKind, digest
from borough.core.errors import Conflict, NotFound
from borough.governance.ports.workspaces import Snapshot

MOST_PASSING = 64
"""Snapshots that are kept besides the lasting ones; the oldest go first."""
_FICLONE = 0x40049409  # ioctl_ficlone(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A snapshot with what it holds."""

    snapshot: Snapshot
    lasting: bool
    changes: Changes


class SnapshotStore:
    """The snapshots of one workspace. Used under its lock."""

    def __init__(self, place: Place, *, largest_bytes: int) -> None:
        self._place = place
        self._largest_bytes = largest_bytes

    def all(self) -> list[Kept]:
        """Return them, oldest first."""
        if not self._place.snapshots.is_dir():
            return []
        numbers = sorted(int(path.stem) for path in self._place.snapshots.glob("*.json") if path.stem.isdigit())
        return [self.get(number) for number in numbers]

    def last(self) -> Kept | None:
        """Return the newest."""
        kept = self.all()
        return kept[-1] if kept else None

    def get(self, index: int) -> Kept:
        """Return one.

        Raises:
            NotFound: there is none (``snapshot_not_found``).
        """
        try:
            told = json.loads((self._place.snapshots / f"{index}.json").read_bytes())
        except FileNotFoundError:
            raise NotFound(
                f"there is no snapshot {index}",
                code="snapshot_not_found",
                resolution="choose one from the workspace's history",
            ) from None
        changes: Changes = {
            path: None if node is None else Node(**{**node, "kind": NodeKind(node["kind"])})
            for path, node in told["changes"].items()
        }
        snapshot = Snapshot(
            index=index,
            created_at=datetime.fromisoformat(told["created_at"]),
            description=told["description"],
            size_bytes=told["size_bytes"],
        )
        return Kept(snapshot=snapshot, lasting=told["lasting"], changes=changes)

    def add(self, changes: Changes, *, at: datetime, description: str, lasting: bool) -> Snapshot:
        """Keep ``changes`` with the contents of their files.

        Raises:
            Conflict: they are too large (``workspace_too_large``), or a file changes all the time (``workspace_busy``).
        """
        size = sum(node.size for node in changes.values() if node is not None)
        if size > self._largest_bytes:
            raise Conflict(
                f"the workspace has {size} bytes of changes",
                code="workspace_too_large",
                reason=f"a snapshot holds at most {self._largest_bytes}",
                resolution="delete what is not needed",
            )
        for folder in (self._place.snapshots, self._place.objects):
            folder.mkdir(mode=0o700, exist_ok=True)
        kept = {path: None if node is None else self._keep(path, node) for path, node in changes.items()}
        before = self.all()
        index = before[-1].snapshot.index + 1 if before else 0
        told = {
            "created_at": at.isoformat(),
            "description": description,
            "size_bytes": size,
            "lasting": lasting,
            "changes": {path: None if node is None else asdict(node) for path, node in kept.items()},
        }
        self._write(index, json.dumps(told).encode())
        self._drop_oldest([*before, self.get(index)])
        return Snapshot(index=index, created_at=at, description=description, size_bytes=size)

    def content(self, digested: str) -> Path:
        """Return the file with a content that a snapshot holds."""
        return self._place.objects / digested

    def _keep(self, path: str, node: Node) -> Node:
        """Keep a file's content, and return its state as it was kept: it may have changed since it was looked at."""
        if node.kind is not NodeKind.FILE or node.digest is None or self.content(node.digest).exists():
            return node
        upper = os.open(self._place.upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            source = opening.reopened(upper, path, os.O_RDONLY)
        except FileNotFoundError:
            raise Conflict(
                f"{path} went while the snapshot was taken",
                code="workspace_busy",
                resolution="pause the agent, or try again",
            ) from None
        finally:
            os.close(upper)
        draft = self._place.objects / f".{uuid4().hex}.new"
        try:
            with os.fdopen(source, "rb") as reader, draft.open("xb") as writer:
                copy_content(reader.fileno(), writer.fileno())
                os.fsync(writer.fileno())
            with draft.open("rb") as made:
                digested = digest(made.fileno())
                size = os.fstat(made.fileno()).st_size
            draft.chmod(0o600)
            draft.replace(self.content(digested))
        finally:
            draft.unlink(missing_ok=True)
        return Node(kind=node.kind, mode=node.mode, size=size, digest=digested)

    def _write(self, index: int, content: bytes) -> None:
        directory = os.open(self._place.snapshots, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            beneath.write_private(directory, f"{index}.json", content)
        finally:
            os.close(directory)

    def _drop_oldest(self, kept: list[Kept]) -> None:
        passing = [one for one in kept if not one.lasting]
        if len(passing) <= MOST_PASSING:
            return
        gone = {one.snapshot.index for one in passing[:-MOST_PASSING]}
        for index in gone:
            (self._place.snapshots / f"{index}.json").unlink()
        needed = {
            node.digest for one in kept if one.snapshot.index not in gone for node in one.changes.values() if node
        }
        for path in self._place.objects.iterdir():
            if path.name not in needed:
                path.unlink()


def copy_content(source: int, target: int) -> None:
    """Copy an open file into another, sharing its blocks where the file system can."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        while os.sendfile(target, source, None, 1 << 30):
            continue

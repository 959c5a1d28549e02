"""What is kept of a machine beside its disk: the text that it printed, and the states it can be returned to."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from borough.adapters.engines.bubblewrap_machines import layers
from borough.adapters.engines.refusals import no_snapshot
from borough.fleet.ports.machines import SnapshotInfo

_CHUNK_BYTES = 1 << 16


def read_from(path: Path, offset: int) -> list[bytes]:
    """Return what a file holds from ``offset`` on, in parts; nothing when it is not there."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(offset)
        return list(iter(lambda: file.read(_CHUNK_BYTES), b""))


def check_kept(disk: Path, vm_id: str, name: str) -> None:
    """Raise ``NotFound`` (``snapshot_not_found``) when a disk has no such snapshot."""
    if not (disk / layers.SNAPSHOTS / name).is_dir():
        raise no_snapshot(vm_id, name)


def snapshots_of(disk: Path) -> Sequence[SnapshotInfo]:
    """Return a disk's snapshots, oldest first."""
    kept = disk / layers.SNAPSHOTS
    if not kept.is_dir():
        return []
    found = [snapshot_info(path) for path in kept.iterdir() if not path.name.startswith(".")]
    return sorted(found, key=lambda each: each.created_at)


def snapshot_info(path: Path) -> SnapshotInfo:
    """Return what is shown of a snapshot."""
    about = path.stat()
    return SnapshotInfo(
        name=path.name,
        created_at=datetime.fromtimestamp(about.st_ctime, UTC),
        size_bytes=layers.used_bytes(path),
        with_memory=False,
    )

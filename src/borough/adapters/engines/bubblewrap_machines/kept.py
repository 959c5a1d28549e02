"""What is kept of a machine beside its disk: the text that it printed, and the states it can be returned to."""

from datetime import UTC, datetime
from pathlib import Path

from borough.adapters.engines.bubblewrap_machines import layers
from borough.fleet.ports.machines import SnapshotInfo

_CHUNK_BYTES = 1 << 16


def read_from(path: Path, offset: int) -> list[bytes]:
    """Return what a file holds from ``offset`` on, in parts; nothing when it is not there."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(offset)
        return list(iter(lambda: file.read(_CHUNK_BYTES), b""))


def snapshot_info(path: Path) -> SnapshotInfo:
    """Return what is shown of a snapshot."""
    about = path.stat()
    return SnapshotInfo(
        name=path.name,
        created_at=datetime.fromtimestamp(about.st_ctime, UTC),
        size_bytes=layers.used_bytes(path),
        with_memory=False,
    )

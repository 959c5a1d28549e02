"""What is kept of a machine beside its disk: the text that it printed, and the states it can be returned to."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from borough.adapters import system_calls
from borough.adapters.engines.bubblewrap_machines import layers
from borough.adapters.engines.refusals import no_snapshot
from borough.fleet.ports.engines import SnapshotInfo

_CHUNK_BYTES = 1 << 16
_EVENTS_BYTES = 4096


@contextmanager
def changes(path: Path) -> Iterator[asyncio.Event]:
    """Yield what is set whenever something was written to a file since; it is the waiter's to clear.

    Where there is no file, or the system lends no more such watches, it is never set.
    """
    written = asyncio.Event()
    try:
        descriptor = system_calls.watch_changes(str(path))
    except OSError:
        yield written
        return

    def hear() -> None:
        with suppress(BlockingIOError):  # it was read in the round before
            os.read(descriptor, _EVENTS_BYTES)
        written.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, hear)
    try:
        yield written
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


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

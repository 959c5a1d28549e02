"""States that machines return to: the root file system, and of one that ran its memory. They lie beside the disk."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from borough.adapters.engines.firecracker.bodies import MEMORY_FILE, ROOT, STATE_FILE
from borough.adapters.storage.copying import copy
from borough.fleet.ports.engines import SnapshotInfo

_FOLDER = "snapshots"


def keep(disk: Path, name: str, *, room: Path | None) -> None:
    """Keep a state under a name, whole or not at all; ``room`` is where memory was written, if it was. Blocks."""
    top = disk / _FOLDER
    top.mkdir(mode=0o700, exist_ok=True)
    draft = top / f".{uuid4().hex}"
    draft.mkdir(mode=0o700)
    try:
        copy(disk / ROOT, draft / ROOT)
        if room is not None:
            for part in (STATE_FILE, MEMORY_FILE):
                shutil.move(room / part, draft / part)
        draft.rename(top / name)
    finally:
        if draft.exists():
            shutil.rmtree(draft)


def bring_back(disk: Path, name: str) -> Path:
    """Put the kept root file system in the present one's place; return the folder with the rest. Blocks."""
    kept = disk / _FOLDER / name
    draft = disk / f".{ROOT}.{uuid4().hex}"
    try:
        copy(kept / ROOT, draft)
        draft.replace(disk / ROOT)
    finally:
        draft.unlink(missing_ok=True)
    return kept


def listed(disk: Path) -> Sequence[SnapshotInfo]:
    """Return the states, oldest first. Blocks."""
    top = disk / _FOLDER
    if not top.is_dir():
        return []
    found = [_info(folder) for folder in top.iterdir() if not folder.name.startswith(".")]
    return sorted(found, key=lambda info: info.created_at)


def forget(disk: Path, name: str) -> None:
    """Remove a state; one that is not there is gone already. Blocks."""
    doomed = disk / _FOLDER / f".{uuid4().hex}"
    with suppress(FileNotFoundError):
        (disk / _FOLDER / name).rename(doomed)
        shutil.rmtree(doomed)


def _info(folder: Path) -> SnapshotInfo:
    return SnapshotInfo(
        name=folder.name,
        created_at=datetime.fromtimestamp(folder.stat().st_mtime, UTC),
        size_bytes=sum(file.stat().st_blocks * 512 for file in folder.iterdir()),
        with_memory=(folder / STATE_FILE).exists(),
    )

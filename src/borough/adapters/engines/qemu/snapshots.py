"""States that are kept in a machine's disk: with memory while it runs, without when it is stopped.

QEMU keeps them inside the qcow2 file, so they go wherever the disk goes and end with it.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from borough.adapters import process
from borough.adapters.engines.qemu.argv import DISK_NODE
from borough.adapters.engines.qemu.qmp import Qmp
from borough.adapters.engines.refusals import not_possible
from borough.core.errors import Unavailable
from borough.fleet.images import ImageForm
from borough.fleet.ports.disks import Disk
from borough.fleet.ports.engines import SnapshotInfo

_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}
_WITHIN_S = 600.0
_TAG = "s-"
"""Before every name in the disk: there, a number would be taken for the place of another snapshot."""


def can_keep(disk: Disk) -> bool:
    """Tell whether a disk can keep states."""
    return disk.form is ImageForm.QCOW2


def check_disk(disk: Disk) -> None:
    """Raise ``Conflict`` (``not_possible``) for a disk that cannot keep states."""
    if not can_keep(disk):
        raise not_possible(
            f"a {disk.form.value} disk cannot keep snapshots",
            reason="QEMU keeps them inside qcow2 files",
            resolution="make the machine from a qcow2 image",
        )


async def save(qmp: Qmp, name: str) -> None:
    """Keep memory and disk of a machine that runs."""
    await qmp.job("snapshot-save", job_id=_job(), tag=_tag(name), vmstate=DISK_NODE, devices=[DISK_NODE])


async def load(qmp: Qmp, name: str) -> None:
    """Return to memory and disk that were kept."""
    await qmp.job("snapshot-load", job_id=_job(), tag=_tag(name), vmstate=DISK_NODE, devices=[DISK_NODE])


async def delete(qmp: Qmp, name: str) -> None:
    """Forget a state of a machine that runs."""
    await qmp.job("snapshot-delete", job_id=_job(), tag=_tag(name), devices=[DISK_NODE])


async def listed(qmp: Qmp) -> Sequence[SnapshotInfo]:
    """Return the states of a machine that runs, oldest first."""
    nodes = await qmp.execute("query-named-block-nodes", flat=True)
    disk = next(node for node in nodes if node.get("node-name") == DISK_NODE)
    return _infos(disk["image"].get("snapshots", []))


async def listed_at_rest(disk: Disk) -> Sequence[SnapshotInfo]:
    """Return the states of a machine that is stopped, oldest first."""
    told = json.loads(await _qemu_img("info", "--output=json", str(disk.path)))
    return _infos(told.get("snapshots", []))


async def save_at_rest(disk: Disk, name: str) -> None:
    """Keep the disk of a machine that is stopped."""
    await _qemu_img("snapshot", "-c", _tag(name), str(disk.path))


async def apply_at_rest(disk: Disk, name: str) -> None:
    """Return the disk of a machine that is stopped to a state."""
    await _qemu_img("snapshot", "-a", _tag(name), str(disk.path))


async def delete_at_rest(disk: Disk, name: str) -> None:
    """Forget a state of a machine that is stopped."""
    await _qemu_img("snapshot", "-d", _tag(name), str(disk.path))


async def copy(disk: Disk, name: str, target: Path) -> None:
    """Write the disk of a state to ``target``, over the same base. The machine may run: what is kept is not written to.

    Its memory is not copied: a machine that went on from it would have the addresses and keys of the first.
    """
    about = json.loads(await _qemu_img("info", "-U", "--output=json", str(disk.path)))
    base = about.get("full-backing-filename")
    over = [] if base is None else ["-B", str(base), "-F", str(about["backing-filename-format"])]
    kept = ["-U", "-l", f"snapshot.name={_tag(name)}", "-f", "qcow2", "-O", "qcow2"]
    await _qemu_img("convert", *kept, *over, str(disk.path), str(target))


def named(infos: Sequence[SnapshotInfo], name: str) -> SnapshotInfo | None:
    """Return the state of that name."""
    return next((info for info in infos if info.name == name), None)


def _infos(told: Sequence[Mapping[str, Any]]) -> Sequence[SnapshotInfo]:
    return [
        SnapshotInfo(
            name=each["name"].removeprefix(_TAG),
            created_at=datetime.fromtimestamp(each["date-sec"] + each["date-nsec"] / 1e9, UTC),
            size_bytes=each["vm-state-size"],
            with_memory=each["vm-state-size"] > 0,
        )
        for each in sorted(told, key=lambda each: (each["date-sec"], each["date-nsec"], int(each["id"])))
        if each["name"].startswith(_TAG)
    ]


def _tag(name: str) -> str:
    return _TAG + name


def _job() -> str:
    return f"borough-{uuid4().hex[:12]}"


async def _qemu_img(*words: str) -> bytes:
    finished = await asyncio.to_thread(
        process.run, ["qemu-img", *words], env=_ENVIRONMENT, timeout_s=_WITHIN_S
    )  # fmt: skip
    if finished.code != 0:
        raise Unavailable(
            f"qemu-img {words[0]} failed: {finished.words}",
            code="engine_failed",
            resolution=f"see whether the disk is whole: qemu-img check {words[-1]}",
        )
    return finished.stdout

"""``tt cp``: files and folders into machines and out of them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Final

import click

from borough.cli.commands import command
from borough.cli.errors import Usage
from borough.cli.fleet_session import LONG_TIMEOUT_S, controller
from borough.cli.output import output
from borough.client.fleet import FleetClient
from borough.client.tarring import packed, unpack
from borough.core.errors import BoroughError, NotFound

_INSIDE: Final = re.compile(r"([0-9a-f]{8}-[0-9a-f]{3}):(.*)", re.DOTALL)
_PART_BYTES: Final = 1 << 18
_IS_FOLDER: Final = frozenset({"not_a_file", "file_refused"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """A path in a machine."""

    vm_id: str
    path: str


def inside(text: str) -> Inside | None:
    """Return the path in a machine that ``text`` means (``VM:PATH``), or ``None``: it is one here."""
    found = _INSIDE.fullmatch(text)
    return None if found is None else Inside(vm_id=found[1], path=found[2] or ".")


@command("cp", example="tt cp ./site 1b9d6bcd-bbf:/srv/site\ntt cp 1b9d6bcd-bbf:/var/log/app.log .")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
def cp(*, source: str, target: str) -> None:
    """Copy a file or folder into a machine, or out of it.

    One of the two is VM:PATH. A folder's content comes into the folder that is named; a file goes into a folder under
    its own name if DST ends with / or is a folder here.
    """
    source_inside, target_inside = inside(source), inside(target)
    if (source_inside is None) == (target_inside is None):
        raise Usage(
            "exactly one of SRC and DST has to be in a machine",
            reason="a path in a machine is VM:PATH, with the machine's id",
            resolution="as in: tt cp notes.txt 1b9d6bcd-bbf:/root/notes.txt",
        )
    with controller(timeout_s=LONG_TIMEOUT_S) as fleet:
        if target_inside is not None:
            document = _upload(fleet, Path(source), target_inside)
        else:
            assert source_inside is not None  # noqa: S101 - exactly one of the two is
            document = _download(fleet, source_inside, Path(target), into=target.endswith("/"))
    output().show(document, lambda: output().line(f"copied {source} to {target}"))


def _upload(fleet: FleetClient, source: Path, target: Inside) -> dict[str, object]:
    if source.is_dir():
        count = fleet.write(target.vm_id, target.path, packed(source), from_tar=True)
        return {"vm": target.vm_id, "path": target.path, "bytes": count, "folder": True}
    if not source.is_file():
        raise NotFound(
            f"there is no file or folder {source}", code="file_not_found", resolution="check the name and the folder"
        )
    path = f"{target.path}{source.name}" if target.path.endswith("/") else target.path
    return {"vm": target.vm_id, "path": path, "bytes": fleet.write(target.vm_id, path, _content(source))}


def _content(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(_PART_BYTES):
            yield part


def _download(fleet: FleetClient, source: Inside, target: Path, *, into: bool) -> dict[str, object]:
    parts = fleet.read(source.vm_id, source.path)
    try:
        first = next(parts, b"")
    except BoroughError as problem:
        if problem.code not in _IS_FOLDER:
            raise
        count = unpack(fleet.read(source.vm_id, source.path, as_tar=True), target)
        return {"vm": source.vm_id, "path": str(target), "files": count, "folder": True}
    path = target / PurePosixPath(source.path).name if into or target.is_dir() else target
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name[:200]}.arriving")
    written = 0
    try:
        with draft.open("xb") as file:
            for part in chain((first,), parts):
                written += file.write(part)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return {"vm": source.vm_id, "path": str(path), "bytes": written}

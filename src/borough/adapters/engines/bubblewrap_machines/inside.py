"""What is done with a machine's files from inside its box, so that its own root is the root of every path.

It runs in a fork of the warden that has entered the box and is confined like any command there: what a machine cannot
reach, this cannot reach for it. Standard input and output are the content; errors go to standard error.
"""

import json
import os
import stat
from pathlib import Path

from borough.adapters.storage import trees

NOT_FOUND, NO_FOLDER, REFUSED = 66, 67, 68
"""Exit statuses."""
_CHUNK_BYTES = 1 << 18


def act(what: str, path: str) -> int:
    """Do one thing with ``path`` and return the exit status: list, read, pack, write or unpack."""
    try:
        _ACTS[what](Path("/") / path)
    except FileNotFoundError:
        return _told(f"there is no {path}", NOT_FOUND)
    except (NotADirectoryError, IsADirectoryError) as error:
        return _told(f"{path}: {error.strerror}", NO_FOLDER)
    except (OSError, trees.Unpackable) as error:
        return _told(f"{path}: {error}", REFUSED)
    return 0


def _told(text: str, status: int) -> int:
    os.write(2, text.encode()[:2000])
    return status


def _list(path: Path) -> None:
    for name in sorted(os.listdir(path)):  # noqa: PTH208 - names only
        try:
            about = os.lstat(path / name)
        except FileNotFoundError:
            continue  # removed between the two looks
        line = {
            "name": name, "is_dir": stat.S_ISDIR(about.st_mode), "size": about.st_size, "modified": about.st_mtime
        }  # fmt: skip
        _all_out((json.dumps(line) + "\n").encode())


def _read(path: Path) -> None:
    with path.open("rb") as file:
        while part := file.read(_CHUNK_BYTES):
            _all_out(part)


def _pack(path: Path) -> None:
    with os.fdopen(os.dup(1), "wb") as out:
        trees.pack(path, out)


def _write(path: Path) -> None:
    """Replace a file in one step, with the mode it had."""
    if path.is_dir():
        raise IsADirectoryError(21, "it is a folder", str(path))
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    before = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644
    path = path.resolve()
    draft = path.with_name(f".{path.name[:200]}.arriving")
    try:
        with draft.open("wb") as file:
            while part := os.read(0, _CHUNK_BYTES):
                file.write(part)
        draft.chmod(before)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _unpack(path: Path) -> None:
    with os.fdopen(os.dup(0), "rb") as source:
        trees.unpack(source, path, owned=False)


def _all_out(content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(1, view) :]


_ACTS = {"list": _list, "read": _read, "pack": _pack, "write": _write, "unpack": _unpack}

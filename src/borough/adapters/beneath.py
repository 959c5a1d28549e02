"""Files below a root, opened step by step without following links, so that no name leads out of it."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_directory(root: Path, parts: Sequence[str], *, create: bool = False, mode: int = 0o700) -> int:
    """Return a descriptor of the directory ``parts`` below ``root``; the caller closes it.

    Raises:
        FileNotFoundError: it does not exist, and ``create`` is false.
        OSError: a step is a link or no directory.
    """
    if create:
        root.mkdir(mode=mode, parents=True, exist_ok=True)
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            _plain(part)
            if create:
                with suppress(FileExistsError):  # what counts is that it is there when it is opened below
                    os.mkdir(part, mode, dir_fd=here)
            below = os.open(part, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
    except BaseException:
        os.close(here)
        raise
    return here


def open_file(directory: int, name: str, flags: int, mode: int = 0o600) -> int:
    """Return a descriptor of the file ``name`` in an open directory; never follows a link."""
    _plain(name)
    return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=directory)


def write_private(directory: int, name: str, content: bytes) -> None:
    """Replace the file ``name`` by one of mode 0600 with ``content``, in one step."""
    _plain(name)
    draft = f".{name}.new"
    with suppress(FileNotFoundError):  # the draft of a writer that was interrupted may be there or not
        os.unlink(draft, dir_fd=directory)
    file = open_file(directory, draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with os.fdopen(file, "wb") as writer:
        writer.write(content)
    os.replace(draft, name, src_dir_fd=directory, dst_dir_fd=directory)


def names(directory: int) -> list[str]:
    """Return the names in an open directory."""
    return os.listdir(directory)


def _plain(name: str) -> None:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is not a plain file name")

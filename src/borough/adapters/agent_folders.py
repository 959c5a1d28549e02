"""Folders of installed agents: their programs, and a copy of their manifest."""

import asyncio
import os
import shutil
from contextlib import suppress
from pathlib import Path

from borough.core.errors import Invalid, Unavailable

MANIFEST = "manifest.yaml"


class AgentFolders:
    """The port ``InstallFolders``, beneath one folder of the daemon's own."""

    def __init__(self, root: Path) -> None:
        """``root`` holds the default folders, by name; made when the first is."""
        self._root = root

    async def prepare(self, name: str, *, folder: str | None, manifest_yaml: str) -> str:
        """Put a copy of the manifest into the agent's folder and return its absolute path."""
        return await asyncio.to_thread(self._prepare, name, folder, manifest_yaml)

    async def program(self, folder: str, name: str) -> str | None:
        """Return the path of the program that the folder holds under the agent's name, if there is one."""
        path = Path(folder) / name
        return str(path) if await asyncio.to_thread(_is_program, path) else None

    async def discard(self, folder: str, name: str) -> None:
        """Take the copy of the manifest away again, and the folder where it is the default one."""
        await asyncio.to_thread(self._discard, Path(folder), name)

    def _prepare(self, name: str, folder: str | None, manifest_yaml: str) -> str:
        own = self._root / name
        if folder is None:
            own.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = own if folder is None else Path(folder)
        if not (path.is_absolute() and path.is_dir()):
            raise Invalid(
                f"{folder!r} is no folder",
                code="install_folder",
                resolution="give the absolute path of a folder that is there, or none for the default one",
            )
        try:
            _replace(path / MANIFEST, manifest_yaml.encode())
        except OSError as error:
            raise Unavailable(
                f"the manifest cannot be copied to {path}",
                code="install_folder_unwritable",
                reason=error.strerror,
                resolution="make the folder writable for the daemon, or leave it out for the default one",
            ) from error
        return str(path)

    def _discard(self, folder: Path, name: str) -> None:
        if folder == self._root / name:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            with suppress(FileNotFoundError):
                (folder / MANIFEST).unlink()


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; a link at its place is replaced, not followed."""
    fresh = path.with_name(f".{path.name}.new")
    with suppress(FileNotFoundError):
        fresh.unlink()
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)

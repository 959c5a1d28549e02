"""What is kept of runs beside their rows, one folder a run: source, workspace before and after, log, patch."""

import asyncio
import io
import os
import shutil
import stat
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import IO, Final, TypeVar

from borough.adapters import process
from borough.adapters.sql.private_files import private_folder
from borough.core.errors import Invalid, Unavailable
from borough.runs.orders import MOST_SOURCE_BYTES
from borough.runs.patches import EXECUTABLE, LINK, MOST_TEXT_BYTES, REGULAR, FileImage, Tree
from borough.runs.supervisor import FOLDER

MOST_RESULT_BYTES: Final = 1 << 30
MOST_LOG_BYTES: Final = 16 << 20
"""Of one attempt; what comes after is not kept, and the log says so at its end."""
CUT: Final = b"\n[the log is cut here: no more of it is kept]\n"
_CHUNK_BYTES: Final = 1 << 18
_SOURCE, _BEFORE, _AFTER, _PATCH = "source.tar", "before.tar", "after.tar", "result.patch"
_GIT_S: Final = 60.0
_Entry = tuple[str, str]
"""A file's mode and digest."""

T = TypeVar("T")


class RunFolders:
    """The port ``RunFiles``."""

    def __init__(self, folder: Path) -> None:
        self._folder = private_folder(folder)

    async def keep_source(self, run_id: str, content: AsyncIterator[bytes]) -> int:
        """Keep an archive as what a run begins with."""
        place = self._place(run_id, _SOURCE)
        return await self._arrives(place, content, most=MOST_SOURCE_BYTES, code="source_too_large", check=_check_tar)

    async def keep_folder(self, run_id: str, path: str) -> int:
        """Keep a folder as what a run begins with."""
        return await _threaded(lambda: _pack(Path(path), self._place(run_id, _SOURCE)))

    async def source(self, run_id: str) -> AsyncIterator[bytes]:
        """Yield the archive; nothing where there is none."""
        place = self._place(run_id, _SOURCE)
        if not place.exists():
            return
        with place.open("rb") as file:
            while part := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                yield part

    async def keep_before(self, run_id: str, content: AsyncIterator[bytes]) -> None:
        """Keep the workspace as the command finds it."""
        await self._arrives(self._place(run_id, _BEFORE), content, most=MOST_RESULT_BYTES, code="result_too_large")

    async def keep_after(self, run_id: str, content: AsyncIterator[bytes]) -> None:
        """Keep the workspace as the command left it."""
        await self._arrives(self._place(run_id, _AFTER), content, most=MOST_RESULT_BYTES, code="result_too_large")

    async def differing(self, run_id: str) -> tuple[Tree, Tree]:
        """Return what differs, before and after."""
        return await _threaded(lambda: _differing(self._place(run_id, _BEFORE), self._place(run_id, _AFTER)))

    async def keep_patch(self, run_id: str, text: str) -> int:
        """Keep the patch; the workspaces that it was made from go."""

        def keep() -> int:
            data = text.encode("utf-8", "surrogateescape")
            _replace(self._place(run_id, _PATCH), data)
            for name in (_BEFORE, _AFTER):
                self._place(run_id, name).unlink(missing_ok=True)
            return len(data)

        return await _threaded(keep)

    async def patch(self, run_id: str) -> bytes:
        """Return the patch."""
        return await _threaded(lambda: _content(self._place(run_id, _PATCH)))

    # -- logs ----------------------------------------------------------------------------------------------------------

    async def append_log(self, run_id: str, attempt: int, data: bytes) -> int:
        """Add to the log of an attempt."""
        return await _threaded(lambda: _append(self._log(run_id, attempt), data))

    async def log_size(self, run_id: str, attempt: int) -> int:
        """Return how long a log is."""
        return await _threaded(lambda: _size(self._log(run_id, attempt)))

    async def read_log(self, run_id: str, attempt: int, *, offset: int, limit: int) -> bytes:
        """Return a part of a log."""

        def read() -> bytes:
            try:
                with self._log(run_id, attempt).open("rb") as file:
                    file.seek(offset)
                    return file.read(limit)
            except FileNotFoundError:
                return b""

        return await _threaded(read)

    async def forget(self, run_id: str) -> None:
        """Remove everything of a run."""
        await _threaded(lambda: shutil.rmtree(self._folder / run_id, ignore_errors=True))

    def _log(self, run_id: str, attempt: int) -> Path:
        return self._place(run_id, f"attempt-{attempt}.log")

    def _place(self, run_id: str, name: str) -> Path:
        folder = self._folder / run_id
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder / name

    async def _arrives(
        self,
        place: Path,
        content: AsyncIterator[bytes],
        *,
        most: int,
        code: str,
        check: Callable[[Path], None] = lambda _path: None,
    ) -> int:
        draft, size = place.with_name(f"{place.name}.arriving"), 0
        try:
            with _opened(draft) as file:
                async for part in content:
                    size += len(part)
                    if size > most:
                        raise _too_large(code, most)
                    await asyncio.to_thread(file.write, part)
            await asyncio.to_thread(check, draft)
            draft.replace(place)
        except OSError as error:
            raise _disk_failed(error) from error
        finally:
            draft.unlink(missing_ok=True)
        return size


# -- folders of this machine -------------------------------------------------------------------------------------------


def _pack(folder: Path, place: Path) -> int:
    """Write the archive of a folder, and return its size.

    Of a git checkout it is what git knows or would add: neither what is ignored nor the history.
    """
    if not folder.is_dir():
        raise Invalid(
            f"there is no folder {str(folder)[:200]!r} on the server's machine",
            code="source_not_found",
            resolution="give the absolute path of a folder there, or send an archive",
        )
    draft, size = place.with_name(f"{place.name}.arriving"), 0
    try:
        with _opened(draft) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name in _names(folder):
                entry = archive.gettarinfo(folder / name, arcname=name)
                if not (entry.isreg() or entry.issym() or entry.isdir()):
                    continue  # what is no file has no meaning elsewhere
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = ""
                size += entry.size
                if size > MOST_SOURCE_BYTES:
                    raise _too_large("source_too_large", MOST_SOURCE_BYTES)
                if entry.isreg():
                    with (folder / name).open("rb") as content:
                        archive.addfile(entry, content)
                else:
                    archive.addfile(entry)
        draft.replace(place)
    finally:
        draft.unlink(missing_ok=True)
    return place.stat().st_size


def _names(folder: Path) -> Iterator[str]:
    listed = _git_names(folder) if (folder / ".git").exists() else None
    if listed is not None:
        yield from (name for name in listed if (folder / name).is_symlink() or (folder / name).is_file())
        return
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != ".git")
        for name in (*folders, *sorted(files)):
            yield str((Path(parent) / name).relative_to(folder))


def _git_names(folder: Path) -> list[str] | None:
    git = shutil.which("git")
    if git is None:
        return None
    argv = [git, "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]
    listed = process.run(argv, env={"PATH": os.defpath, "GIT_OPTIONAL_LOCKS": "0"}, timeout_s=_GIT_S)
    if listed.code:
        return None
    return [os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]


# -- archives ----------------------------------------------------------------------------------------------------------


def _check_tar(path: Path) -> None:
    try:
        with tarfile.open(path, "r:*") as archive:
            archive.next()
    except tarfile.TarError as error:
        raise Invalid(
            "what was sent is no tar archive",
            code="not_a_tar",
            reason=str(error),
            resolution="send it as tar writes it, plain or compressed",
        ) from None


def _differing(before: Path, after: Path) -> tuple[Tree, Tree]:
    here, there = _entries(before), _entries(after)
    names = {name for name in here.keys() | there.keys() if here.get(name) != there.get(name)}
    return _images(before, here, names), _images(after, there, names)


def _entries(path: Path) -> dict[str, _Entry]:
    return {name: (mode, _digest(content)) for name, mode, content in _members(path)}


def _images(path: Path, entries: dict[str, _Entry], names: set[str]) -> dict[str, FileImage]:
    return {
        name: FileImage(digest=entries[name][1], mode=mode, text=_text(content.read(MOST_TEXT_BYTES + 1)))
        for name, mode, content in _members(path)
        if name in names
    }


def _members(path: Path) -> Iterator[tuple[str, str, IO[bytes]]]:
    """Yield name, mode and content of every file and link of an archive but those of our own folder."""
    if not path.exists():
        return
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            name = member.name.removeprefix("./").strip("/")
            if not name or name.split("/")[0] == FOLDER:
                continue
            if member.issym():
                yield name, LINK, io.BytesIO(os.fsencode(member.linkname))
            elif member.isreg() or member.islnk():
                content = archive.extractfile(member)
                mode = EXECUTABLE if member.mode & stat.S_IXUSR else REGULAR
                yield name, mode, io.BytesIO() if content is None else content


def _digest(content: IO[bytes]) -> str:
    whole = sha256()
    while part := content.read(_CHUNK_BYTES):
        whole.update(part)
    return whole.hexdigest()


def _text(data: bytes) -> str | None:
    if len(data) > MOST_TEXT_BYTES or b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


# -- files -------------------------------------------------------------------------------------------------------------


def _append(path: Path, data: bytes) -> int:
    size = _size(path)
    if size >= MOST_LOG_BYTES:
        return size
    kept = data if size + len(data) <= MOST_LOG_BYTES else data[: MOST_LOG_BYTES - size] + CUT
    with _opened(path, os.O_APPEND) as file:
        file.write(kept)
    return size + len(kept)


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_name(f"{path.name}.arriving")
    with _opened(draft) as file:
        file.write(data)
    draft.replace(path)


def _opened(path: Path, how: int = os.O_TRUNC) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o600), "wb")


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def _threaded(work: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise _disk_failed(error) from error


def _too_large(code: str, most: int) -> Invalid:
    return Invalid(
        f"that is more than {most >> 20} MiB",
        code=code,
        resolution="leave out what the task does not need: what git ignores stays out by itself",
    )


def _disk_failed(error: OSError) -> Unavailable:
    return Unavailable(
        f"the files of a run cannot be kept: {error.strerror or error}",
        code="disk_failed",
        reason=error.filename and str(error.filename),
        resolution="make room on the disk of the town's folder",
    )

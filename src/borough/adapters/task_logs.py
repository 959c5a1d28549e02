"""Task logs as files: ``<root>/<task id>/<epoch>.log``.

A log survives the end of any process; after a loss of power its last seconds may be missing. Writing a part again
changes nothing, so a worker may repeat a part whose answer it did not get.
"""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

from borough.adapters import beneath
from borough.core.errors import Conflict, NotFound
from borough.core.ids import TaskId, canonical_id
from borough.town.ports.logs import LogPart

LIMIT_BYTES = 64 * 1024 * 1024
"""How much of one lease's output is kept."""
_SUFFIX = ".log"


class FileTaskLogs:
    """The port ``TaskLogs`` on files beneath ``root``."""

    def __init__(self, root: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._root = root
        self._limit = limit_bytes

    async def append(self, task_id: TaskId, epoch: int, *, offset: int, data: bytes) -> int:
        """Write ``data`` at ``offset`` and return the new size; what lies beyond the limit is counted and dropped."""
        return await asyncio.to_thread(self._append, task_id, epoch, offset, data)

    async def read(self, task_id: TaskId, epoch: int | None, *, offset: int, limit: int) -> LogPart:
        """Return a part of the log of one lease, or of the last lease that has one."""
        return await asyncio.to_thread(self._read, task_id, epoch, offset, limit)

    async def forget(self, task_id: TaskId) -> None:
        """Delete a task's logs; a task without any is fine."""
        await asyncio.to_thread(self._forget, task_id)

    def _append(self, task_id: TaskId, epoch: int, offset: int, data: bytes) -> int:
        directory = beneath.open_directory(self._root, [_folder(task_id)], create=True)
        try:
            file = beneath.open_file(directory, f"{epoch}{_SUFFIX}", os.O_RDWR | os.O_CREAT)
        finally:
            os.close(directory)
        try:
            return self._write(file, offset, data)
        finally:
            os.close(file)

    def _write(self, file: int, offset: int, data: bytes) -> int:
        size = os.fstat(file).st_size
        kept = min(size, self._limit)
        if offset > kept and kept < self._limit:
            raise Conflict(
                f"the log has {size} bytes; nothing can be written at {offset}",
                code="log_hole",
                reason="an earlier part has not arrived",
                resolution="send what follows the size given in the details",
                details={"size": size},
            )
        end = offset + len(data)
        fresh = data[kept - offset : self._limit - offset] if end > kept else b""
        _write_all(file, fresh, at=kept)
        if end > self._limit and size <= self._limit:
            # At its own fixed place: a repetition of this part writes the same bytes there.
            _write_all(file, self._last_line(), at=self._limit)
        return max(end, kept)

    def _last_line(self) -> bytes:
        return f"\n[the log is full: it keeps {self._limit} bytes of an attempt; the rest was dropped]\n".encode()

    def _read(self, task_id: TaskId, epoch: int | None, offset: int, limit: int) -> LogPart:
        try:
            directory = beneath.open_directory(self._root, [_folder(task_id)])
        except FileNotFoundError:
            raise _no_log(task_id, epoch) from None
        try:
            number = _newest(directory) if epoch is None else epoch
            if number is None:
                raise _no_log(task_id, epoch)
            file = beneath.open_file(directory, f"{number}{_SUFFIX}", os.O_RDONLY)
        except FileNotFoundError:
            raise _no_log(task_id, epoch) from None
        finally:
            os.close(directory)
        try:
            size = os.fstat(file).st_size
            return LogPart(epoch=number, offset=offset, data=os.pread(file, limit, offset), size=size)
        finally:
            os.close(file)

    async def forget_all(self) -> None:
        """Delete every task's logs."""
        await asyncio.to_thread(self._forget_all)

    def _forget_all(self) -> None:
        try:
            directory = beneath.open_directory(self._root, [])
        except FileNotFoundError:
            return
        try:
            folders = beneath.names(directory)
        finally:
            os.close(directory)
        for folder in folders:
            self._forget(TaskId(folder))

    def _forget(self, task_id: TaskId) -> None:
        folder = _folder(task_id)
        try:
            directory = beneath.open_directory(self._root, [folder])
        except FileNotFoundError:
            return
        try:
            for name in beneath.names(directory):
                os.unlink(name, dir_fd=directory)
        finally:
            os.close(directory)
        root = beneath.open_directory(self._root, [])
        try:
            with suppress(FileNotFoundError):  # somebody else forgot it at the same time
                os.rmdir(folder, dir_fd=root)
        finally:
            os.close(root)


def _write_all(file: int, data: bytes, *, at: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, at)
        rest = rest[written:]
        at += written


def _newest(directory: int) -> int | None:
    numbers = [name.removesuffix(_SUFFIX) for name in beneath.names(directory) if name.endswith(_SUFFIX)]
    return max((int(number) for number in numbers if number.isdigit()), default=None)


def _folder(task_id: TaskId) -> str:
    try:
        return canonical_id(task_id)
    except ValueError:
        raise NotFound(f"{task_id!r} is not a task's id", code="task_not_found") from None


def _no_log(task_id: TaskId, epoch: int | None) -> NotFound:
    return NotFound(
        f"task {task_id} has no log" + ("" if epoch is None else f" of epoch {epoch}"),
        code="log_not_found",
        reason="a log begins with the first byte that the agent CLI prints",
        resolution="look at the task's state and attempts",
    )

"""QEMU's machine protocol (QMP): lines of JSON over the machine's Unix socket (qmp-spec.txt of QEMU).

A connection is made for each operation: a machine that outlived a daemon is spoken to like any other, and nothing has
to be mended when a connection breaks. QEMU listens to one at a time, so whoever holds one lock per machine never waits.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from borough.core.errors import Unavailable

ANSWER_WITHIN_S = 20.0
JOB_WITHIN_S = 600.0
_LONGEST_LINE_BYTES = 8 << 20
_JOB_LOOK_S = 0.05
_AGREE = "qmp_capabilities"


class Refused(Unavailable):
    """QEMU understood a command and would not do it."""

    default_code = "engine_failed"


class SocketLost(Unavailable):
    """Nobody can speak to the machine: its socket is gone, or nobody listens at it."""

    default_code = "engine_failed"


class Qmp:
    """One open conversation."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def execute(self, command: str, **arguments: object) -> Any:
        """Do a command and return its answer; underscores of names stand for hyphens.

        Raises:
            Refused: QEMU said no.
            Unavailable: there was no answer (``engine_failed``); unknown whether it was done.
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        told = json.dumps({"execute": command, "arguments": named}).encode()
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                self._writer.write(told + b"\n")
                await self._writer.drain()
                return await self._answer(command)
        except ConnectionError:
            if command == _AGREE:
                raise
            raise silent(f"it ended the conversation at {command}") from None
        except TimeoutError:
            raise silent(f"it did not answer {command} within {ANSWER_WITHIN_S:g} s") from None
        except (OSError, ValueError) as failure:
            raise silent(f"the conversation broke at {command}: {failure}") from failure

    async def job(self, command: str, *, job_id: str, **arguments: object) -> None:
        """Do a command that is a job of QEMU's, and return when it is done; raises as ``execute``."""
        await self.execute(command, job_id=job_id, **arguments)
        try:
            async with asyncio.timeout(JOB_WITHIN_S):
                job = await self._job(job_id)
                while job["status"] != "concluded":
                    await asyncio.sleep(_JOB_LOOK_S)
                    job = await self._job(job_id)
        except TimeoutError:
            raise silent(f"{command} was not done within {JOB_WITHIN_S:g} s") from None
        await self.execute("job-dismiss", id=job_id)
        if "error" in job:
            raise Refused(f"QEMU could not do {command}: {job['error']}")

    async def greet(self) -> None:
        """Hear who it is and agree on what can be said."""
        async with asyncio.timeout(ANSWER_WITHIN_S):
            greeting = await self._line()
        if "QMP" not in greeting:
            raise silent("what answers is not QEMU")
        await self.execute(_AGREE)

    async def _job(self, job_id: str) -> Mapping[str, Any]:
        jobs = await self.execute("query-jobs")
        return next(job for job in jobs if job["id"] == job_id)

    async def _answer(self, command: str) -> Any:
        while True:
            told = await self._line()
            if "return" in told:
                return told["return"]
            if "error" in told:
                raise Refused(f"QEMU refused {command}: {told['error'].get('desc', told['error'])}")
            # Everything else is an event that nobody waits for here.

    async def _line(self) -> Mapping[str, Any]:
        line = await self._reader.readline()
        if not line:
            raise ConnectionResetError("it ended the conversation")
        told = json.loads(line)
        if not isinstance(told, dict):
            raise ValueError("what it says is no object")  # noqa: TRY004 - the protocol is broken, not a type of ours
        return told


@asynccontextmanager
async def conversation(folder: Path, socket: str) -> AsyncIterator[Qmp]:
    """Speak to the machine whose socket is in ``folder``.

    Raises:
        SocketLost: nobody can.
        Unavailable: it does not answer (``engine_failed``).
    """
    reader, writer = await connect(folder, socket)
    try:
        qmp = Qmp(reader, writer)
        try:
            await qmp.greet()
        except TimeoutError:
            raise silent(f"it did not greet within {ANSWER_WITHIN_S:g} s") from None
        except OSError as failure:
            raise _lost(failure) from failure  # it took the connection and ended
        yield qmp
    finally:
        writer.close()
        with suppress(OSError):  # it ended the conversation first, as it does when it quits
            await writer.wait_closed()


async def connect(folder: Path, socket: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a socket in ``folder``, however long the folder's path is; raises ``SocketLost``."""
    try:
        directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as failure:
        raise _lost(failure) from failure
    try:
        path = f"/proc/self/fd/{directory}/{socket}"
        async with asyncio.timeout(ANSWER_WITHIN_S):
            return await asyncio.open_unix_connection(path, limit=_LONGEST_LINE_BYTES)
    except TimeoutError:
        raise silent(f"{socket} did not take a connection within {ANSWER_WITHIN_S:g} s") from None
    except OSError as failure:
        raise _lost(failure) from failure
    finally:
        os.close(directory)


def silent(what: str) -> Unavailable:
    """Return the error for a machine that does not say what it should."""
    return Unavailable(
        f"QEMU does not answer: {what}",
        code="engine_failed",
        resolution="try again; a machine that stays silent can still be stopped by force or deleted",
    )


def _lost(failure: OSError) -> SocketLost:
    return SocketLost(
        f"QEMU cannot be spoken to: {failure}",
        resolution="stop the machine by force and start it again; its disk stays",
    )

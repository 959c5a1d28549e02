"""QEMU's guest agent, where a machine runs one: the way in without network, keys or SSH (qemu-ga-ref of QEMU).

It takes a command's whole input at its start and tells its output at its end, so SSH is the better way wherever it
answers; this one is for machines that have no other.
"""

import asyncio
import base64
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from borough.adapters.engines import inside
from borough.adapters.engines.qemu.argv import AGENT_SOCKET
from borough.adapters.engines.qemu.qmp import connect
from borough.adapters.engines.refusals import failed, not_possible
from borough.core.errors import BoroughError, Unavailable
from borough.fleet.ports.engines import Chunk, ExecOrder, Stream

GREETS_WITHIN_S = 1.0
_ANSWER_WITHIN_S = 20.0
_MOST_INPUT_BYTES = 8 << 20
_LOOK_AGAIN_S = 0.05
_MARK = b"\xff"
"""Begins what answers a synchronisation, and makes the agent forget half a request."""
_BY_SIGNAL = 128


class Agent:
    """One conversation with the agent of a machine that runs."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def greet(self) -> None:
        """Make sure that what is heard from here on answers what is said from here on; raises ``Unavailable``."""
        number = secrets.randbits(53)
        told = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        self._writer.write(_MARK + json.dumps(told).encode() + b"\n")
        try:
            async with asyncio.timeout(GREETS_WITHIN_S):
                await self._writer.drain()
                while True:
                    await self._reader.readuntil(_MARK)
                    with suppress(ValueError):  # a mark in what an earlier conversation left
                        if json.loads(await self._reader.readline()).get("return") == number:
                            return
        except (TimeoutError, OSError, EOFError) as failure:
            raise failed("no guest agent answers") from failure

    async def ask(self, command: str, **arguments: object) -> Any:
        """Ask for something and return the answer.

        Raises:
            Unavailable: the agent refused, with its words, or did not answer (``engine_failed``).
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._writer.write(json.dumps({"execute": command, "arguments": named}).encode() + b"\n")
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                await self._writer.drain()
                told = json.loads(await self._reader.readline())
        except (TimeoutError, OSError, ValueError) as failure:
            raise failed(f"the guest agent did not answer {command}") from failure
        if "error" in told:
            raise failed(f"the guest agent refused {command}: {told['error'].get('desc')}")
        return told["return"]

    def close(self) -> None:
        """End the conversation."""
        self._writer.close()


async def greeted(folder: Path) -> Agent | None:
    """Return the agent of the machine whose folder it is, or ``None`` when none answers."""
    try:
        agent = Agent(*await connect(folder, AGENT_SOCKET))
    except Unavailable:
        return None
    try:
        await agent.greet()
    except Unavailable:
        agent.close()
        return None
    return agent


async def execute(agent: Agent, order: ExecOrder, stdin: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
    """Run a command to its end and yield what it said; closing the iterator ends the command.

    Raises:
        Conflict: it wants a terminal, or more input than the agent takes (``not_possible``).
        Unavailable: the agent failed (``engine_failed``), or the time was over (``exec_timeout``).
    """
    if order.tty is not None:
        raise _not_by_agent("a terminal")
    token = uuid4().hex
    started = await agent.ask(
        "guest-exec",
        path="/bin/sh",
        arg=["-c", inside.starter(script := inside.script_of(order, token))],
        input_data=base64.b64encode(script.encode() + await _whole(stdin)).decode(),
        capture_output=True,
    )
    deadline = None if order.timeout_s is None else time.monotonic() + order.timeout_s
    ended = False
    try:
        while not (told := await agent.ask("guest-exec-status", pid=started["pid"]))["exited"]:
            if deadline is not None and time.monotonic() > deadline:
                raise Unavailable(
                    f"the command did not end within {order.timeout_s:g} s and was ended",
                    code="exec_timeout",
                    resolution="give it more time, or run it in the background",
                )
            await asyncio.sleep(_LOOK_AGAIN_S)
        ended = True
    finally:
        if not ended:
            await asyncio.shield(asyncio.ensure_future(_end(agent, token)))
    for chunk in _chunks(told):
        yield chunk


def _chunks(told: dict[str, Any]) -> list[Chunk]:
    said = [
        Chunk(stream=stream, data=base64.b64decode(told[name]))
        for stream, name in ((Stream.STDOUT, "out-data"), (Stream.STDERR, "err-data"))
        if told.get(name)
    ]
    if told.get("out-truncated") or told.get("err-truncated"):
        said.append(Chunk(stream=Stream.STDERR, data=b"\n(the guest agent keeps no more of what it said)\n"))
    code = told["exitcode"] if "exitcode" in told else _BY_SIGNAL + told.get("signal", 0)
    return [*said, Chunk(stream=Stream.EXIT, exit_code=code)]


async def _whole(stdin: AsyncIterator[bytes]) -> bytes:
    parts: list[bytes] = []
    async for part in stdin:
        parts.append(part)
        if sum(map(len, parts)) > _MOST_INPUT_BYTES:
            raise _not_by_agent(f"more than {_MOST_INPUT_BYTES} bytes of input")
    return b"".join(parts)


async def _end(agent: Agent, token: str) -> None:
    with suppress(BoroughError):  # then the machine itself has gone, and the command with it
        await agent.ask("guest-exec", path="/bin/sh", arg=["-c", inside.ending(token)])


def _not_by_agent(what: str) -> BoroughError:
    return not_possible(
        f"the guest agent cannot give {what}",
        reason="this machine has no SSH server that answers",
        resolution="start one in the machine",
    )

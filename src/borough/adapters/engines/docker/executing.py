"""A command in a container from its start to its exit code, and its end when nobody listens any more."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from signal import SIGKILL

from borough.adapters import procfs
from borough.adapters.engines.docker import attaching
from borough.adapters.engines.docker.client import EngineApi, failed
from borough.core.errors import BoroughError
from borough.fleet.ports.engines import Chunk, ExecOrder, Stream

_BEGUN_WITHIN_S = 10.0
_ENDED_WITHIN_S = 10.0
_LOOKS_EVERY_S = 0.01


async def executed(
    api: EngineApi, exec_id: str, order: ExecOrder, stdin: AsyncIterator[bytes]
) -> AsyncGenerator[Chunk, None]:
    """Start what was made to be executed and yield what it prints; the last chunk has its exit code.

    Raises:
        Unavailable: the runtime refuses, or does not answer (``engine_failed``).
    """
    has_terminal = order.tty is not None
    feeding: list[asyncio.Task[None]] = []
    path = f"/exec/{exec_id}"
    over = False
    try:
        async with attaching.taken_over(
            api, f"{path}/start", {"Detach": False, "Tty": has_terminal}
        ) as (reader, writer):  # fmt: skip
            loop = asyncio.get_running_loop()
            feeding.append(loop.create_task(attaching.feed(writer, stdin, ends=not has_terminal)))
            if order.tty is not None:
                await _resize(api, path, *order.tty)
            if has_terminal and order.sizes is not None:
                feeding.append(loop.create_task(_resizes(api, path, order.sizes)))
            async for chunk in attaching.parts(reader, has_heads=not has_terminal):
                yield chunk
        code = await _exit_code(api, path)
        over = True
        yield Chunk(stream=Stream.EXIT, exit_code=code)
    except BoroughError:
        over = not feeding  # it was refused: there is nothing to end
        raise
    finally:
        for task in feeding:
            task.cancel()
        await asyncio.gather(*feeding, return_exceptions=True)
        if not over:
            await _end(api, path)


async def _resizes(api: EngineApi, path: str, sizes: AsyncIterator[tuple[int, int]]) -> None:
    async for rows, columns in sizes:
        await _resize(api, path, rows, columns)


async def _resize(api: EngineApi, path: str, rows: int, columns: int) -> None:
    try:
        await api.ask("POST", f"{path}/resize", query={"h": str(rows), "w": str(columns)})
    except BoroughError:
        if (await api.ask("GET", f"{path}/json"))["Running"]:
            raise  # else the command was quicker than we, and needs no size any more


async def _exit_code(api: EngineApi, path: str) -> int:
    deadline = asyncio.get_running_loop().time() + _ENDED_WITHIN_S
    while True:
        told = await api.ask("GET", f"{path}/json")
        if not told["Running"]:
            return int(told["ExitCode"])
        if asyncio.get_running_loop().time() > deadline:
            raise failed("a command closed its output and goes on")
        await asyncio.sleep(_LOOKS_EVERY_S)


async def _end(api: EngineApi, path: str) -> None:
    """End a command nobody listens to any more, with all below it: the API knows its process only.

    One that was given up while it was being started has no process yet, and would have one soon: it is waited for.
    """
    deadline = asyncio.get_running_loop().time() + _BEGUN_WITHIN_S
    while True:
        told = await api.ask("GET", f"{path}/json")
        if told["Running"] and told["Pid"]:
            break
        if told["ExitCode"] is not None or asyncio.get_running_loop().time() > deadline:
            return
        await asyncio.sleep(_LOOKS_EVERY_S)
    ref = await asyncio.to_thread(procfs.identify, told["Pid"])
    if ref is not None:
        below = await asyncio.to_thread(procfs.descendants, ref.pid)
        procfs.tell([ref, *below], SIGKILL)

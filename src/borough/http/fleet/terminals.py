"""Terminals over WebSockets: ``GET /api/vms/{id}/exec`` and ``…/console``, for the controller and the host daemon.

Bytes are binary messages, in both directions. What is text is JSON: first the command (as the body of ``POST …/exec``),
then sizes of the terminal (``{"rows":…,"cols":…}``); and from here at last how it ended, as the last line of that
answer. Whoever closes ends the command.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import msgspec

from borough.core.acting import acting_as
from borough.core.errors import BoroughError, Invalid, Unavailable
from borough.fleet.ports.engines import Chunk, Stream
from borough.http.fleet import guest_wire, render
from borough.http.fleet.common import GUEST_ERRORS, ByTicket, vm_id
from borough.http.fleet.guests import AT_ONCE_S, exec_order, inside_of
from borough.http.operations import Access, Answer, Call, Operation, Response
from borough.http.sockets import BROKEN, SWITCHING, Socket, SocketAnswer, first_of, required
from borough.http.streams import begun

MOST_AT_ONCE = 64
IDLE_S = 3600.0
ORDER_WITHIN_S = 10.0
MOST_UNREAD_BYTES = 4 * 1_048_576
Wanted = TypeVar("Wanted")
_SIZE = guest_wire.Terminal(rows=24, cols=80)


@dataclass(slots=True)
class Terminals:
    """The terminals that are open on a server, and how many there may be."""

    most: int = MOST_AT_ONCE
    idle_s: float = IDLE_S
    """How long nobody may type and nothing be printed until a terminal is closed."""
    most_unread_bytes: int = MOST_UNREAD_BYTES
    """How much may be typed that the machine does not take."""
    open: int = 0

    def enter(self) -> None:
        """Count one more; raises ``Unavailable`` (``too_many_terminals``)."""
        if self.open >= self.most:
            raise Unavailable(
                f"{self.open} terminals are open, and no more may be",
                code="too_many_terminals",
                resolution="close one, or try again later",
            )
        self.open += 1

    def leave(self) -> None:
        """Count one less."""
        self.open -= 1


class _Keys:
    """What was typed and not yet taken, and the sizes that the terminal got."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue()
        self._unread = 0
        self._sizes: asyncio.Queue[tuple[int, int]] = asyncio.Queue()

    def take(self, message: bytes | str) -> None:
        """Take a message of the client's.

        Raises:
            Invalid: it is no size (``invalid_message``).
            Unavailable: too much waits already (``input_unread``).
        """
        if isinstance(message, str):
            size = _decoded(message, guest_wire.Terminal)
            self._sizes.put_nowait((size.rows, size.cols))
            return
        self._unread += len(message)
        if self._unread > self._most_bytes:
            raise Unavailable(
                f"more than {self._most_bytes} bytes were typed that the machine does not take",
                code="input_unread",
                resolution="send less at once, or write a file (PUT /api/vms/{id}/files)",
            )
        self._waiting.put_nowait(message)

    async def typed(self) -> AsyncIterator[bytes]:
        while True:
            part = await self._waiting.get()
            self._unread -= len(part)
            yield part

    async def sizes(self) -> AsyncIterator[tuple[int, int]]:
        while True:
            yield await self._sizes.get()


class _Conversation:
    """One terminal's."""

    def __init__(self, socket: Socket, terminals: Terminals) -> None:
        self._socket = socket
        self._idle_s = terminals.idle_s
        self._stirred = asyncio.get_running_loop().time()

    async def hold(self, messages: AsyncIterator[bytes | str], keys: _Keys, shown: AsyncIterator[bytes | str]) -> None:
        """Pass on what comes from both sides until one of them ends, or both are silent for too long."""
        tasks = [
            asyncio.ensure_future(part) for part in (self._show(shown), self._hear(messages, keys), self._silence())
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = [task for task in tasks if task.done()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await close(shown)
        for task in ended:
            task.result()

    async def _show(self, shown: AsyncIterator[bytes | str]) -> None:
        async for part in shown:
            self._stir()
            await self._socket.send(part)

    async def _hear(self, messages: AsyncIterator[bytes | str], keys: _Keys) -> None:
        async for message in messages:
            self._stir()
            keys.take(message)

    async def _silence(self) -> None:
        loop = asyncio.get_running_loop()
        while (left := self._stirred + self._idle_s - loop.time()) > 0:  # noqa: ASYNC110 - until a time that moves
            await asyncio.sleep(left)
        raise Unavailable(
            f"nothing was typed or printed for {self._idle_s:g} s",
            code="terminal_idle",
            resolution="open another; what should go on without a terminal is started in the background",
        )

    def _stir(self) -> None:
        self._stirred = asyncio.get_running_loop().time()


async def terminal(call: Call) -> Response:
    """Run a command at a terminal."""
    socket = required(call.socket)

    async def hold(keys: _Keys, messages: AsyncIterator[bytes | str], conversation: _Conversation) -> None:
        said = await first_of(messages, within_s=ORDER_WITHIN_S)
        if said is None:
            raise Invalid("no command came", code="invalid_command", resolution="send it first, as text")
        body = _decoded(said, guest_wire.Exec)
        order = exec_order(body if body.tty is not None else msgspec.structs.replace(body, tty=_SIZE))
        order = replace(order, sizes=keys.sizes())
        with acting_as(call.principal.id):
            chunks = inside_of(call).execute(vm_id(call), order, _first(body.stdin, keys.typed()))
        await conversation.hold(messages, keys, _told(chunks))

    return _answer(call, socket, hold)


async def console(call: Call) -> Response:
    """Sit down at a machine's serial console."""
    terminals: Terminals = call.state.terminals
    keys = _Keys(terminals.most_unread_bytes)
    # First: what cannot be is told by its status, also to whoever asks for no WebSocket.
    shown = await begun(inside_of(call).console(vm_id(call), keys.typed()), within_s=AT_ONCE_S)

    async def hold(_keys: _Keys, messages: AsyncIterator[bytes | str], conversation: _Conversation) -> None:
        await conversation.hold(messages, keys, _parts(shown))

    try:
        return _answer(call, required(call.socket), hold)
    except BoroughError:
        await close(shown)
        raise


def _answer(
    call: Call,
    socket: Socket,
    hold: Callable[[_Keys, AsyncIterator[bytes | str], _Conversation], Awaitable[None]],
) -> SocketAnswer:
    terminals: Terminals = call.state.terminals
    terminals.enter()

    async def held(spoken: Socket) -> None:
        try:
            keys, conversation = _Keys(terminals.most_unread_bytes), _Conversation(spoken, terminals)
            await hold(keys, spoken.messages(), conversation)
        except BoroughError as error:
            await spoken.send(_text(guest_wire.Chunk(stream="error", error=error.message, code=error.code)))
            await spoken.close(BROKEN)

    return SocketAnswer(socket, held, ends=call.disconnected, after=terminals.leave)


async def _told(chunks: AsyncIterator[Chunk]) -> AsyncIterator[bytes | str]:
    """Yield what a command prints as bytes, and its end as text."""
    try:
        async for chunk in chunks:
            yield _text(render.chunk_view(chunk)) if chunk.stream is Stream.EXIT else chunk.data
    finally:
        await close(chunks)


async def _parts(shown: AsyncIterator[bytes]) -> AsyncIterator[bytes | str]:
    try:
        async for part in shown:
            if part:
                yield part
    finally:
        await close(shown)


async def _first(content: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if content:
        yield content
    async for part in rest:
        yield part


async def close(parts: object) -> None:
    """Close what is iterated over, at once: what is behind it ends with it."""
    closing = getattr(parts, "aclose", None)
    if closing is not None:
        with suppress(RuntimeError):  # it is just being closed by whoever iterates
            await closing()


def _decoded(message: bytes | str, wanted: type[Wanted]) -> Wanted:
    try:
        return msgspec.json.decode(message, type=wanted)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Invalid(
            "a message cannot be read",
            code="invalid_message",
            reason=str(error),
            resolution="see GET /api/vms/{id}/exec in /docs for what is said over the WebSocket",
        ) from None


def _text(value: guest_wire.Chunk) -> str:
    return msgspec.json.encode(value).decode()


def _row(path: str, handler: object, summary: str, description: str, **errors: int) -> Operation:
    return Operation(
        method="GET",
        path=f"/api/vms/{{id}}{path}",
        handler=handler,  # type: ignore[arg-type]  # each is a handler
        access=Access.CALLER,
        summary=summary,
        description=description,
        tag="guests",
        answers=(Answer(status=SWITCHING, body=None, description="a WebSocket"),),
        errors={**errors, "upgrade_required": 426, "too_many_terminals": 503},
        streaming=True,
        query=ByTicket,
        by_ticket=True,
    )


_MESSAGES = (
    "Binary messages are what is typed and what is printed. A text message of the client's is the terminal's size, "
    '`{"rows":24,"cols":80}`; the last of the server\'s is `{"stream":"error","error":…,"code":…}` when it went wrong.'
)
OPERATIONS = (
    _row(
        "/exec",
        terminal,
        "Run a command inside at a terminal, over a WebSocket",
        "The first message is the command: the body of `POST /api/vms/{id}/exec`, as text. " + _MESSAGES + " When the "
        'command ends, the last is `{"stream":"exit","exit_code":0}`. Closing the WebSocket ends the command.',
    ),
    _row(
        "/console",
        console,
        "Type at a machine's serial console, over a WebSocket",
        _MESSAGES + " Sizes are passed over: a serial line has none.",
        **GUEST_ERRORS,
        console_in_use=409,
    ),
)

"""HTTP/1.1 on streams: h11 says what the bytes mean, this moves them."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import h11

CHUNK_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Streams:
    """The two directions of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Wire:
    """One side of an HTTP/1.1 connection."""

    def __init__(
        self,
        role: type[h11.CLIENT] | type[h11.SERVER],
        streams: Streams,
        *,
        head_bytes: int,
        moved: Callable[[int], None],
    ) -> None:
        """``moved`` is told of every chunk that was read, and may raise to stop."""
        self.state = h11.Connection(role, max_incomplete_event_size=head_bytes)
        self.streams = streams
        self._moved = moved

    def on_moved(self, moved: Callable[[int], None]) -> None:
        """Tell another one from now on."""
        self._moved = moved

    async def receive(self) -> h11.Event:
        """Return the next event; raises ``h11.RemoteProtocolError``."""
        while True:
            event = self.state.next_event()
            if event is h11.NEED_DATA:
                data = await self.streams.reader.read(CHUNK_BYTES)
                self._moved(len(data))
                self.state.receive_data(data)
            elif event is h11.PAUSED:
                raise h11.RemoteProtocolError("a second request came before the first was answered")
            else:
                return event  # type: ignore[return-value] # the two that are no events were handled above

    async def send(self, event: h11.Event) -> None:
        """Send an event; returns when the other side keeps up."""
        data = self.state.send(event)
        if data:
            self.streams.writer.write(data)
            await self.streams.writer.drain()

    async def answer(self, status: int, text: str) -> None:
        """Answer in plain words and be done."""
        body = f"{text}\n".encode()
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        await self.send(h11.Response(status_code=status, headers=headers))
        if self.state.our_state is h11.SEND_BODY:
            await self.send(h11.Data(data=body))
            await self.send(h11.EndOfMessage())

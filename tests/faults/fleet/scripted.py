"""A host that misbehaves by script: the real host daemon, and something between it and the controller.

What a script says is done to the requests that it is for; all others get the host's own answers. Nothing of the
controller's side is touched: it speaks HTTP to a server that stalls, fails, loses answers or lies.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

JSON, HTML = b"application/json", b"text/html"


@dataclass(slots=True)
class Said:
    """What the host itself answered."""

    status: int = 500
    body: bytes = b""

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message.get("body", b"")

    def changed(self, change: Callable[[Any], Any]) -> bytes:
        """Return the body with other data in its envelope."""
        said = json.loads(self.body)
        if "data" in said:
            said["data"] = change(said["data"])
        return json.dumps(said).encode()


Trick = Callable[["ScriptedHost", Callable[[], Awaitable[Said]], Send], Awaitable[None]]
"""From what lets the host act, and what answers, to what the controller gets."""


@dataclass(slots=True)
class ScriptedHost:
    """The layer; ``tricks`` are played on requests of a method and a beginning of a path until they are taken away."""

    app: ASGIApp | None = None
    tricks: dict[str, Trick] = field(default_factory=dict)
    played: int = 0
    playing: int = 0
    """Tricks that are not over: what stalled may act long after nobody waits for it."""
    released: asyncio.Event = field(default_factory=asyncio.Event)
    """Lets what stalls go on."""

    @property
    def stalls(self) -> bool:
        """Whether it leaves some requests without an answer now."""
        return any(trick in (stalls, acts_and_stalls) for trick in self.tricks.values())

    def around(self, app: ASGIApp) -> ASGIApp:
        """Stand in front of a host's application."""
        self.app = app
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        app = self.app
        trick = self._trick(scope) if scope["type"] == "http" else None
        if trick is None:
            await app(scope, receive, send)
            return
        self.played += 1
        whole = await _whole(receive)

        async def act() -> Said:
            said = Said()
            await app(scope, _again(whole), said.take)
            return said

        self.playing += 1
        try:
            await trick(self, act, send)
        finally:
            self.playing -= 1

    def _trick(self, scope: Scope) -> Trick | None:
        asked = f"{scope['method']} {scope['path']}"
        return next((trick for wanted, trick in self.tricks.items() if asked.startswith(wanted)), None)


async def _whole(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


def _again(body: bytes) -> Receive:
    parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return parts.pop() if parts else {"type": "http.disconnect"}

    return receive


async def answer(send: Send, status: int, body: bytes, kind: bytes = JSON, *, length: int | None = None) -> None:
    """Answer; a ``length`` that is not the body's lets the connection break in the middle."""
    headers = [(b"content-type", kind), (b"content-length", str(len(body) if length is None else length).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": length is not None})


# -- tricks ------------------------------------------------------------------------------------------------------------


async def stalls(host: ScriptedHost, act: Callable[[], Awaitable[Said]], _send: Send) -> None:
    """Do nothing until released; then act, when nobody waits any more."""
    await host.released.wait()
    await act()


async def acts_and_stalls(host: ScriptedHost, act: Callable[[], Awaitable[Said]], _send: Send) -> None:
    """Do it, and say nothing."""
    await act()
    await host.released.wait()


async def fails(_host: ScriptedHost, _act: Callable[[], Awaitable[Said]], send: Send) -> None:
    """Answer 500 and do nothing."""
    await answer(send, 500, b'{"ok":false,"error":"it broke","code":"internal_error"}')


async def acts_and_fails(_host: ScriptedHost, act: Callable[[], Awaitable[Said]], send: Send) -> None:
    """Do it, and answer 500."""
    await act()
    await answer(send, 500, b'{"ok":false,"error":"it broke","code":"internal_error"}')


async def acts_behind_a_gateway(_host: ScriptedHost, act: Callable[[], Awaitable[Said]], send: Send) -> None:
    """Do it, and let a gateway in between say that it did not work."""
    await act()
    await answer(send, 502, b"<html>bad gateway</html>", HTML)


async def loses_the_answer(_host: ScriptedHost, act: Callable[[], Awaitable[Said]], send: Send) -> None:
    """Do it, and break the connection in the middle of the answer."""
    said = await act()
    await answer(send, said.status, said.body[:5], length=len(said.body) + 5)


async def loses_the_request(_host: ScriptedHost, _act: Callable[[], Awaitable[Said]], send: Send) -> None:
    """Break the connection and do nothing."""
    await answer(send, 200, b"{", length=100)


async def refuses(_host: ScriptedHost, act: Callable[[], Awaitable[Said]], send: Send) -> None:
    """Do it, and say that there was no room."""
    await act()
    await answer(send, 409, b'{"ok":false,"error":"no room here","code":"no_room"}')


async def refuses_the_key(_host: ScriptedHost, act: Callable[[], Awaitable[Said]], send: Send) -> None:
    """Do it, and say that nobody with this key may have that done."""
    await act()
    await answer(send, 401, b'{"ok":false,"error":"unauthorized","code":"unauthorized"}')


async def agrees_and_does_nothing(_host: ScriptedHost, _act: Callable[[], Awaitable[Said]], send: Send) -> None:
    """Say that it is done, and leave it."""
    await answer(send, 200, b'{"ok":true}')


def lies(change: Callable[[Any], Any]) -> Trick:
    """Do it, and tell of it otherwise."""

    async def trick(_host: ScriptedHost, act: Callable[[], Awaitable[Said]], send: Send) -> None:
        said = await act()
        await answer(send, said.status, said.changed(change))

    return trick

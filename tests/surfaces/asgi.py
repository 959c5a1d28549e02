"""Drives an ASGI application directly: no socket, no server, nothing between the test and the application."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.types import ASGIApp


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


async def ask(
    app: ASGIApp,
    method: str,
    target: str,
    *,
    body: bytes | None = None,
    json: Any = None,
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    client: str = "127.0.0.1",
    leaves_after: asyncio.Event | None = None,
    state: dict[str, Any] | None = None,
) -> Got:
    """Send one request and return the whole answer; the client leaves when ``leaves_after`` is set."""
    listed = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
    if json is not None:
        body = msgspec.json.encode(json)
        listed.append(("content-type", "application/json"))
    if body is not None and not any(name == "content-length" for name, _ in listed):
        listed.append(("content-length", str(len(body))))
    if not any(name == "host" for name, _ in listed):
        listed.append(("host", "localhost"))
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode("utf-8", "surrogateescape"),
        "query_string": query.encode("utf-8", "surrogateescape"),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in listed],
        "client": (client, 50_000),
        "scheme": "http",
        "http_version": "1.1",
        **(state or {}),
    }
    sent: list[Any] = []
    asked = iter([{"type": "http.request", "body": body or b"", "more_body": False}])

    async def receive() -> Any:
        message = next(asked, None)
        if message is None:
            await (leaves_after or asyncio.Event()).wait()
            return {"type": "http.disconnect"}
        return message

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert sent, "the application sent nothing"
    start = sent[0]
    assert start["type"] == "http.response.start"
    assert not sent[-1].get("more_body", False), "the answer was left unfinished"
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return Got(status=start["status"], headers=found, body=b"".join(part.get("body", b"") for part in sent[1:]))

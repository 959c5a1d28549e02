"""Pages of other origins: which may read the gateway's answers.

A layer of its own around the gateway's routes alone, since nothing else of Borough answers CORS. Credentials in
cookies do not exist here, so a page can only do what the token in its hands allows; it decides nothing more than
whether the browser shows the page the answer (https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

from collections.abc import Callable, Collection, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from borough.http.answers import RawHeaders, Rendered, send_answer
from borough.http.operations import Access, Operation

MAX_AGE_S = 600
EXPOSED = "X-Request-Id, ETag, Location, Link, Retry-After"
METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

Covers = Callable[[str], bool]
"""Tells by its path whether a request is for the gateway."""


def everything(_path: str) -> bool:
    """Cover all paths: the gateway has its port to itself."""
    return True


def of_routes(operations: Iterable[Operation]) -> Covers:
    """Cover what begins as the routes of ``operations`` do that need a credential: the gateway shares its port."""
    roots = frozenset(row.path.split("/")[1] for row in operations if row.access is Access.CALLER)

    def covers(path: str) -> bool:
        return path[1:].partition("/")[0] in roots

    return covers


class Cors:
    """Wraps the application of a port; requests that are not for the gateway pass through untouched."""

    def __init__(self, app: ASGIApp, *, origins: Collection[str], covers: Covers = everything) -> None:
        """``origins`` are those that may; none: all."""
        self._app = app
        self._origins = frozenset(origin.lower() for origin in origins)
        self._covers = covers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not self._covers(scope["path"]):
            await self._app(scope, receive, send)
            return
        asked = _asked(scope)
        origin = asked.get(b"origin")
        shared = self._shared(origin)
        if scope["method"] == "OPTIONS" and origin is not None and b"access-control-request-method" in asked:
            allowed = _preflight(asked) if self._allows(origin) else []
            answer = Rendered(status=204, content_type="", body=b"", headers=[*shared, *allowed])
            await send_answer(answer, send, head=False)
            return
        if self._allows(origin):
            shared.append((b"access-control-expose-headers", EXPOSED.encode()))

        async def sharing(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *shared]
            await send(message)

        await self._app(scope, receive, sharing)

    def _allows(self, origin: str | None) -> bool:
        return origin is not None and (not self._origins or origin.lower() in self._origins)

    def _shared(self, origin: str | None) -> RawHeaders:
        """Return the headers that say who may read; with a list, also that answers differ by origin (for caches)."""
        if not self._origins:
            return [] if origin is None else [(b"access-control-allow-origin", b"*")]
        varies: RawHeaders = [(b"vary", b"Origin")]
        if origin is not None and self._allows(origin):
            varies.append((b"access-control-allow-origin", origin.encode("latin-1")))
        return varies


def _preflight(asked: dict[bytes, str]) -> RawHeaders:
    """Allow whatever was asked for. A ``*`` would not do: it does not stand for ``Authorization``."""
    method = asked[b"access-control-request-method"]
    methods = METHODS if method in METHODS.split(", ") else f"{METHODS}, {method}"
    headers = asked.get(b"access-control-request-headers", "*")
    return [
        (b"access-control-allow-methods", methods.encode("latin-1")),
        (b"access-control-allow-headers", headers.encode("latin-1")),
        (b"access-control-max-age", str(MAX_AGE_S).encode()),
    ]


def _asked(scope: Scope) -> dict[bytes, str]:
    wanted = {b"origin", b"access-control-request-method", b"access-control-request-headers"}
    return {name.lower(): value.decode("latin-1") for name, value in scope["headers"] if name.lower() in wanted}

"""The gateway's routes of records over real stores, and readers of its streams."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson

from borough.auth.principals import WorkerGrant
from borough.http.governance.authentication import GatewayAuthenticator
from borough.http.governance.common import note_read
from borough.http.governance.dialect import gateway_error
from borough.http.governance.routes import RECORDS
from borough.http.surfaces import Policies, Surface
from borough.http.table import OperationTable
from tests.conftest import eventually
from tests.services.records_house import Records, open_records
from tests.surfaces.asgi import Got, ask

OPERATOR_SECRET = "bop_" + secrets.token_hex(16)


class _Operator:
    def matches(self, secret: str) -> bool:
        return secrets.compare_digest(secret, OPERATOR_SECRET)


async def _no_grants(_grant: WorkerGrant) -> bool:
    return False


class App:
    """Routes, services, and ways to call them."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.stopping = asyncio.Event()
        names = (
            "audit",
            "proofs",
            "events",
            "memory",
            "observations",
            "blackboard",
            "bus",
            "secrets",
            "tokens",
            "reads",
        )
        authenticator = GatewayAuthenticator(
            tokens=records.tokens, operator=_Operator(), on_failure=records.logins.failed
        )
        surface = Surface(
            operations=RECORDS,
            state=SimpleNamespace(**{name: getattr(records, name) for name in names}),
            authenticate=authenticator,
            by_ticket=authenticator.by_ticket,
            grant_is_live=_no_grants,
            dialect=gateway_error,
            note_read=note_read,
        )
        self.table = OperationTable([surface], Policies(stopping=self.stopping))

    async def ask(self, method: str, target: str, *, token: str = OPERATOR_SECRET, **more: Any) -> Got:
        """Ask with a token; without a word as the person in front of the machine."""
        headers = dict(more.pop("headers", {}))
        return await ask(self.table, method, target, headers={"authorization": f"Bearer {token}", **headers}, **more)

    @asynccontextmanager
    async def stream(
        self, target: str = "/events", *, token: str | None = OPERATOR_SECRET, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator["Stream"]:
        """Open a stream, and leave it at the end."""
        given = {} if token is None else {"authorization": f"Bearer {token}"}
        stream = Stream(self.table, target, {**given, **(headers or {})})
        try:
            await stream.opened()
            yield stream
        finally:
            await stream.leave()


class Stream:
    """A client of a stream. It reads at once, unless it is told to stop reading."""

    def __init__(self, table: OperationTable, target: str, headers: Mapping[str, str]) -> None:
        self.raw = b""
        self.start: dict[str, Any] | None = None
        self.ended = False
        self.reading = asyncio.Event()
        self.reading.set()
        self._left = asyncio.Event()
        self._asked = False
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in {"host": "localhost", **headers}.items()],
            "client": ("127.0.0.1", 50_000),
            "scheme": "http",
            "http_version": "1.1",
        }
        self.task = asyncio.ensure_future(table(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.start = message
            return
        await self.reading.wait()
        self.raw += message.get("body", b"")
        self.ended = self.ended or not message.get("more_body", False)

    @property
    def status(self) -> int:
        assert self.start is not None
        return int(self.start["status"])

    @property
    def headers(self) -> dict[str, str]:
        assert self.start is not None
        return {name.decode(): value.decode() for name, value in self.start["headers"]}

    @property
    def blocks(self) -> list[dict[str, str]]:
        """Each event's fields; comments under ``comment``."""
        found = []
        for block in self.raw.decode().split("\n\n")[:-1]:
            lines = [line.partition(":") for line in block.split("\n")]
            found.append({name or "comment": value.removeprefix(" ") for name, _, value in lines})
        return found

    @property
    def events(self) -> list[dict[str, str]]:
        return [block for block in self.blocks if "data" in block]

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [orjson.loads(event["data"]) for event in self.events if "event" not in event]

    @property
    def ids(self) -> list[int]:
        return [int(event["id"]) for event in self.events if "id" in event]

    async def opened(self) -> None:
        async def begun() -> bool:
            return self.start is not None or self.task.done()

        await eventually(begun)

    async def has(self, count: int) -> None:
        async def enough() -> bool:
            assert not self.task.done(), self.raw
            return len(self.events) >= count

        await eventually(enough)

    async def over(self) -> None:
        async with asyncio.timeout(60):
            await asyncio.shield(self.task)

    async def leave(self) -> None:
        self._left.set()
        self.reading.set()
        await self.over()


@asynccontextmanager
async def open_app(folder: Path, **more: Any) -> AsyncIterator[App]:
    """Open the stores in ``folder`` and serve them."""
    async with AsyncExitStack() as undo:
        yield App(await open_records(folder, undo, **more))

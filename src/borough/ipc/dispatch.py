"""From a message to the row that it names, and from the row's answer back: the same checks as over HTTP."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from borough.auth.principals import Principal
from borough.core.errors import BoroughError, Invalid, NotFound, Unavailable
from borough.core.ids import AgentId, new_id
from borough.governance.ledger import Via
from borough.http.answers import Rendered, render
from borough.http.errors import log_unexpected
from borough.http.operations import Access, Call, Operation
from borough.http.surfaces import Surface
from borough.ipc.refusals import told
from borough.ipc.rows import Filled, Variant, invalid
from borough.ipc.variants.table import VARIANTS

TIMEOUT_S = 30.0
_READS = frozenset({"GET", "HEAD"})

Departure = Callable[[], Awaitable[None]]
"""Returns when the client has gone away, or the daemon stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """Who speaks on a connection. ``agent_id`` is set where an agent does."""

    principal: Principal
    agent_id: AgentId | None = None


class Dispatcher:
    """Answers messages by the operations of the gateway's surface."""

    def __init__(
        self, surface: Surface, *, timeout_s: float = TIMEOUT_S, variants: Mapping[str, Variant] = VARIANTS
    ) -> None:
        self._surface = surface
        self._timeout_s = timeout_s
        self._variants = variants
        self._rows = {(row.method, row.path): row for row in surface.operations}

    async def answer(
        self, speaker: Speaker, name: str, fields: Mapping[str, Any], *, disconnected: Departure, door: Via = Via.IPC
    ) -> object:
        """Return the message that answers ``name``; whatever goes wrong is an answer as well. ``door``: the wire."""
        request_id = new_id()
        variant = self._variants.get(name)
        try:
            if variant is None:
                return told(invalid(f"there is no request {name[:80]!r}"), request_id)
            filled = variant.fill(fields, own=speaker.agent_id)
            rendered = await self._call(speaker, filled, request_id=request_id, disconnected=disconnected, door=door)
            return variant.answer(rendered)
        except BoroughError as error:
            return variant.refusal(error, request_id) if variant is not None else told(error, request_id)
        except Exception as error:  # noqa: BLE001 - the one place where whatever is left becomes an answer
            log_unexpected(error, request_id=request_id)
            return {"Error": {"message": "internal error", "code": "internal", "request_id": request_id}}

    async def _call(
        self, speaker: Speaker, filled: Filled, *, request_id: str, disconnected: Departure, door: Via
    ) -> Rendered:
        row = self._rows.get((filled.method, filled.path))
        if row is None:
            raise NotFound("this is not served here", code="not_available", resolution="ask over HTTP: GET /docs")
        call = Call(
            principal=speaker.principal,
            path=filled.parameters,
            query=_query(filled, row),
            body=_body(filled, row),
            headers=filled.headers,
            request_id=request_id,
            operation_key=filled.operation_key(speaker.principal.id) or request_id,
            state=self._surface.state,
            disconnected=disconnected,
            door=door.value,
        )
        if row.method in _READS and row.access is not Access.PUBLIC and self._surface.note_read is not None:
            self._surface.note_read(call, row.path)
        if row.streaming:
            return await _answered(row, call)
        timeout = asyncio.timeout(self._timeout_s)
        try:
            async with timeout:
                return await _answered(row, call)
        except TimeoutError:
            if not timeout.expired():
                raise
            raise Unavailable(
                f"the request took longer than {self._timeout_s:g} s",
                code="request_timeout",
                reason="whether it had an effect is not known",
                resolution="repeat it with the same idempotency_key: what was done is not done again",
            ) from None


async def _answered(row: Operation, call: Call) -> Rendered:
    rendered = render(await row.handler(call), row.answers)
    if isinstance(rendered, Rendered):
        return rendered
    raise NotFound("streams are not served here", code="not_available", resolution="read it over HTTP")


def _query(filled: Filled, row: Operation) -> Any:
    return None if row.query is None else _converted(filled.query, row.query)


def _body(filled: Filled, row: Operation) -> Any:
    if row.body is None:
        return None
    if row.body is bytes:
        return b"" if filled.body is None else msgspec.json.encode(filled.body)
    if filled.body is None and row.body_optional:
        return _converted({}, row.body)
    return _converted(filled.body, row.body)


def _converted(value: Any, wanted: Any) -> Any:
    """Return ``value`` as the row wants it, checked as a body of HTTP is."""
    try:
        # By way of its bytes: ``Raw`` and ``strict`` types are read exactly as they are over HTTP.
        return msgspec.json.decode(msgspec.json.encode(value), type=wanted)
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from None


def _misfit(reason: str) -> Invalid:
    return invalid(reason.replace("`", "'"))

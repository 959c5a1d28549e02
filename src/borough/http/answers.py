"""An answer ready to be sent: status, headers, bytes. Everything but streams passes through here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Send

from borough.http.operations import Answer, Reply

RawHeaders = list[tuple[bytes, bytes]]

_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A whole answer. ``content_type`` is empty where there is no body."""

    status: int
    content_type: str
    body: bytes
    headers: RawHeaders


def raw_headers(headers: Mapping[str, str]) -> RawHeaders:
    """Return ``headers`` as ASGI wants them."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def json_answer(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Rendered:
    """Return ``body`` as JSON."""
    return Rendered(
        status=status,
        content_type="application/json",
        body=_ENCODER.encode(body),
        headers=raw_headers(headers) if headers else [],
    )


def render(result: Any, answers: tuple[Answer, ...]) -> Rendered | Response:
    """Return what a handler returned as an answer; the row of its status in ``answers`` says the content type.

    A ready ``Response`` with a body of its own becomes ``Rendered``; one that streams is returned as it is.
    """
    if isinstance(result, Response):
        return _from_response(result)
    if isinstance(result, Reply):
        return _from_row(result.status, result.body, _row(result.status, answers), raw_headers(result.headers))
    return _from_row(answers[0].status, result, answers[0], [])


async def send_answer(answer: Rendered, send: Send, *, head: bool, extra: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Send ``answer``; for ``head`` without its body."""
    headers = [*answer.headers, *extra]
    if answer.content_type:
        headers.append((b"content-type", answer.content_type.encode("latin-1")))
    if answer.status not in {204, 304}:
        headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else answer.body})


def _row(status: int, answers: tuple[Answer, ...]) -> Answer | None:
    return next((answer for answer in answers if answer.status == status), None)


def _from_row(status: int, body: Any, row: Answer | None, headers: RawHeaders) -> Rendered:
    if body is None and (row is None or row.body is None):
        return Rendered(status=status, content_type="", body=b"", headers=headers)
    content_type = "application/json" if row is None else row.content_type
    if isinstance(body, bytes):
        encoded = body
    elif isinstance(body, str) and content_type != "application/json":
        encoded = body.encode()
    else:
        encoded = _ENCODER.encode(body)
    return Rendered(status=status, content_type=content_type, body=encoded, headers=headers)


def _from_response(response: Response) -> Rendered | Response:
    body = getattr(response, "body", None)
    if not isinstance(body, bytes) or type(response).__call__ is not Response.__call__:
        return response
    content_type = response.headers.get("content-type", "")
    skipped = {b"content-type", b"content-length"}
    headers = [(name, value) for name, value in response.raw_headers if name not in skipped]
    return Rendered(status=response.status_code, content_type=content_type, body=body, headers=headers)

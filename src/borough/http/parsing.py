"""From bytes to checked values: headers, query and body. What is wrong with them is told with its place."""

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, get_args, get_origin
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Receive

from borough.core.errors import Invalid
from borough.http.errors import FieldError

_SINGLE_HEADERS = frozenset(
    {
        "authorization",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "last-event-id",
        "origin",
        "x-api-key",
    }
)
"""Headers that may come once only: two of them are a mistake or an attempt to be read differently by two readers."""

MAX_QUERY_FIELDS = 100

_INTEGER = re.compile(r"-?[0-9]{1,19}\Z")
_PLACE = re.compile(r"(?P<what>.*) - at `(?P<path>(?:key in )?\$.*)`\Z", re.DOTALL)
_STEP = re.compile(r"\.(?P<name>[^.\[\]]+)|\[(?P<index>[0-9]+)\]|\[\.\.\.\]")
_MEMBER = re.compile(r"Object (?:missing required|contains unknown) field `(?P<name>[^`]*)`\Z")


class ClientGone(Exception):
    """The client left before its request was complete: there is nobody to answer."""


def parse_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by lower-case name; repeated ones are joined as RFC 9110 §5.3 says.

    Raises:
        Invalid: one that may come once only came twice (``duplicate_header``).
    """
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name not in headers:
            headers[name] = value
        elif name in _SINGLE_HEADERS:
            raise Invalid(
                f"the header {name} came twice", code="duplicate_header", resolution=f"send one {name} header"
            )
        else:
            headers[name] = f"{headers[name]}, {value}"
    return headers


class QueryParser:
    """Parses query strings into one struct type: the kind of every field is looked up once."""

    def __init__(self, struct: type) -> None:
        self._struct = struct
        self._kinds = {field.encode_name: _kind(field.type) for field in msgspec.structs.fields(struct)}
        self._strict = bool(struct.__struct_config__.forbid_unknown_fields)  # type: ignore[attr-defined]  # a Struct

    def parse(self, query_string: bytes) -> Any:
        """Return the struct that ``query_string`` stands for.

        Raises:
            Invalid: it does not (``invalid_query``).
        """
        values: dict[str, Any] = {}
        for name, text in _pairs(query_string):
            kind = self._kinds.get(name)
            if kind is None:
                if self._strict:
                    raise _bad_query(name, f"there is no such parameter; there are: {', '.join(self._kinds) or 'none'}")
            elif kind is list:
                values.setdefault(name, []).append(text)
            elif name in values:
                raise _bad_query(name, "it came twice")
            else:
                values[name] = _scalar(name, text, kind)
        try:
            return msgspec.convert(values, self._struct)
        except msgspec.ValidationError as error:
            pointer, detail = locate(str(error))
            raise _bad_query(pointer[2:].split("/")[0], detail) from None


def ticket_of(query_string: bytes) -> str | None:
    """Return the parameter ``ticket``, if there is one; it is looked at before the rest of the query is parsed."""
    return dict(_pairs(query_string)).get("ticket") or None


def check_media_type(content_type: str | None, *, raw: bool) -> None:
    """Refuse a body of another type than JSON, or than octets where ``raw``.

    Demanding JSON also keeps out what a web page elsewhere may send without being asked: forms and plain text.

    Raises:
        Invalid: ``unsupported_media_type``.
    """
    wanted = "application/octet-stream" if raw else "application/json"
    essence, _, parameters = (content_type or "").partition(";")
    essence = essence.strip().lower()
    fits = essence == wanted or (not raw and essence.startswith("application/") and essence.endswith("+json"))
    charset = parameters.lower().partition("charset=")[2].split(";")[0].strip(' "')
    if fits and charset in {"", "utf-8", "utf8", "us-ascii"}:
        return
    raise Invalid(
        f"the body must be {wanted}",
        code="unsupported_media_type",
        reason="there is no content-type header" if not content_type else "the content type is another",
        resolution=f"send the header 'content-type: {wanted}'",
    )


async def read_body(receive: Receive, headers: Mapping[str, str], *, limit_bytes: int) -> bytes:
    """Return the whole body.

    Raises:
        Invalid: it is longer than ``limit_bytes`` (``too_large``), told before it is read where its length is given.
        ClientGone: the client left.
    """
    announced = headers.get("content-length", "0")
    if not (announced.isascii() and announced.isdigit() and len(announced) < 20):  # noqa: PLR2004 - more than 64 bits
        raise Invalid("the header content-length is not a number", code="invalid_content_length")
    if int(announced) > limit_bytes:
        raise _too_large(limit_bytes)
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        chunks.append(chunk)
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def stream_body(receive: Receive, headers: Mapping[str, str], *, limit_bytes: int) -> AsyncIterator[bytes]:
    """Yield the body as it comes.

    Raises:
        Invalid: it is longer than ``limit_bytes`` (``too_large``).
        ClientGone: the client left before all of it had come.
    """
    announced = headers.get("content-length", "0")
    if announced.isascii() and announced.isdigit() and int(announced) > limit_bytes:
        raise _too_large(limit_bytes)
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        if chunk:
            yield chunk
        more = message.get("more_body", False)


def decode_json(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """Return what ``body`` says.

    Raises:
        Invalid: it is not JSON (``malformed_json``) or not what the decoder wants (``invalid_body``, with a pointer).
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        _check_well_formed(body)
        pointer, detail = locate(str(error))
        raise Invalid(
            f"the body does not fit: {detail}" + (f" (at {pointer})" if pointer != "#" else ""),
            code="invalid_body",
            resolution="see the members and their limits in /openapi.json",
            details={"errors": [FieldError(pointer=pointer, detail=detail)]},
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from None


def locate(message: str) -> tuple[str, str]:
    """Return the JSON pointer (a URI fragment) and the text of one of msgspec's messages."""
    found = _PLACE.match(message)
    detail, path = (found["what"], found["path"]) if found else (message, "$")
    pointer = ""
    if not path.startswith("key in"):
        for step in _STEP.finditer(path):
            if step["name"] is None and step["index"] is None:
                break  # a value of a mapping: which one is not told
            pointer += "/" + _escaped(step["name"] or step["index"])
    member = _MEMBER.match(detail)
    if member:
        pointer += "/" + _escaped(member["name"])
    return "#" + pointer, detail.replace("`", "'")


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _check_well_formed(body: bytes) -> None:
    """Tell malformed JSON from JSON that does not fit, also where both are true."""
    try:
        msgspec.json.decode(body)
    except msgspec.ValidationError:
        return  # well-formed; a number in it is beyond every range
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from None


def _malformed(error: Exception) -> Invalid:
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    if isinstance(error, UnicodeDecodeError):
        reason = "it is not UTF-8"
    return Invalid(
        "the body is not JSON", code="malformed_json", reason=reason, resolution="send well-formed JSON in UTF-8"
    )


def _too_large(limit_bytes: int) -> Invalid:
    return Invalid(
        f"the body is longer than {limit_bytes} bytes",
        code="too_large",
        resolution="send less",
        details={"limit_bytes": limit_bytes, "headers": {"connection": "close"}},
    )


def _bad_query(name: str, detail: str) -> Invalid:
    return Invalid(
        f"the query parameter {name!r} is wrong: {detail}" if name else f"the query is wrong: {detail}",
        code="invalid_query",
        resolution="see the parameters in /openapi.json",
        details={"errors": [FieldError(parameter=name, detail=detail)]},
    )


def _pairs(query_string: bytes) -> list[tuple[str, str]]:
    if not query_string:
        return []
    try:
        text = query_string.decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except UnicodeError:
        raise _bad_query("", "it is not percent-encoded UTF-8") from None
    except ValueError:
        raise _bad_query("", f"it has more than {MAX_QUERY_FIELDS} fields") from None
    if any("\0" in value for _, value in pairs):
        raise _bad_query("", "it holds a NUL character")
    return pairs


def _kind(annotation: Any) -> type:
    """Return ``bool``, ``int``, ``float`` or ``list`` where a field is one of them, with limits or ``None`` or not."""
    for part in _alternatives(annotation):
        origin = get_origin(part) or part
        if origin in {bool, int, float, list}:
            return origin  # type: ignore[no-any-return]  # one of the four
    return str


def _alternatives(annotation: Any) -> list[Any]:
    if hasattr(annotation, "__metadata__"):
        return _alternatives(annotation.__origin__)
    origin = get_origin(annotation)
    if origin in {list, dict, tuple, set} or origin is None or not get_args(annotation):
        return [annotation]
    return [part for choice in get_args(annotation) for part in _alternatives(choice)]


def _scalar(name: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text not in {"true", "false"}:
            raise _bad_query(name, "it must be true or false")
        return text == "true"
    if kind is int:
        if not _INTEGER.match(text):
            raise _bad_query(name, "it must be a whole number")
        return int(text)
    if kind is float:
        try:
            number = float(text)
        except ValueError:
            raise _bad_query(name, "it must be a number") from None
        if number - number != 0:
            raise _bad_query(name, "it must be a finite number")
        return number
    return text

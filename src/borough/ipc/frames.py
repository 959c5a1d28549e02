"""Frames: four bytes of length, big-endian, then that many bytes of JSON."""

import asyncio
import struct
from typing import Any

import msgspec

MOST_FRAME_BYTES = 16 * 1_048_576
BODY_WITHIN_S = 60.0
"""How long a frame that has begun may take to arrive; between frames a connection may be silent for ever."""
_LENGTH = struct.Struct(">I")


class BadFrame(Exception):
    """What came is no frame, or no message; nothing after it can be read either."""


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """Return the next frame's body, or ``None`` when the other side has finished.

    Raises:
        BadFrame: it is too long, cut short, or does not arrive in time.
    """
    try:
        head = await reader.readexactly(_LENGTH.size)
    except asyncio.IncompleteReadError as cut:
        if cut.partial:
            raise BadFrame("the length of a frame was cut short") from None
        return None
    except ConnectionError:
        return None
    length = _LENGTH.unpack(head)[0]
    if length > MOST_FRAME_BYTES:
        raise BadFrame(f"a frame of {length} bytes is longer than {MOST_FRAME_BYTES}")
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        raise BadFrame("a frame was cut short") from None
    except TimeoutError:
        raise BadFrame(f"a frame did not arrive within {BODY_WITHIN_S:g} s") from None


def message_of(body: bytes) -> tuple[str, dict[str, Any]]:
    """Return the name of a message and its fields: ``"Ping"`` and ``{"MemoryRead": {…}}`` are both messages.

    Raises:
        BadFrame: it is neither.
    """
    try:
        message = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadFrame("a frame does not hold JSON") from None
    if isinstance(message, str):
        return message, {}
    if isinstance(message, dict) and len(message) == 1:
        name, fields = next(iter(message.items()))
        if fields is None:
            return name, {}
        if isinstance(fields, dict):
            return name, fields
    raise BadFrame("a message is a name, or an object with one name and its fields")


def frame(message: object) -> bytes:
    """Return ``message`` as a frame."""
    body = msgspec.json.encode(message)
    if len(body) > MOST_FRAME_BYTES:
        too_long = {"message": f"the answer is longer than {MOST_FRAME_BYTES} bytes", "code": "answer_too_large"}
        body = msgspec.json.encode({"Error": too_long})
    return _LENGTH.pack(len(body)) + body

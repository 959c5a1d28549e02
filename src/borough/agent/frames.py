"""The socket's frames: four bytes of length, big-endian, then JSON. No reading or writing happens here."""

import json
from typing import Any

from borough.agent.errors import ProtocolError

HEADER_BYTES = 4
MOST_FRAME_BYTES = 16 * 1_048_576


def encode(message: object) -> bytes:
    """Return ``message`` as a frame.

    Raises:
        ProtocolError: it is longer than 16 MiB.
    """
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
    if len(body) > MOST_FRAME_BYTES:
        raise ProtocolError(f"a message of {len(body)} bytes is too long; {MOST_FRAME_BYTES} are the most")
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def body_length(header: bytes) -> int:
    """Return how many bytes follow ``header``; raises ``ProtocolError`` when that is too many."""
    length = int.from_bytes(header, "big")
    if length > MOST_FRAME_BYTES:
        raise ProtocolError(f"the daemon announced a message of {length} bytes")
    return length


def decode(body: bytes) -> tuple[str, Any]:
    """Return the name of a message and what it carries: ``"Pong"`` and ``{"Value": …}`` are both messages.

    Raises:
        ProtocolError: it is neither.
    """
    try:
        message = json.loads(body)
    except ValueError as error:
        raise ProtocolError("the daemon's message is not JSON") from error
    if isinstance(message, str):
        return message, None
    if isinstance(message, dict) and len(message) == 1:
        name, carried = next(iter(message.items()))
        return name, carried
    raise ProtocolError("the daemon's message has no name")

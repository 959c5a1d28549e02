"""The one place where the server's answers become values or errors.

Functions answer ``['ok', value]`` or ``['err', kind, code, message, reason, resolution]``.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from valkey.exceptions import ValkeyError

from borough.adapters.valkey.link import Argument, Link
from borough.core.errors import BoroughError, Conflict, Invalid, NotFound, Unavailable

KINDS: Mapping[bytes, type[BoroughError]] = {b"invalid": Invalid, b"not_found": NotFound, b"conflict": Conflict}


async def ask(link: Link, function: str, *arguments: object) -> Any:
    """Call a function that may write; return its value or raise what it refused with."""
    try:
        answer = await link.call(function, *map(argument, arguments))
    except ValkeyError as error:
        raise unavailable(error) from error
    return value_of(answer)


async def look(link: Link, function: str, *arguments: object) -> Any:
    """Call a function that writes nothing; return its value or raise what it refused with."""
    try:
        answer = await link.read(function, *map(argument, arguments))
    except ValkeyError as error:
        raise unavailable(error) from error
    return value_of(answer)


def argument(value: object) -> Argument:
    """Return ``value`` as functions take it: nothing is empty, truth is 1 or 0, time is whole milliseconds."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, timedelta):
        return round(value.total_seconds() * 1000)
    if isinstance(value, (str, bytes, int)):
        return value
    raise TypeError(f"{type(value).__name__} is no argument of a function")


def value_of(answer: Any) -> Any:
    """Return what a function answered with, or raise what it refused with."""
    if answer[0] == b"ok":
        return answer[1]
    kind, code, message, reason, resolution = answer[1:]
    raise KINDS[kind](
        message.decode(), code=code.decode(), reason=reason.decode() or None, resolution=resolution.decode() or None
    )


def unavailable(error: ValkeyError) -> Unavailable:
    """Return what callers are told when the store does not answer, or cannot do what it is asked."""
    return Unavailable(
        "the town's store does not answer",
        code="store_unavailable",
        reason=str(error) or type(error).__name__,
        resolution="repeat the request in a moment; if it lasts, look at the log of the Valkey or Redis server",
    )

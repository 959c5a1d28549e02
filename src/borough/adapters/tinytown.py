"""Reading the unfinished tasks of a town that Tinytown keeps on a Redis server. Nothing there is changed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import valkey
from valkey.exceptions import ValkeyError

from borough.core.errors import Invalid, Unavailable

_OVER: Final = frozenset({"completed", "failed", "cancelled"})
_BATCH: Final = 500
_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OldTask:
    """What comes over of a task."""

    id: str
    description: str
    tags: tuple[str, ...]
    created_at: str


def read_unfinished(url: str, town: str) -> list[OldTask]:
    """Return the tasks of ``town`` that are not over, oldest first.

    Raises:
        Invalid: ``url`` is not a server's.
        Unavailable: the server does not answer or refuses (``store_unavailable``).
    """
    try:
        client: Any = valkey.Valkey.from_url(
            url, decode_responses=True, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
        )
    except ValueError as problem:
        raise Invalid(
            "that is not the address of a Redis server",
            code="invalid_address",
            reason=str(problem),
            resolution="write redis://host:6379, rediss://host:6379 or unix:///path/to/socket",
        ) from None
    try:
        found = [task for key in _keys(client, town) if (task := _task(client, key)) is not None]
    except (ValkeyError, OSError) as problem:
        raise Unavailable(
            "the other town's server does not answer",
            code="store_unavailable",
            reason=str(problem),
            resolution="check address, user and password",
        ) from None
    finally:
        client.close()
    return sorted(found, key=lambda task: (task.created_at, task.id))


def _keys(client: Any, town: str) -> Iterator[str]:
    # A name is taken literally, whatever its characters mean in a pattern.
    literal = "".join(f"\\{character}" if character in "*?[]\\^-" else character for character in town)
    seen: set[str] = set()
    for key in client.scan_iter(match=f"tt:{literal}:task:*", count=_BATCH):
        if key not in seen:
            seen.add(key)
            yield key


def _task(client: Any, key: str) -> OldTask | None:
    if client.type(key) == "hash":
        record: dict[str, Any] = client.hgetall(key)
    else:
        # Towns of before the hash layout keep a JSON text under the same key.
        record = json.loads(client.get(key) or "{}")
    if not record.get("description") or str(record.get("state", "")).lower() in _OVER:
        return None
    return OldTask(
        id=key.rpartition(":")[2],
        description=str(record["description"]),
        tags=_tags(record.get("tags")),
        created_at=str(record.get("created_at", "")),
    )


def _tags(value: object) -> tuple[str, ...]:
    try:
        tags = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return ()
    return tuple(str(tag) for tag in tags) if isinstance(tags, list) else ()

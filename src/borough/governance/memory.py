"""Memory: what an agent keeps under keys beyond its run, and the shared blackboard. Versions rise with each write."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import orjson

from borough.core.errors import Conflict, Invalid
from borough.governance.canonical import fingerprint

MOST_VALUE_BYTES = 1_048_576
MOST_KEY_CHARACTERS = 512
MOST_KEYS = 10_000
"""For each agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEntry:
    """A value under a key. ``value`` is JSON text, kept as it was written."""

    key: str
    value: str
    version: int
    updated_at: datetime
    expires_at: datetime | None = None


def check_key(key: str) -> str:
    """Return ``key`` if something can be kept under it; slashes are welcome.

    Raises:
        Invalid: it cannot (``invalid_key``).
    """
    if not 0 < len(key) <= MOST_KEY_CHARACTERS or not key.isprintable() or "*" in key:
        raise Invalid(
            "the key cannot be used",
            code="invalid_key",
            reason=f"a key has 1 to {MOST_KEY_CHARACTERS} printable characters and no '*'",
            resolution="choose another, as in state/last-run",
        )
    return key


def check_value(value: str) -> str:
    """Return JSON text if it is not too long.

    Raises:
        Invalid: it is (``value_too_long``).
    """
    if len(value.encode()) > MOST_VALUE_BYTES:
        raise Invalid(
            "the value is too long",
            code="value_too_long",
            reason=f"{MOST_VALUE_BYTES} bytes are the most",
            resolution="keep it in the workspace, and its path here",
        )
    return value


def expiry(*, at: datetime, ttl_s: int | None) -> datetime | None:
    """Return when something written now is over.

    Raises:
        Invalid: the time to live is not positive (``invalid_ttl``).
    """
    if ttl_s is None:
        return None
    if ttl_s <= 0:
        raise Invalid("ttl_secs has to be positive", code="invalid_ttl", resolution="leave it out to keep the value")
    return at + timedelta(seconds=ttl_s)


def present(entry: MemoryEntry | None, *, at: datetime) -> MemoryEntry | None:
    """Return ``entry`` unless its time is over: what has expired is not there."""
    return None if entry is None or (entry.expires_at is not None and entry.expires_at <= at) else entry


def written(
    before: MemoryEntry | None,
    *,
    key: str,
    value: str,
    at: datetime,
    ttl_s: int | None = None,
    expected_version: int | None = None,
) -> MemoryEntry:
    """Return what is under ``key`` after a write. ``expected_version`` 0 means that nothing is there yet.

    Raises:
        Invalid: key, value or time to live cannot be used.
        Conflict: another version is there than the expected one (``version_mismatch``; what is there in ``details``).
    """
    now = present(before, at=at)
    check_version(now, expected_version)
    return MemoryEntry(
        key=check_key(key),
        value=check_value(value),
        version=now.version + 1 if now else 1,
        updated_at=at,
        expires_at=expiry(at=at, ttl_s=ttl_s),
    )


def check_version(now: MemoryEntry | None, expected: int | None) -> None:
    """Let a write or deletion pass that was based on what is there; ``None`` is based on nothing.

    Raises:
        Conflict: it was based on something else (``version_mismatch``).
    """
    version = now.version if now else 0
    if expected is not None and expected != version:
        raise Conflict(
            f"version {version} is there, not {expected}",
            code="version_mismatch",
            resolution="read the value again and repeat the write on its version",
            details={"version": version, "value": now.value if now else None},
        )


def check_room(keys: int, *, is_new: bool) -> None:
    """Let a write pass if there is room for one more key.

    Raises:
        Conflict: there is none (``memory_full``).
    """
    if is_new and keys >= MOST_KEYS:
        raise Conflict(
            f"the agent keeps {keys} keys already", code="memory_full", resolution="delete some, or give them a ttl"
        )


def swapped(
    before: MemoryEntry | None, *, key: str, expected: object, new: str | None, at: datetime, ttl_s: int | None = None
) -> MemoryEntry | None:
    """Return the blackboard's entry after compare-and-swap by value; ``None``: it is deleted.

    ``expected`` is the JSON value that has to be there, however it is spelled; ``None`` stands for nothing.

    Raises:
        Conflict: something else is there (``value_mismatch``; it is in ``details``).
    """
    now = present(before, at=at)
    there = fingerprint(_parsed(now))
    if there != fingerprint(expected):
        raise Conflict(
            "another value is there",
            code="value_mismatch",
            resolution="look at the value that is there and decide again",
            details={"value": now.value if now else None},
        )
    return None if new is None else written(before, key=key, value=new, at=at, ttl_s=ttl_s)


def _parsed(entry: MemoryEntry | None) -> object:
    return None if entry is None else orjson.loads(entry.value)

"""Editing ``[[townhall.auth.keys]]`` in a town's file; comments and everything else stay as they are."""

import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import AoT

from borough.config.files import write_whole
from borough.config.reading import read_toml
from borough.config.town import TOWN_FILE, settings_from
from borough.core.errors import Conflict, NotFound

Key = dict[str, Any]
Change = Callable[[list[Key]], list[Key]]


def read_keys(town: Path) -> list[Key]:
    """Return the named keys of the town's file, in its order."""
    return _keys(read_toml(town / TOWN_FILE))


def change_keys(town: Path, change: Change) -> None:
    """Replace the named keys by what ``change`` makes of them; the file is checked before it is written.

    Raises:
        Invalid: the file would not be a town's any more; it is as it was.
    """
    path = town / TOWN_FILE
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    changed = change(_keys(document.unwrap()))
    townhall = document.setdefault("townhall", tomlkit.table())
    auth = townhall.setdefault("auth", tomlkit.table())
    auth.pop("keys", None)
    if changed:
        entries = AoT([])
        for key in changed:
            table = tomlkit.table()
            table.update(key)
            entries.append(table)
        auth["keys"] = entries
    text = tomlkit.dumps(document)
    settings_from(tomllib.loads(text), root=town, environ={}, more_clis={})
    write_whole(path, text, mode=stat.S_IMODE(path.stat().st_mode))


def new_entry(key_id: str, phc: str, *, scopes: Iterable[str], expires_at: datetime | None = None) -> Key:
    """Return a key as the file holds it."""
    entry: Key = {"id": key_id, "hash": phc}
    if named := list(scopes):
        entry["scopes"] = named
    if expires_at is not None:
        entry["expires_at"] = expires_at
    return entry


def find_key(known: list[Key], key_id: str) -> Key:
    """Return the key called ``key_id``.

    Raises:
        NotFound: there is none.
    """
    for key in known:
        if key["id"] == key_id:
            return key
    names = ", ".join(str(key["id"]) for key in known)
    raise NotFound(
        f"there is no key {key_id!r}",
        code="key_not_found",
        reason=f"the named keys are: {names}" if names else "there are no named keys",
        resolution="see 'tt auth keys list'",
    )


def with_key(known: list[Key], added: Key) -> list[Key]:
    """Return ``known`` and ``added``.

    Raises:
        Conflict: a key of that name is there.
    """
    if any(key["id"] == added["id"] for key in known):
        raise Conflict(
            f"there is a key {added['id']!r} already",
            code="key_exists",
            resolution=f"'tt auth keys rotate {added['id']}' replaces it; or choose another id",
        )
    return [*known, added]


def without_key(known: list[Key], key_id: str) -> list[Key]:
    """Return ``known`` without ``key_id``; raises ``NotFound``."""
    gone = find_key(known, key_id)
    return [key for key in known if key is not gone]


def ending(known: list[Key], key_id: str, end: datetime) -> list[Key]:
    """Return ``known`` with ``key_id`` valid until ``end``, or until its own earlier end; raises ``NotFound``."""
    old = find_key(known, key_id)
    earlier = old.get("expires_at")
    until = min(end, earlier) if isinstance(earlier, datetime) else end
    return [{**key, "expires_at": until} if key is old else key for key in known]


def next_id(key_id: str, *, taken: set[str]) -> str:
    """Return the first of ``NAME-2``, ``NAME-3`` … that is free."""
    base = re.sub(r"-\d+$", "", key_id)
    return next(name for number in range(2, len(taken) + 3) if (name := f"{base}-{number}") not in taken)


def _keys(document: Mapping[str, Any]) -> list[Key]:
    found = document.get("townhall", {}).get("auth", {}).get("keys", [])
    return [dict(key) for key in found]

"""Sealed secrets. The key is in memory only, and only while the store is open; values are opened when asked for."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

import apsw

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance.rows import row, rows
from borough.adapters.sql.governance.sealing import ALGORITHM, KdfParams, Sealed, SealingKey
from borough.adapters.sql.governance.secret_policies import SqlSecretPolicies
from borough.core.errors import Forbidden, Invalid, NotFound, Unavailable
from borough.governance.secrets import check_secret_name, check_secret_value

_PARAMS: Final = "SELECT memory_kib, passes, lanes, salt, check_nonce, check_value FROM kdf_params"
_SET_PARAMS: Final = "INSERT OR REPLACE INTO kdf_params VALUES (1, ?, ?, ?, ?, ?, ?, ?)"
_ALL: Final = "SELECT name, nonce, sealed FROM secrets ORDER BY name"
_PUT: Final = """
  INSERT INTO secrets (name, description, nonce, sealed) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET
    description = coalesce(excluded.description, description), nonce = excluded.nonce, sealed = excluded.sealed
"""

T = TypeVar("T")
_Stored = tuple[KdfParams, Sealed]
"""How the key is made, and what tells whether it is the right one."""


class SqlSecrets(SqlSecretPolicies):
    """The port ``Secrets``."""

    def __init__(self, database: Database, *, params: Callable[[], KdfParams] = KdfParams) -> None:
        super().__init__(database)
        self._new_params = params
        self._key: SealingKey | None = None
        self._sealed: dict[str, Sealed] = {}
        self._one_at_a_time = asyncio.Lock()
        """Held by whatever changes the key or what is sealed with it."""

    async def unlock(self, passphrase: bytes) -> int:
        """Open the store (or make it, the first time) and return how many secrets it holds."""
        return await _to_the_end(self._unlock(passphrase))

    async def lock(self) -> None:
        """Close the store and forget every value and the key."""
        await _to_the_end(self._lock())

    async def rekey(self, old: bytes, new: bytes) -> int:
        """Seal everything anew, all or nothing."""
        return await _to_the_end(self._rekey(old, new))

    async def put(self, name: str, value: bytes, *, description: str | None) -> None:
        """Seal a value under ``name``."""
        check_secret_name(name)
        check_secret_value(value)
        await _to_the_end(self._put(name, value, description))

    async def remove(self, name: str) -> None:
        """Forget a secret."""
        await _to_the_end(self._remove(name))

    async def values(self, names: Sequence[str]) -> Mapping[str, str]:
        """Return values by name."""
        key = self._opened()
        for name in names:
            if name not in self._sealed:
                raise _not_found(name)
        return {name: key.open(name, self._sealed[name]).decode() for name in names}

    async def every_value(self) -> Mapping[str, str]:
        """Return all values, for keeping them out of what is shown."""
        key = self._opened()
        return {name: key.open(name, sealed).decode() for name, sealed in self._sealed.items()}

    async def names(self) -> tuple[str, ...]:
        """Return the names, locked or not."""
        statement = "SELECT name FROM secrets ORDER BY name"
        return tuple(name for (name,) in await self._database.read(lambda connection: rows(connection, statement)))

    # -- one at a time, each to its end --------------------------------------------------------------------------------

    async def _unlock(self, passphrase: bytes) -> int:
        _check_passphrase(passphrase)
        async with self._one_at_a_time:
            stored = await self._database.read(_stored)
            if stored is None:
                key, stored = await self._make(passphrase)
                await self._database.write(lambda connection: _set_params(connection, stored))
            else:
                key = await _right_key(passphrase, stored)
            self._sealed = await self._database.read(_sealed)
            self._use(key)
            return len(self._sealed)

    async def _lock(self) -> None:
        async with self._one_at_a_time:
            self._use(None)
            self._sealed = {}

    async def _rekey(self, old: bytes, new: bytes) -> int:
        _check_passphrase(new)
        async with self._one_at_a_time:
            stored = await self._database.read(_stored)
            if stored is None:
                raise _wrong_passphrase()
            old_key = await _right_key(old, stored)
            new_key, params = await self._make(new)
            try:
                sealed = await self._database.write(lambda connection: _seal_anew(connection, old_key, new_key, params))
            except BaseException:
                new_key.wipe()
                raise
            finally:
                old_key.wipe()
            if self._key is None:
                new_key.wipe()
            else:
                self._sealed = sealed
                self._use(new_key)
            return len(sealed)

    async def _put(self, name: str, value: bytes, description: str | None) -> None:
        async with self._one_at_a_time:
            sealed = self._opened().seal(name, value)
            values = (name, description, sealed.nonce, sealed.sealed)
            await self._database.write(lambda connection: rows(connection, _PUT, values))
            self._sealed[name] = sealed

    async def _remove(self, name: str) -> None:
        def step(connection: apsw.Connection) -> None:
            if row(connection, "DELETE FROM secrets WHERE name = ? RETURNING name", (name,)) is None:
                raise _not_found(name)

        async with self._one_at_a_time:
            await self._database.write(step)
            self._sealed.pop(name, None)

    async def _make(self, passphrase: bytes) -> tuple[SealingKey, _Stored]:
        params = self._new_params()
        key = await asyncio.to_thread(SealingKey, passphrase, params)
        return key, (params, key.check_value())

    def _use(self, key: SealingKey | None) -> None:
        if self._key is not None:
            self._key.wipe()
        self._key = key

    def _opened(self) -> SealingKey:
        if self._key is None:
            raise Unavailable(
                "the secret store is locked", code="store_locked", resolution="open it: ash secrets unlock"
            )
        return self._key


async def _to_the_end(step: Coroutine[Any, Any, T]) -> T:
    """Run ``step`` to its end also when nobody waits for it any more: key and values must not part on the way."""
    return await asyncio.shield(asyncio.ensure_future(step))


async def _right_key(passphrase: bytes, stored: _Stored) -> SealingKey:
    params, check = stored
    key = await asyncio.to_thread(SealingKey, passphrase, params)
    if not key.made(check):
        key.wipe()
        raise _wrong_passphrase()
    return key


def _stored(connection: apsw.Connection) -> _Stored | None:
    found = row(connection, _PARAMS)
    if found is None:
        return None
    memory_kib, passes, lanes, salt, check_nonce, check_value = found
    params = KdfParams(memory_kib=memory_kib, passes=passes, lanes=lanes, salt=salt)
    return params, Sealed(nonce=check_nonce, sealed=check_value)


def _set_params(connection: apsw.Connection, stored: _Stored) -> None:
    params, check = stored
    costs = (params.memory_kib, params.passes, params.lanes)
    rows(connection, _SET_PARAMS, (ALGORITHM, *costs, params.salt, check.nonce, check.sealed))


def _sealed(connection: apsw.Connection) -> dict[str, Sealed]:
    return {name: Sealed(nonce=nonce, sealed=sealed) for name, nonce, sealed in rows(connection, _ALL)}


def _seal_anew(
    connection: apsw.Connection, old_key: SealingKey, new_key: SealingKey, params: _Stored
) -> dict[str, Sealed]:
    anew = {name: new_key.seal(name, old_key.open(name, sealed)) for name, sealed in _sealed(connection).items()}
    for name, sealed in anew.items():
        rows(connection, "UPDATE secrets SET nonce = ?, sealed = ? WHERE name = ?", (sealed.nonce, sealed.sealed, name))
    _set_params(connection, params)
    return anew


def _check_passphrase(passphrase: bytes) -> None:
    if not passphrase:
        raise Invalid("the passphrase is empty", code="invalid_passphrase", resolution="choose one of several words")


def _wrong_passphrase() -> Forbidden:
    return Forbidden("the passphrase is wrong", code="wrong_passphrase", resolution="try again with the right one")


def _not_found(name: str) -> NotFound:
    return NotFound(
        f"secret {name!r} not found", code="secret_not_found", resolution="list those that are there: ash secrets list"
    )

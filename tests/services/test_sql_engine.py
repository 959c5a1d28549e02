"""The SQL engine room: durable group commits, steps that fail alone, files that are ours alone."""

import asyncio
import os
import stat
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest

from borough.adapters.sql.engine import Database, Migration
from borough.core.errors import Conflict, Unavailable

pytestmark = pytest.mark.anyio

TABLES = (Migration(number=1, statements=("CREATE TABLE word (text TEXT PRIMARY KEY) STRICT",)),)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(tmp_path / "store" / "words.db", TABLES)
    yield opened
    await opened.close()


def say(word: str) -> Callable[[apsw.Connection], int]:
    def step(connection: apsw.Connection) -> int:
        connection.execute("INSERT INTO word VALUES (?)", (word,))
        return connection.last_insert_rowid()

    return step


def words(connection: apsw.Connection) -> list[str]:
    return [text for (text,) in connection.execute("SELECT text FROM word ORDER BY rowid")]


async def test_what_was_written_is_read_back_by_others_and_after_a_restart(database: Database) -> None:
    assert await database.write(say("one")) == 1
    assert await database.read(words) == ["one"]
    await database.close()
    again = await Database.open(database.path, TABLES)
    assert await again.read(words) == ["one"]
    await again.close()


async def test_the_file_and_what_lies_beside_it_is_owner_only(database: Database) -> None:
    await database.write(say("one"))
    assert stat.S_IMODE(database.path.parent.stat().st_mode) == 0o700
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in database.path.parent.iterdir()}
    assert modes == dict.fromkeys(("words.db", "words.db-wal", "words.db-shm", "words.db.lock"), 0o600)


async def test_a_step_that_raises_is_undone_alone(database: Database) -> None:
    def half(connection: apsw.Connection) -> None:
        say("half")(connection)
        raise LookupError("of its own")

    done = await asyncio.gather(
        database.write(say("a")), database.write(half), database.write(say("b")), return_exceptions=True
    )
    assert [type(one) for one in done] == [int, LookupError, int]
    assert await database.read(words) == ["a", "b"]

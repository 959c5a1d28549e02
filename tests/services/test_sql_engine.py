"""The SQL engine room: durable group commits, steps that fail alone, files that are ours alone."""

import asyncio
import stat
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest

from borough.adapters.sql.engine import MOST_STEPS, Database, Follower, Migration
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


async def test_whoever_waits_hears_only_of_what_is_on_disk_and_many_share_a_commit(database: Database) -> None:
    commits = 0

    def counted() -> bool:
        nonlocal commits
        commits += 1
        return False

    await database.write(lambda connection: connection.set_commit_hook(counted))
    commits = 0
    rows = await asyncio.gather(*(database.write(say(f"word {n}")) for n in range(1500)))
    assert rows == list(range(1, 1501))
    assert commits == -(-1500 // MOST_STEPS)


async def test_a_commit_that_fails_fails_every_step_of_its_group_and_the_next_works(database: Database) -> None:
    failing = False
    await database.write(lambda connection: connection.set_commit_hook(lambda: failing))
    failing = True
    follower = Counting()
    database.follow(follower)
    failed = await asyncio.gather(*(database.write(say(word)) for word in "abc"), return_exceptions=True)
    assert [getattr(one, "code", one) for one in failed] == ["store_unavailable"] * 3
    failing = False
    assert await database.write(say("d")) == 1
    assert await database.read(words) == ["d"]
    assert follower.told == ["mark"] * 3 + ["rebuild", "mark", "committed", "announced"]


class Counting(Follower):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def mark(self) -> int:
        self.told.append("mark")
        return len(self.told)

    def undo(self, mark: object) -> None:
        assert mark == len(self.told)
        self.told.append("undo")

    def rebuild(self, connection: apsw.Connection) -> None:
        assert words(connection) == []
        self.told.append("rebuild")

    def committed(self) -> Callable[[], None]:
        self.told.append("committed")
        return lambda: self.told.append("announced")


async def test_followers_are_told_of_steps_undone_and_announce_before_callers_go_on(database: Database) -> None:
    follower = Counting()
    database.follow(follower)

    def wrong(connection: apsw.Connection) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await database.write(wrong)
    assert follower.told == ["mark", "undo", "committed", "announced"]


async def test_a_full_disk_is_told_with_the_way_out_and_room_made_later_helps(database: Database) -> None:
    await database.write(lambda connection: connection.execute("PRAGMA max_page_count = 5").get)
    with pytest.raises(Unavailable) as refused:
        await asyncio.gather(*(database.write(say(f"{n}" * 500)) for n in range(100)))
    assert refused.value.code == "store_unavailable"
    assert "full" in str(refused.value.reason)
    assert str(database.path) in str(refused.value.resolution)
    await database.write(lambda connection: connection.execute("PRAGMA max_page_count = 100000").get)
    await database.write(say("there is room"))
    assert "there is room" in await database.read(words)


async def test_a_mistake_of_ours_is_shown_as_it_is(database: Database) -> None:
    await database.write(say("one"))
    with pytest.raises(apsw.ConstraintError):
        await database.write(say("one"))
    with pytest.raises(apsw.SQLError):
        await database.read(lambda connection: connection.execute("SELECT * FROM nowhere"))


async def test_a_read_sees_one_moment_and_cannot_write(database: Database) -> None:
    await database.write(say("one"))
    reading, written = threading.Event(), threading.Event()

    def slowly(connection: apsw.Connection) -> tuple[list[str], list[str]]:
        before = words(connection)
        reading.set()
        assert written.wait(10)
        return before, words(connection)

    slow = asyncio.ensure_future(database.read(slowly))
    assert await asyncio.to_thread(reading.wait, 10)
    await database.write(say("two"))
    written.set()
    assert await slow == (["one"], ["one"])
    with pytest.raises(Unavailable):
        await database.read(say("three"))


async def test_whoever_stops_waiting_does_not_stop_the_step(database: Database) -> None:
    going = asyncio.ensure_future(database.write(say("kept")))
    await asyncio.sleep(0)
    going.cancel()
    await database.write(say("after"))
    assert await database.read(words) == ["kept", "after"]


async def test_closing_finishes_what_was_asked_for_and_then_refuses(database: Database) -> None:
    asked = [asyncio.ensure_future(database.write(say(f"word {n}"))) for n in range(10)]
    await asyncio.sleep(0)
    await database.close()
    assert await asyncio.gather(*asked) == list(range(1, 11))
    with pytest.raises(Unavailable):
        await database.write(say("late"))
    with pytest.raises(Unavailable):
        await database.read(words)
    await database.close()


# -- opening -----------------------------------------------------------------------------------------------------------


async def test_it_is_durable_and_says_so(database: Database) -> None:
    def settings(connection: apsw.Connection) -> tuple[object, ...]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return tuple(connection.execute(f"PRAGMA {name}").get for name in names)

    assert await database.write(settings) == ("wal", 2, 1, 5000)


async def test_migrations_are_applied_once_each_and_in_order(database: Database) -> None:
    await database.write(say("one"))
    await database.close()
    more = (*TABLES, Migration(number=2, statements=("ALTER TABLE word ADD COLUMN length INTEGER",)))
    for _ in range(2):
        again = await Database.open(database.path, more)
        assert await again.read(lambda connection: connection.execute("SELECT * FROM word").get) == ("one", None)
        await again.close()
    with pytest.raises(Conflict) as refused:
        await Database.open(database.path, TABLES)
    assert refused.value.code == "store_too_new"
    with pytest.raises(ValueError, match="gaps"):
        await Database.open(database.path, more[1:])


async def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "words.db"
    wrong = (*TABLES, Migration(number=2, statements=("CREATE TABLE other (a INTEGER) STRICT", "nonsense")))
    with pytest.raises(Unavailable):
        await Database.open(path, wrong)
    opened = await Database.open(
        path, (*TABLES, Migration(number=2, statements=("CREATE TABLE other (a ANY) STRICT",)))
    )
    assert await opened.read(words) == []
    await opened.close()


async def test_one_process_has_it(database: Database) -> None:
    with pytest.raises(Conflict) as refused:
        await Database.open(database.path, TABLES)
    assert refused.value.code == "store_in_use"
    assert str(database.path) in str(refused.value.resolution)


async def test_an_old_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    with pytest.raises(Unavailable) as refused:
        await Database.open(tmp_path / "words.db", TABLES)
    assert refused.value.code == "sqlite_too_old"


async def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "words.db").touch(mode=0o600)
    (tmp_path / "words.db").write_text("something else " * 1000)
    with pytest.raises(Unavailable) as refused:
        await Database.open(tmp_path / "words.db", TABLES)
    assert refused.value.code == "store_unavailable"
    assert "backup" in str(refused.value.resolution)

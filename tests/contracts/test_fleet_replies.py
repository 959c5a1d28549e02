"""Kept replies of the fleet: answers are in its file, claims end with whoever has it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from borough.adapters.sql.engine import Database
from borough.adapters.sql.fleet.access import SqlReplies
from borough.adapters.sql.fleet.tables import CONTROLLER
from borough.core.errors import Unavailable
from borough.town.ports.replies import StoredReply
from tests.contracts.fleet_kit import ControllerFile

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
ANSWER = StoredReply(fingerprint="f", status=201, content_type="application/json", body=b'{"\xc3\xa9":1}\x00')


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[ControllerFile]:
    opened = ControllerFile(tmp_path / "state" / "ctl.db")
    await opened.open()
    yield opened
    await opened.close()


async def test_the_first_claims_and_the_rest_wait_for_it(file: ControllerFile) -> None:
    replies = SqlReplies(file.database)
    outcomes = await asyncio.gather(*(replies.begin("k", fingerprint=f"f{n}", ttl=HOUR) for n in range(20)))
    assert outcomes.count(None) == 1
    winner = outcomes.index(None)
    assert {(reply.fingerprint, reply.status) for reply in outcomes if reply} == {(f"f{winner}", None)}


async def test_the_answer_is_kept_whole_also_when_the_file_is_opened_again(file: ControllerFile) -> None:
    replies = SqlReplies(file.database)
    assert await replies.begin("k", fingerprint="f", ttl=HOUR) is None
    await replies.finish("k", ANSWER, ttl=HOUR)
    assert await replies.begin("k", fingerprint="other", ttl=HOUR) == ANSWER
    assert await replies.begin("another", fingerprint="f", ttl=HOUR) is None
    await file.reopen()
    assert await SqlReplies(file.database).begin("k", fingerprint="other", ttl=HOUR) == ANSWER


async def test_a_claim_ends_with_who_had_the_file(file: ControllerFile) -> None:
    assert await SqlReplies(file.database).begin("k", fingerprint="f", ttl=HOUR) is None
    await file.reopen()
    replies = SqlReplies(file.database)
    assert await replies.begin("k", fingerprint="g", ttl=HOUR) is None, "nobody waits for the dead"
    assert await replies.begin("k", fingerprint="h", ttl=HOUR) == StoredReply(fingerprint="g", status=None)


async def test_a_claim_that_an_older_version_has_left_in_the_file_is_none(file: ControllerFile) -> None:
    left = "INSERT INTO replies VALUES ('k', 'f', NULL, '', x'', 9000000000000)"
    await file.database.write(lambda connection: connection.execute(left))
    replies = SqlReplies(file.database)
    assert await replies.begin("k", fingerprint="g", ttl=HOUR) is None
    await replies.finish("k", ANSWER, ttl=HOUR)
    assert await replies.begin("k", fingerprint="h", ttl=HOUR) == ANSWER


async def test_what_is_abandoned_and_what_is_too_old_is_free(file: ControllerFile) -> None:
    replies = SqlReplies(file.database)
    await replies.begin("k", fingerprint="f", ttl=HOUR)
    await replies.abandon("k")
    await replies.abandon("k")
    assert await replies.begin("k", fingerprint="g", ttl=HOUR) is None
    await replies.finish("k", ANSWER, ttl=timedelta(0))
    assert await replies.begin("k", fingerprint="h", ttl=HOUR) is None
    await replies.finish("other", ANSWER, ttl=HOUR)
    kept = "SELECT key FROM replies"
    assert await file.database.read(lambda connection: connection.execute(kept).fetchall()) == [("other",)]


async def test_a_key_is_free_when_it_could_not_be_looked_up(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    database = await Database.open(folder / "ctl.db", CONTROLLER)
    replies = SqlReplies(database)
    await database.close()
    for _ in range(2):
        with pytest.raises(Unavailable):
            await replies.begin("k", fingerprint="f", ttl=HOUR)

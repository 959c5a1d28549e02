"""Repeating a POST under its key. ``MemoryReplies`` is this file's double of the port."""

import asyncio
from datetime import timedelta

import pytest

from borough.http.idempotency import Idempotency
from borough.http.surfaces import Policies
from borough.http.table import OperationTable
from borough.town.ports.replies import StoredReply
from tests.conftest import eventually
from tests.surfaces.asgi import Got, ask
from tests.surfaces.demo import DemoState, as_, demo_table

pytestmark = pytest.mark.anyio


class MemoryReplies:
    """Keeps answers in a dictionary; knows nothing of time."""

    def __init__(self) -> None:
        self.kept: dict[str, StoredReply] = {}
        self.held = 0

    async def begin(self, key: str, *, fingerprint: str, ttl: timedelta) -> StoredReply | None:
        assert ttl > timedelta(0)
        stored = self.kept.get(key)
        if stored is None:
            self.kept[key] = StoredReply(fingerprint=fingerprint, status=None)
        return stored

    async def hold(self, key: str, *, ttl: timedelta) -> None:
        assert self.kept[key].status is None
        assert ttl > timedelta(0)
        self.held += 1

    async def finish(self, key: str, reply: StoredReply, *, ttl: timedelta) -> None:
        assert ttl >= timedelta(hours=1)
        self.kept[key] = reply

    async def abandon(self, key: str) -> None:
        self.kept.pop(key, None)


@pytest.fixture
def replies() -> MemoryReplies:
    return MemoryReplies()


@pytest.fixture
def state() -> DemoState:
    return DemoState()


@pytest.fixture
def table(state: DemoState, replies: MemoryReplies) -> OperationTable:
    return demo_table(state, Policies(idempotency=Idempotency(replies), timeout_s=0.2))


async def make(table: OperationTable, *, key: str, who: str = "writer", name: str = "a", path: str = "/things") -> Got:
    return await ask(table, "POST", path, json={"name": name}, headers=as_(who, idempotency_key=key))


async def test_a_repeated_request_is_done_once_and_answered_the_same(table: OperationTable, state: DemoState) -> None:
    first, second = await make(table, key="k"), await make(table, key="k")
    assert (first.status, first.body) == (second.status, second.body) == (201, first.body)
    assert first.headers.get("idempotency-replayed") is None
    assert second.headers["idempotency-replayed"] == "true"
    assert second.headers["content-type"] == "application/json"
    assert state.made == ["a"]


async def test_keys_belong_to_principal_and_path(table: OperationTable, state: DemoState) -> None:
    ids = {(await make(table, key="k", who=who)).json()["id"] for who in ("writer", "other")}
    assert len(ids) == 2
    assert len(state.made) == 2


async def test_a_key_belongs_to_one_body(table: OperationTable, state: DemoState) -> None:
    await make(table, key="k")
    refused = await make(table, key="k", name="b")
    assert (refused.status, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert state.made == ["a"]


async def test_while_the_first_is_under_way_the_second_is_told_to_wait(table: OperationTable, state: DemoState) -> None:
    headers = as_("writer", idempotency_key="k")
    first = asyncio.ensure_future(ask(table, "POST", "/wait", headers=headers))
    await state.entered.wait()
    second = await ask(table, "POST", "/wait", headers=headers)
    assert (second.status, second.json()["code"], second.headers["retry-after"]) == (409, "idempotency_key_in_use", "1")
    state.released.set()
    assert (await first).status == 200
    assert (await ask(table, "POST", "/wait", headers=headers)).headers["idempotency-replayed"] == "true"


async def test_a_long_request_renews_its_claim(state: DemoState, replies: MemoryReplies) -> None:
    brief = Idempotency(replies, claimed=timedelta(milliseconds=20))
    table = demo_table(state, Policies(idempotency=brief, timeout_s=5))
    asked = asyncio.ensure_future(ask(table, "POST", "/wait", headers=as_("writer", idempotency_key="k")))

    async def renewed_twice() -> bool:
        return replies.held > 1

    await eventually(renewed_twice)
    state.released.set()
    assert (await asked).status == 200


async def test_refusals_are_answers_too(table: OperationTable, replies: MemoryReplies) -> None:
    headers = as_("writer", idempotency_key="k", content_type="application/json")
    invalid = await ask(table, "POST", "/things", body=b"{}", headers=headers)
    assert invalid.status == 422
    assert replies.kept == {}  # what never reached the handler claims no key


@pytest.mark.parametrize(("path", "status"), [("/unavailable", 503), ("/broken", 500), ("/wait", 408)])
async def test_failures_of_the_server_free_the_key(
    table: OperationTable, replies: MemoryReplies, path: str, status: int
) -> None:
    for _ in range(2):
        got = await ask(table, "POST", path, headers=as_("writer", idempotency_key="k"))
        assert got.status == status
        assert "idempotency-replayed" not in got.headers
    assert replies.kept == {}


async def test_answers_with_credentials_are_never_kept_but_ids_repeat(
    table: OperationTable, state: DemoState, replies: MemoryReplies
) -> None:
    first, second = await make(table, key="k", path="/secret"), await make(table, key="k", path="/secret")
    assert first.json()["id"] == second.json()["id"]
    assert state.made == ["a", "a"]
    assert replies.kept == {}


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "x" * 256, "\t"])
async def test_unusable_keys_are_refused(table: OperationTable, key: str) -> None:
    got = await make(table, key=key)
    assert (got.status, got.json()["code"]) == (400, "invalid_idempotency_key")


async def test_without_a_key_every_request_is_new(table: OperationTable) -> None:
    asked = [await ask(table, "POST", "/things", json={"name": "a"}, headers=as_("writer")) for _ in range(2)]
    assert asked[0].json()["id"] != asked[1].json()["id"]


async def test_without_a_store_ids_still_repeat(state: DemoState) -> None:
    table = demo_table(state)
    assert (await make(table, key="k")).json()["id"] == (await make(table, key="k")).json()["id"]

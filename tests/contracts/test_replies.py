"""Kept replies: one claims, the others get what is stored."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from borough.adapters.valkey import replies as adapter
from borough.adapters.valkey.batches import Bounds
from borough.adapters.valkey.client import Client, connect
from borough.town.ports.replies import Replies, StoredReply
from tests.conftest import eventually
from tests.contracts.servers import LIBRARY, binary_named, running_cluster, running_server

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
ANSWER = StoredReply(fingerprint="f", status=201, content_type="application/json", body=b'{"\xc3\xa9":1}\x00')


@pytest.fixture(scope="module", params=["valkey", "redis", "cluster"])
def server(request: pytest.FixtureRequest):
    if request.param == "cluster":
        with running_cluster() as running:
            yield running
    else:
        with running_server(binary=binary_named(request.param)) as running:
            yield running


@pytest.fixture
async def client(server) -> AsyncIterator[Client]:
    connected = await connect(server.url, town="acme", library=LIBRARY)
    await connected.command("FLUSHDB")
    yield connected
    await connected.close()


@pytest.fixture
def replies(client: Client) -> Replies:
    return adapter.Replies(client)


async def test_the_first_claims_and_the_rest_wait_for_it(replies: Replies) -> None:
    outcomes = await asyncio.gather(*(replies.begin("k", fingerprint=f"f{n}", ttl=HOUR) for n in range(20)))
    assert outcomes.count(None) == 1
    winner = outcomes.index(None)
    assert {(reply.fingerprint, reply.status) for reply in outcomes if reply} == {(f"f{winner}", None)}


async def test_the_answer_is_kept_whole(replies: Replies) -> None:
    assert await replies.begin("k", fingerprint="f", ttl=HOUR) is None
    await replies.finish("k", ANSWER, ttl=HOUR)
    assert await replies.begin("k", fingerprint="other", ttl=HOUR) == ANSWER
    assert await replies.begin("another", fingerprint="f", ttl=HOUR) is None


async def test_an_abandoned_key_is_free(replies: Replies) -> None:
    await replies.begin("k", fingerprint="f", ttl=HOUR)
    await replies.abandon("k")
    await replies.abandon("k")
    assert await replies.begin("k", fingerprint="g", ttl=HOUR) is None


async def test_keys_expire_and_carry_the_prefix(replies: Replies, client: Client) -> None:
    await replies.begin("brief", fingerprint="f", ttl=timedelta(milliseconds=30))

    async def gone() -> bool:
        return await client.command("EXISTS", f"{client.prefix}reply:brief") == 0

    await eventually(gone)
    await replies.begin("k", fingerprint="f", ttl=HOUR)
    await replies.finish("k", ANSWER, ttl=timedelta(hours=24))
    left_ms = await client.command("PTTL", f"{client.prefix}reply:k")
    assert timedelta(hours=23) < timedelta(milliseconds=left_ms) <= timedelta(hours=24)


async def test_a_claim_is_held_as_long_as_it_is_renewed(replies: Replies, client: Client) -> None:
    await replies.begin("slow", fingerprint="f", ttl=timedelta(milliseconds=500))
    await replies.hold("slow", ttl=HOUR)
    assert await client.command("PTTL", f"{client.prefix}reply:slow") > 500
    await replies.hold("ended", ttl=HOUR)
    assert await replies.begin("ended", fingerprint="f", ttl=HOUR) is None


async def test_a_claim_whose_answer_was_lost_is_still_ones_own() -> None:
    with running_server() as mortal:
        client = await connect(mortal.url, town="acme", library=LIBRARY, bounds=Bounds(retry_s=20))
        send = client._batches._send
        lost = 0

        async def losing(batch):
            nonlocal lost
            answers = await send(batch)
            if not lost:
                lost += 1
                raise ConnectionResetError
            return answers

        client._batches._send = losing
        replies = adapter.Replies(client)
        assert await replies.begin("k", fingerprint="f", ttl=HOUR) is None
        assert lost == 1
        assert (await replies.begin("k", fingerprint="f", ttl=HOUR)) == StoredReply(fingerprint="f", status=None)
        await client.close()

"""What the port ``Administration`` promises, on every server."""

import pytest

from tests.contracts.conftest import Town
from tests.contracts.kit import AT_ONCE, FIRST, LATER, assign, everything, hire, new_message, queue

pytestmark = pytest.mark.anyio


async def fill(town: Town) -> None:
    """Leave something of every kind in the town."""
    ada = await hire(town, "ada")
    await hire(town, "bob")
    for message in (new_message(), new_message(urgent=True)):
        await town.mailbox.send(message, to="ada", task=None)
        await town.mailbox.send(new_message(), to="supervisor", task=None)
    await queue(town, role="docs", tags=("x",))
    await queue(town, urgent=True)
    delayed = await ada.must_take()
    await town.tasks.fail(delayed.id, epoch=1, reason="x", retry=LATER, final=False, by="ada")
    await assign(town, "ada", urgent=True)
    await ada.must_take()
    await assign(town, "ada")
    await assign(town, "bob")
    await town.mailbox.acknowledge("supervisor", None)
    done, dead = await queue(town), await queue(town)
    await town.tasks.complete(done.id, epoch=None, result="", by="me")
    await town.tasks.fail(dead.id, epoch=None, reason="x", retry=AT_ONCE, final=True, by="me")


async def test_a_reset_town_is_empty_but_for_its_record(town: Town) -> None:
    await fill(town)
    assert await town.administration.reset(agents_only=False) == 2 + 7 + 4
    left = {key.removeprefix(town.prefix.encode()) for key in await everything(town)}
    assert left == {b"counters", b"events"}
    assert (await town.events.newest(limit=1))[0].type == "town_reset"
    assert await town.administration.reset(agents_only=False) == 0
    await hire(town, "ada")
    await queue(town)
    assert (await town.readings.snapshot()).backlog == 1


async def test_a_reset_of_the_agents_keeps_the_work(town: Town) -> None:
    await fill(town)
    await town.administration.reset(agents_only=True)
    snapshot = await town.readings.snapshot()
    assert (snapshot.agents, snapshot.backlog, snapshot.assigned, snapshot.in_flight) == ((), 4, 0, 0)
    assert (snapshot.delayed, snapshot.dead_letters) == (1, 1)
    assert len((await town.tasks.backlog(FIRST)).items) == 4


async def test_a_neighbouring_town_is_left_alone(town: Town) -> None:
    await town.client.set(f"{town.prefix[:-1]}x:task:1", "neighbour")
    await fill(town)
    await town.administration.reset(agents_only=False)
    assert await town.client.get(f"{town.prefix[:-1]}x:task:1") == b"neighbour"
    await town.client.delete(f"{town.prefix[:-1]}x:task:1")

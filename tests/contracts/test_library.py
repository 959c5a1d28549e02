"""The library itself: it follows the town's tables, loads everywhere, and is legal on a cluster."""

import json
import re
from collections.abc import AsyncIterator, Iterator

import pytest

from borough.adapters.valkey import keys
from borough.adapters.valkey.functions import LIBRARY_NAME, library_source
from borough.core.errors import Invalid
from borough.town import agents, names, tasks
from tests.contracts.conftest import DURABLE, Server, Town, connect, running
from tests.contracts.kit import GRACE, LATER, assign, hire, new_message, queue

pytestmark = pytest.mark.anyio


async def table(town: Town, name: str) -> object:
    """What the server itself makes of a table of the library."""
    (line,) = re.findall(rf"^local {name} = .*$", library_source(), re.MULTILINE)
    return json.loads(await town.client.eval(f"{line}\nreturn cjson.encode({name})", 0))


async def test_the_server_follows_the_towns_tables(town: Town) -> None:
    for name, moves in (("TASK_MOVES", tasks.MOVES), ("AGENT_MOVES", agents.MOVES)):
        served = await table(town, name)
        assert isinstance(served, dict)
        assert {old: set(new) for old, new in served.items()} == {old.value: set(new) for old, new in moves.items()}
    for name, values in (
        ("TASK_TERMINAL", tasks.TERMINAL),
        ("TASK_REPLAYABLE", tasks.REPLAYABLE),
        ("AGENT_ENDED", agents.PRUNABLE),
        ("AGENT_ACTIVE", agents.ACTIVE),
        ("GENERALIST_ROLES", names.GENERALIST_ROLES),
        ("SUPERVISOR_NAMES", names.SUPERVISOR_NAMES),
    ):
        assert await table(town, name) == dict.fromkeys(values, True)
    assert await table(town, "SUPERVISOR_ID") == names.SUPERVISOR_ID


async def test_readers_cannot_write(town: Town) -> None:
    (library,) = await town.client.function_list(LIBRARY_NAME)
    functions = {entry[1].decode(): set(entry[5]) for entry in library[5]}
    readers = {name for name, flags in functions.items() if b"no-writes" in flags}
    assert readers == {
        *(
            "town_task",
            "town_find",
            "town_newest_tasks",
            "town_backlog",
            "town_pending",
            "town_context",
            "town_attempt_is_live",
        ),
        *("town_agent", "town_agent_history", "town_agents", "town_orphans", "town_inbox", "town_message"),
        *("town_events_after", "town_newest_events", "town_event_bounds"),
        *("town_snapshot", "town_counts", "town_waiting", "town_ping"),
    }
    assert all(name.startswith("town_") for name in functions)


def test_prefixes_keep_towns_apart() -> None:
    assert keys.prefix("my.town") == "tt:my.town:"
    assert keys.prefix("my.town", cluster=True) == "tt:{my.town}:"
    for name in ("", "*", "a:b", "{a}", "a b"):
        with pytest.raises(Invalid):
            keys.prefix(name)


@pytest.fixture(scope="module", params=["valkey", "redis"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Server]:
    yield from running(request.param, *DURABLE, "--cluster-enabled", "yes")


@pytest.fixture
async def clustered(cluster: Server, anyio_backend: str) -> AsyncIterator[Town]:
    client = connect(cluster)
    yield Town(client, keys.prefix("acme", cluster=True))
    await client.connection_pool.disconnect()


async def test_every_key_of_a_town_is_in_one_slot_of_a_cluster(clustered: Town) -> None:
    town = clustered
    ada = await hire(town, "ada", role_id="docs", nickname="Adele")
    for role in ("docs", None):
        await queue(town, role=role, urgent=role is None, tags=("x",))
    await assign(town, "Adele")
    await town.mailbox.send(new_message(), to="ada", task=None)
    task = await ada.must_take()
    await town.tasks.fail(task.id, epoch=1, reason="x", retry=LATER, final=False, by="ada")
    task = await ada.must_take()
    await ada.beat(task)
    await town.tasks.complete(task.id, epoch=1, result="", by="ada")
    await town.leases.sweep(retry=LATER, limit=9, agent_grace=GRACE)
    snapshot = await town.readings.snapshot()
    assert (snapshot.backlog, snapshot.delayed, snapshot.completed_total) == (1, 1, 1)
    stored = [key async for key in town.client.scan_iter(count=1000)]
    slots = {await town.client.execute_command("CLUSTER", "KEYSLOT", key) for key in stored}
    assert len(stored) > 15
    assert len(slots) == 1

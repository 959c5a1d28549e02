"""A server that is killed comes back with everything it acknowledged, leases and places in queues included."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import valkey

from borough.adapters.valkey import keys
from borough.adapters.valkey.functions import library_source
from borough.core.paging import PageRequest
from borough.town.ports.tasks import TaskFilter
from tests.contracts.conftest import DURABLE, Server, Town, binary, connect, wait_until
from tests.contracts.kit import LATER, LEASE, assign, hire, new_message, queue

pytestmark = pytest.mark.anyio


def start(kind: str, folder: Path) -> "subprocess.Popen[bytes]":
    where = ["--port", "0", "--unixsocket", str(folder / "s"), "--dir", str(folder), "--daemonize", "no"]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([binary(kind), *where, *DURABLE], stdout=log, stderr=log)
    with valkey.Valkey(unix_socket_path=str(folder / "s")) as client:
        wait_until(client.ping, process)
    return process


async def seen(town: Town) -> tuple[Any, ...]:
    streams = [name async for name in town.client.scan_iter(_type="stream")]
    groups = {name: await town.client.xinfo_groups(name) for name in streams}
    pending = {
        name: [(group["pending"], group["last-delivered-id"]) for group in found] for name, found in groups.items()
    }
    everything = PageRequest(limit=1000)
    return (
        (await town.tasks.find(TaskFilter(), everything)).items,
        (await town.tasks.backlog(everything)).items,
        await town.agents.all(),
        await town.readings.counts(),
        await town.events.newest(limit=1000),
        await town.mailbox.peek("ada", limit=100),
        pending,
    )


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_a_killed_server_comes_back_with_all_it_acknowledged(kind: str, tmp_path: Path) -> None:
    process = start(kind, tmp_path)
    try:
        client = connect(Server(kind=kind, socket=tmp_path / "s"))
        await client.function_load(library_source())
        town = Town(client, keys.prefix("phoenix"))
        ada, bob = await hire(town, "ada"), await hire(town, "bob")
        for number in range(6):
            await queue(town, f"task {number}", role="docs" if number % 2 else None)
        await assign(town, "ada")
        await town.mailbox.send(new_message(), to="ada", task=None)
        first, second = await bob.must_take(), await ada.must_take()
        await town.tasks.release(first.id, epoch=1, reason="back to its place")
        await town.tasks.fail(second.id, epoch=1, reason="x", retry=LATER, final=False, by="ada")
        assert (await ada.must_take()).id == first.id
        await town.tasks.release(first.id, epoch=2, reason="again")
        held = await bob.must_take()
        assert held.id == first.id
        before = await seen(town)

        process.kill()
        process.wait()
        process = start(kind, tmp_path)
        await client.connection_pool.disconnect()
        assert await seen(town) == before
        again = (await town.leases.take(bob.id, incarnation=1, lease=LEASE))[0]
        assert again is not None
        assert (again.task.id, again.task.epoch) == (held.id, held.epoch)
        taken = []
        while lease := await bob.take():
            taken.append(lease.task.description)
            await town.tasks.complete(lease.task.id, epoch=lease.task.epoch, result="", by="bob")
        assert taken == [f"task {number}" for number in range(6)]
        await client.connection_pool.disconnect()
    finally:
        process.kill()
        process.wait()

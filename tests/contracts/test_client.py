"""The client against real servers: answers, batches, losses, refusals."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from valkey.exceptions import ResponseError

from borough.adapters.valkey.addresses import TlsFiles, redact_url
from borough.adapters.valkey.batches import Bounds
from borough.adapters.valkey.client import Client, connect
from borough.core.errors import Unavailable
from tests.contracts.servers import (
    LIBRARY,
    Server,
    binary_named,
    free_port,
    make_certificates,
    redis_binary,
    running_cluster,
    running_server,
    short_directory,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=["valkey", "redis", "cluster"])
def server(request: pytest.FixtureRequest):
    if request.param == "cluster":
        with running_cluster() as running:
            yield running
    else:
        with running_server(binary=binary_named(request.param)) as running:
            yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    connected = await connect(server.url, town="acme", library=LIBRARY)
    await connected.command("DEL", f"{connected.prefix}ids")
    yield connected
    await connected.close()


async def calls_of(client: Client, command: str) -> int:
    stats = await client.command("INFO", "commandstats")
    for line in stats.decode().splitlines():
        if line.startswith(f"cmdstat_{command}:calls="):
            return int(line.split("=")[1].split(",")[0])
    return 0


async def test_a_function_gets_the_prefix_and_its_arguments(client: Client) -> None:
    assert (await client.call("p_add", "one"))[0] == b"ok"
    assert await client.call("p_add", b"one") == [b"exists"]
    assert await client.read("p_count") == 1
    assert client.prefix == ("tt:{acme}:" if client.facts.is_cluster else "tt:acme:")


async def test_plain_commands_answer_raw_on_every_kind_of_server(client: Client) -> None:
    key = f"{client.prefix}plain"
    assert await client.command("SET", key, b"\x00\xff", "PX", 60000) == b"OK"
    assert await client.command("SET", key, "other", "NX", "GET", "PX", 60000) == b"\x00\xff"
    assert await client.command("GET", key) == b"\x00\xff"
    assert await client.command("PING") == b"PONG"
    assert 0 < await client.ping() < 5


async def test_durability_is_read_from_the_server(client: Client) -> None:
    assert client.facts.durability == "always"
    assert client.warnings == ()
    await client.command("CONFIG", "SET", "appendfsync", "everysec")
    try:
        assert await client.durability() == "everysec"
    finally:
        await client.command("CONFIG", "SET", "appendfsync", "always")
    assert await client.durability() == "always"


async def test_weak_durability_warns() -> None:
    with running_server("--appendonly", "no") as weak:
        client = await connect(weak.url, town="acme", library=LIBRARY)
        assert await client.durability() == "none"
        assert "appendfsync always" in client.warnings[0]
        await client.close()


async def test_every_caller_gets_its_own_answer(client: Client) -> None:
    answers = await asyncio.gather(*(client.command("ECHO", f"word {number}") for number in range(1000)))
    assert answers == [f"word {number}".encode() for number in range(1000)]


async def test_an_error_reaches_only_its_caller(client: Client) -> None:
    good, bad, other = await asyncio.gather(
        client.call("p_add", "good"),
        client.call("p_broken"),
        client.call("p_add", "other"),
        return_exceptions=True,
    )
    assert good[0] == other[0] == b"ok"
    assert isinstance(bad, ResponseError)
    with pytest.raises(TypeError, match="NoneType"):
        await client.call("p_add", None)  # type: ignore[arg-type]  # that is what is tested


async def test_cancelled_callers_leave_the_others_alone(client: Client) -> None:
    tasks = [asyncio.create_task(client.command("ECHO", str(number))) for number in range(300)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    await asyncio.sleep(0)
    for task in tasks[1::3]:
        task.cancel()
    answers = await asyncio.gather(*tasks[2::3])
    assert answers == [str(number).encode() for number in range(2, 300, 3)]
    assert await client.command("ECHO", "after") == b"after"


async def test_calls_of_one_turn_share_a_round_trip(server: Server) -> None:
    batches: list[int] = []
    client = await connect(server.url, town="acme", library=LIBRARY)
    send = client._batches._send

    async def counted(batch):
        batches.append(len(batch))
        return await send(batch)

    client._batches._send = counted
    await asyncio.gather(*(client.command("ECHO", "x") for _ in range(300)))
    await client.close()
    assert batches == [128, 128, 44]


async def test_functions_come_back_when_the_server_forgot_them(client: Client) -> None:
    await client.command("FUNCTION", "FLUSH")
    answers = await asyncio.gather(*(client.call("p_add", str(number)) for number in range(50)))
    assert {answer[0] for answer in answers} <= {b"ok", b"exists"}
    assert await client.read("p_count") == 50


async def test_functions_are_loaded_only_when_they_differ(client: Client, server: Server) -> None:
    before = await calls_of(client, "function|load")
    again = await connect(server.url, town="acme", library=LIBRARY)
    await again.close()
    assert await calls_of(client, "function|load") == before
    newer = await connect(server.url, town="acme", library=LIBRARY + "-- newer\n")
    await newer.close()
    assert await calls_of(client, "function|load") == before + 1


async def test_a_library_that_does_not_compile_is_told(server: Server) -> None:
    with pytest.raises(Unavailable) as caught:
        await connect(server.url, town="acme", library="#!lua name=proof2\nthis is not lua")
    assert caught.value.code == "store_unsuitable"


@pytest.mark.parametrize("kind", ["valkey", "redis", "cluster"])
async def test_a_killed_server_costs_callers_only_time(kind: str) -> None:
    running = running_cluster() if kind == "cluster" else running_server(binary=binary_named(kind))
    with running as mortal:
        client = await connect(mortal.url, town="acme", library=LIBRARY, bounds=Bounds(retry_s=20))
        acknowledged: set[str] = set()
        done = asyncio.Event()

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
            for _ in range(2):
                goal = len(acknowledged) + 200
                while len(acknowledged) < goal:
                    await asyncio.sleep(0.005)
                await asyncio.to_thread(mortal.kill)
                await asyncio.to_thread(mortal.start)
            goal = len(acknowledged) + 200
            while len(acknowledged) < goal:
                await asyncio.sleep(0.005)
            done.set()
        kept = {member.decode() for member in await client.command("SMEMBERS", f"{client.prefix}ids")}
        await client.close()
    assert acknowledged <= kept
    assert len(kept) <= len(acknowledged) + 16


async def test_a_server_that_stays_away_is_told_in_time() -> None:
    with running_server() as mortal:
        client = await connect(mortal.url, town="acme", library=LIBRARY, bounds=Bounds(retry_s=0.3))
        mortal.kill()
        began = time.monotonic()
        results = await asyncio.gather(*(client.read("p_count") for _ in range(200)), return_exceptions=True)
        assert time.monotonic() - began < 3
        assert {type(result) for result in results} == {Unavailable}
        assert {result.code for result in results} == {"store_unavailable"}
        assert all(result.resolution for result in results)
        await client.close()


async def test_a_silent_server_is_given_up_and_its_late_answers_reach_nobody() -> None:
    with running_server() as mute:
        client = await connect(mute.url, town="acme", library=LIBRARY, timeout_s=0.2, bounds=Bounds(retry_s=0.1))
        with mute.client() as other:
            other.execute_command("CLIENT", "PAUSE", "1000", "ALL")
        with pytest.raises(Unavailable):
            await client.command("ECHO", "early")
        async with asyncio.timeout(60):
            while True:
                try:
                    answer = await client.command("ECHO", "late")
                    break
                except Unavailable:
                    continue
        assert answer == b"late"
        await client.close()


async def test_a_replica_that_becomes_primary_gets_the_call() -> None:
    with running_server() as replica:
        client = await connect(replica.url, town="acme", library=LIBRARY)
        await client.command("REPLICAOF", "127.0.0.1", str(free_port()))
        write = asyncio.create_task(client.command("SET", "tt:acme:x", "1"))
        with replica.client() as other:
            while not other.info("errorstats").get("errorstat_READONLY") and not write.done():
                await asyncio.sleep(0.01)
        assert not write.done()
        await client.command("REPLICAOF", "NO", "ONE")
        assert await write == b"OK"
        await client.close()


async def test_a_full_memory_is_told_at_once() -> None:
    with running_server() as full:
        client = await connect(full.url, town="acme", library=LIBRARY)
        await client.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(Unavailable) as caught:
            await client.command("SET", "tt:acme:x", "1")
        assert caught.value.code == "store_full"
        await client.close()


async def test_too_many_calls_are_refused_not_hoarded(server: Server) -> None:
    client = await connect(server.url, town="acme", library=LIBRARY, bounds=Bounds(queued_calls=100))
    results = await asyncio.gather(*(client.read("p_count") for _ in range(150)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, Unavailable)]
    assert len(refused) == 50
    assert {error.code for error in refused} == {"store_overloaded"}
    assert await client.read("p_count") >= 0
    await client.close()


async def test_closing_answers_those_who_wait() -> None:
    with running_server() as mortal:
        client = await connect(mortal.url, town="acme", library=LIBRARY, bounds=Bounds(retry_s=60))
        mortal.kill()
        waiting = [asyncio.create_task(client.read("p_count")) for _ in range(5)]
        await asyncio.sleep(0)
        await client.close()
        results = await asyncio.gather(*waiting, client.read("p_count"), return_exceptions=True)
        assert {getattr(result, "code", None) for result in results} == {"store_unavailable"}


@pytest.mark.parametrize("binary", ["valkey", "redis"])
@pytest.mark.parametrize("place", ["socket", "tcp"])
async def test_a_wrong_password_is_said_and_never_shown(binary: str, place: str) -> None:
    port = free_port() if place == "tcp" else 0
    with running_server(binary=binary_named(binary), port=port, password="right") as locked:
        for password in ("s3cret", ""):
            url = f"redis://:{password}@127.0.0.1:{port}" if port else f"{locked.url}?password={password}"
            with pytest.raises(Unavailable) as caught:
                await connect(url, town="acme", library=LIBRARY)
            error = caught.value
            told = f"{error.message} {error.reason} {error.resolution}"
            assert error.code == "store_refused"
            assert "authentication failed" in told
            assert "s3cret" not in told
            assert str(port or locked.directory) in told
        url = f"redis://:right@127.0.0.1:{port}" if port else f"{locked.url}?password=right"
        client = await connect(url, town="acme", library=LIBRARY)
        assert (await client.call("p_add", "x"))[0] == b"ok"
        assert "right" not in client.place
        await client.close()


async def test_a_user_without_the_right_commands_is_told(server: Server) -> None:
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "poor", "on", ">pw", "~*", "+ping", "+info", "+command", "+cluster")
    separator = "@" if server.url.startswith("redis") else "?"
    url = (
        server.url.replace("redis://", "redis://poor:pw@")
        if separator == "@"
        else server.url.replace("unix://", "unix://poor@") + "?password=pw"
    )
    with pytest.raises(Unavailable) as caught:
        await connect(url, town="acme", library=LIBRARY)
    assert caught.value.code == "store_refused"


async def test_a_server_that_forbids_config_has_unknown_durability(server: Server) -> None:
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "hosted", "on", ">pw", "~*", "&*", "+@all", "-config")
    url = (
        server.url.replace("redis://", "redis://hosted:pw@")
        if server.url.startswith("redis")
        else server.url.replace("unix://", "unix://hosted@") + "?password=pw"
    )
    client = await connect(url, town="acme", library=LIBRARY)
    assert client.facts.durability == "unknown"
    assert await client.durability() == "unknown"
    assert client.warnings
    await client.close()


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1:1", "store_url_invalid"),
        ("redis://:s3cret", "store_url_invalid"),
        ("redis://u:s3cret@h:port/0", "store_url_invalid"),
        ("nonsense", "store_url_invalid"),
        ("unix://", "store_url_invalid"),
        ("unix:///no/such/socket?password=s3cret", "store_unavailable"),
        ("redis://u:s3cret@127.0.0.1:1", "store_unavailable"),
    ],
)
async def test_a_connection_that_cannot_be_made_is_one_clear_error(url: str, code: str) -> None:
    with pytest.raises(Unavailable) as caught:
        await connect(url, town="acme", library=LIBRARY)
    error = caught.value
    told = f"{error.message} {error.reason} {error.resolution}"
    assert error.code == code
    assert redact_url(url) in error.message
    assert "s3cret" not in told
    assert "s3cret" not in repr(error.__cause__)
    assert error.resolution


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://ada:pw@h:1/0", "redis://ada:****@h:1/0"),
        ("redis://:p@ss/w?d@h", "redis://:****@h"),
        ("redis://:pw", "redis://:****"),
        ("rediss://h:6379/0", "rediss://h:6379/0"),
        ("redis://ada@h", "redis://ada@h"),
        ("redis://[::1]:6379", "redis://[::1]:6379"),
        ("unix:///a/b.sock?password=pw&db=1", "unix:///a/b.sock?password=****&db=1"),
        ("ada:pw@h", "ada:****@h"),
        ("nonsense", "nonsense"),
        ("", ""),
    ],
)
def test_urls_are_shown_without_passwords(url: str, shown: str) -> None:
    assert redact_url(url) == shown


async def test_a_server_older_than_7_is_refused(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setattr("borough.adapters.valkey.client.OLDEST_VERSION", (99, 0))
    with pytest.raises(Unavailable) as caught:
        await connect(server.url, town="acme", library=LIBRARY)
    assert caught.value.code == "store_too_old"


async def test_tls_is_verified() -> None:
    with short_directory() as files, short_directory() as elsewhere:
        good = make_certificates(files)
        port = free_port()
        tls = ["--tls-port", str(port), "--tls-cert-file", str(good.certificate), "--tls-key-file", str(good.key)]
        tls += ["--tls-ca-cert-file", str(good.ca)]
        with running_server(*tls, binary=redis_binary(), tls_port=port) as encrypted:
            own = TlsFiles(ca=str(good.ca), certificate=str(good.certificate), key=str(good.key))
            client = await connect(encrypted.url, town="acme", library=LIBRARY, tls=own)
            assert (await client.call("p_add", "x"))[0] == b"ok"
            await client.close()
            other = make_certificates(elsewhere)
            wrong_authority = TlsFiles(ca=str(other.ca), certificate=str(good.certificate), key=str(good.key))
            by_name = encrypted.url.replace("127.0.0.1", "localhost")
            nobody = TlsFiles(ca=str(good.ca))
            for url, wrong in ((encrypted.url, wrong_authority), (by_name, own), (encrypted.url, nobody)):
                with pytest.raises(Unavailable) as caught:
                    await connect(url, town="acme", library=LIBRARY, tls=wrong)
                assert caught.value.code == "store_unavailable", Path(url)

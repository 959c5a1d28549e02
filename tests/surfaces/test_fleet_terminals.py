"""Terminals over WebSockets, at the controller and at the host daemon: who gets in, what is said, how it ends."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from borough.auth.principals import LOCAL
from borough.core.errors import Forbidden
from borough.http.fleet.terminals import Terminals
from borough.http.fleet.tickets import Tickets
from tests.conftest import eventually
from tests.services.fleet_house import (
    RunningController,
    RunningHost,
    running_controller,
    running_host,
    settings_of_controller,
    settings_of_host,
    with_key,
)

pytestmark = pytest.mark.anyio
KEY = "k3y"
SIZE = {"rows": 30, "cols": 100}
VM = {"image": "base", "engine": "bubblewrap", "cpu": 1, "mem": 64, "disk": 1000}


@dataclass(slots=True)
class House:
    """Both servers, with one machine."""

    controller: RunningController
    host: RunningHost
    vm: str
    session: aiohttp.ClientSession
    """Knows the key; the controller's client does too."""

    def url(self, which: str, what: str = "exec", vm: str | None = None) -> str:
        base = self.controller.url if which == "controller" else f"http://{self.host.addr}"
        return f"{base}/api/vms/{vm or self.vm}/{what}"

    def terminals(self, which: str) -> Terminals:
        services = self.controller.opened.services if which == "controller" else self.host.opened.services
        terminals: Terminals = services.terminals
        return terminals


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    listening = with_key(KEY)
    async with (
        running_host(settings_of_host(tmp_path / "h1", host_id="h1", listening=listening)) as host,
        running_controller(settings_of_controller(tmp_path, listening=listening)) as controller,
        aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session,
    ):
        assert (await controller.ask("POST", "/api/hosts", json={"addr": host.addr}))[0] == 201
        status, made = await controller.ask("POST", "/api/envs", json={"id": "e1", "ssh_keys": [], "vms": [VM]})
        assert status == 201, made
        yield House(controller, host, made["data"]["vms"][0]["id"], session)


@pytest.fixture(params=["controller", "host"])
def which(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def spoken(socket: aiohttp.ClientWebSocketResponse, *, until: bytes | None = None) -> tuple[bytes, Any]:
    """Return what was printed, and the text that came last: all of it, or up to the printing of ``until``."""
    printed = b""
    async with asyncio.timeout(60):
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                return printed, json.loads(message.data)
            printed += message.data
            if until is not None and until in printed:
                return printed, None
    return printed, None


async def holds(what: Callable[[], bool]) -> None:
    async def now() -> bool:
        return what()

    await eventually(now)


def order(*argv: str, **more: Any) -> dict[str, Any]:
    return {"argv": list(argv), "tty": SIZE, **more}


async def test_what_is_typed_goes_in_and_what_is_printed_comes_out(house: House, which: str) -> None:
    async with house.session.ws_connect(house.url(which)) as socket:
        await socket.send_json(order("sh", "-c", "stty size; read name; echo hello $name; exit 7"))
        printed, _ = await spoken(socket, until=b"30 100\r\n")
        assert printed.startswith(b"30 100")
        await socket.send_bytes(b"ada\n")
        printed, end = await spoken(socket)
        assert b"hello ada\r\n" in printed
        assert end == {"stream": "exit", "exit_code": 7}
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 1000
    await holds(lambda: house.terminals(which).open == 0)


async def test_a_terminal_is_resized_while_its_command_runs(house: House, which: str) -> None:
    script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"
    async with house.session.ws_connect(house.url(which)) as socket:
        await socket.send_json(order("sh", "-c", script))
        await spoken(socket, until=b"ready")
        await socket.send_json({"rows": 11, "cols": 22})
        printed, _ = await spoken(socket, until=b"11 22")
        assert b"11 22" in printed


async def test_whoever_leaves_leaves_no_process(house: House, which: str, tmp_path: Path) -> None:
    kept = tmp_path / "pid"
    async with house.session.ws_connect(house.url(which)) as socket:
        await socket.send_json(order("sh", "-c", f"echo $$ >{kept}; echo ready; exec sleep 1000"))
        await spoken(socket, until=b"ready")
        pid = int(kept.read_text())
        os.kill(pid, 0)
    await holds(lambda: not Path(f"/proc/{pid}").exists())
    await holds(lambda: house.terminals("host").open == house.terminals("controller").open == 0)


async def test_a_connection_that_is_cut_ends_the_command_too(house: House, which: str, tmp_path: Path) -> None:
    kept = tmp_path / "pid"
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session:
        socket = await session.ws_connect(house.url(which))
        await socket.send_json(order("sh", "-c", f"echo $$ >{kept}; echo ready; exec sleep 1000"))
        await spoken(socket, until=b"ready")
        pid = int(kept.read_text())
        assert socket._response.connection is not None
        assert socket._response.connection.transport is not None
        socket._response.connection.transport.abort()
    await holds(lambda: not Path(f"/proc/{pid}").exists())


async def refused(session: aiohttp.ClientSession, url: str, **headers: str) -> int:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await session.ws_connect(url, headers=headers)
    return refusal.value.status


async def test_who_has_no_key_does_not_get_in(house: House, which: str) -> None:
    async with aiohttp.ClientSession() as stranger:
        for what in ("exec", "console"):
            assert await refused(stranger, house.url(which, what)) == 401
            assert await refused(stranger, house.url(which, what), authorization="Bearer guess") == 401


async def test_a_page_of_another_origin_does_not_get_in(house: House, which: str) -> None:
    own = house.url(which).split("/api/")[0]
    assert await refused(house.session, house.url(which), origin="http://evil.example") == 403
    assert await refused(house.session, house.url(which), **{"sec-fetch-site": "cross-site"}) == 403
    async with house.session.ws_connect(house.url(which), headers={"origin": own}) as socket:
        await socket.send_json(order("true"))
        assert (await spoken(socket))[1] == {"stream": "exit", "exit_code": 0}


async def test_a_server_without_a_key_is_called_by_its_own_name_only(tmp_path: Path) -> None:
    async with running_host(settings_of_host(tmp_path / "h1")) as host, aiohttp.ClientSession() as session:
        assert await refused(session, f"http://{host.addr}/api/vms/x/exec", host="evil.example") == 403


async def test_only_so_many_are_open_at_once(house: House, which: str) -> None:
    house.terminals(which).most = 1
    async with house.session.ws_connect(house.url(which)) as socket:
        await socket.send_json(order("sh", "-c", "echo ready; read line"))
        await spoken(socket, until=b"ready")
        assert await refused(house.session, house.url(which)) == 503
        await socket.send_bytes(b"\n")
        await spoken(socket)
    await holds(lambda: house.terminals(which).open == 0)
    async with house.session.ws_connect(house.url(which)) as socket:
        await socket.send_json(order("true"))
        assert (await spoken(socket))[1]["exit_code"] == 0


async def test_a_terminal_that_nobody_uses_is_closed(house: House, which: str) -> None:
    house.terminals(which).idle_s = 0.3
    async with house.session.ws_connect(house.url(which)) as socket:
        await socket.send_json(order("sleep", "1000"))
        _, end = await spoken(socket)
        assert (end["stream"], end["code"]) == ("error", "terminal_idle")
        await socket.receive()
        assert socket.close_code == 1011


async def test_a_message_has_its_limit(house: House, which: str) -> None:
    async with house.session.ws_connect(house.url(which)) as socket:
        await socket.send_json(order("cat"))
        await socket.send_bytes(bytes(2 * 1_048_576))
        async with asyncio.timeout(60):
            while (await socket.receive()).type is not aiohttp.WSMsgType.CLOSE:
                continue
        assert socket.close_code == 1009


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("no JSON", "invalid_message"),
        ('{"argv":[]}', "invalid_command"),
        ('{"argv":["a"],"command":"b"}', "invalid_command"),
        ('{"argv":["a"],"tty":{"rows":0,"cols":1}}', "invalid_message"),
        ('{"argv":["a"],"unknown":1}', "invalid_message"),
    ],
)
async def test_what_is_no_command_is_told(house: House, which: str, said: str, code: str) -> None:
    async with house.session.ws_connect(house.url(which)) as socket:
        await socket.send_str(said)
        assert (await spoken(socket))[1]["code"] == code


async def test_a_machine_that_is_not_there_is_told(house: House, which: str) -> None:
    async with house.session.ws_connect(house.url(which, vm="none")) as socket:
        await socket.send_json(order("true"))
        assert (await spoken(socket))[1]["code"] == "vm_not_found"
    assert await refused(house.session, house.url(which, "console", vm="none")) == 404


async def test_a_plain_request_is_told_what_to_do(house: House, which: str) -> None:
    for what in ("exec", "console"):
        async with house.session.get(house.url(which, what)) as answer:
            assert answer.status == 426
            assert (await answer.json())["code"] == "upgrade_required"
            assert answer.headers["upgrade"] == "websocket"


async def test_a_console_is_typed_at(house: House, which: str) -> None:
    async with house.session.ws_connect(house.url(which, "console")) as socket:
        await spoken(socket, until=f"{house.vm} console".encode())
        await socket.send_bytes(b"echo")
        assert (await spoken(socket, until=b"echo"))[0].endswith(b"echo")


async def test_a_ticket_opens_one_terminal_for_a_browser(house: House) -> None:
    async with aiohttp.ClientSession() as browser:
        asked = f"{house.controller.url}/api/stream-tickets"
        async with browser.post(asked) as answer:
            assert answer.status == 401
        async with house.session.post(asked) as answer:
            assert answer.status == 201
            ticket = (await answer.json())["data"]
        assert ticket["expires_in_secs"] == 30
        url = f"{house.url('controller')}?ticket={ticket['ticket']}"
        assert await refused(browser, url, origin="http://evil.example") == 403
        async with browser.ws_connect(url, headers={"origin": house.controller.url}) as socket:
            await socket.send_json(order("sh", "-c", "exit 4"))
            assert (await spoken(socket))[1] == {"stream": "exit", "exit_code": 4}
        assert await refused(browser, url) == 401
        assert await refused(browser, f"{house.url('controller')}?ticket=guess") == 401
        assert await refused(browser, f"{house.url('host')}?ticket=guess") == 401


async def test_a_ticket_opens_the_stream_of_events_too(house: House) -> None:
    async with house.session.post(f"{house.controller.url}/api/stream-tickets") as answer:
        ticket = (await answer.json())["data"]["ticket"]
    async with aiohttp.ClientSession(headers={"accept": "text/event-stream"}) as browser:
        async with browser.get(f"{house.controller.url}/api/events?ticket={ticket}&after=0") as answer:
            assert answer.status == 200
            assert await answer.content.readline()
        async with browser.get(f"{house.controller.url}/api/events?ticket={ticket}") as answer:
            assert answer.status == 401


async def test_tickets_are_few_and_soon_too_old() -> None:
    tickets, late = Tickets(most=2), Tickets(lifetime_s=-1.0)
    first, second, third = (tickets.give(LOCAL).ticket for _ in range(3))
    with pytest.raises(Forbidden):
        await tickets.take(first, "")
    assert await tickets.take(third, "") is await tickets.take(second, "") is LOCAL
    with pytest.raises(Forbidden):
        await late.take(late.give(LOCAL).ticket, "")

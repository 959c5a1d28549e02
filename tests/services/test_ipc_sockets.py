"""The sockets on real connections: frames, order, departures, limits, and who is let in."""

import asyncio
import os
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from borough.adapters.procfs import identify
from borough.core.errors import Conflict, Invalid
from borough.core.ids import AgentId, new_id
from borough.governance.tokens import OPERATOR, Caller, Role
from borough.http.operations import Access, Answer, Call, Operation, Reply
from borough.http.surfaces import Surface
from borough.ipc import frames, server
from borough.ipc.dispatch import Dispatcher
from borough.ipc.identity import NonceRegistry, nonce_sha256
from borough.ipc.opening import open_socket
from borough.ipc.rows import Row, Variant, ok, wrapped
from borough.ipc.server import Listener, agents_only, operators_only
from tests.conftest import eventually, need
from tests.services.ipc_client import Client

pytestmark = pytest.mark.anyio

ADA = AgentId("6e0a3b4e-0000-4000-8000-0000000000ad")
BOB = AgentId("6e0a3b4e-0000-4000-8000-0000000000b0")
NONCE = "ab" * 32
NOBODY_UID = 65_534


class Said(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    text: str
    times: int = 1


@dataclass
class State:
    waiting: int = 0
    cancelled: int = 0
    callers: list[Caller] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)


async def say(call: Call) -> dict[str, str]:
    call.state.callers.append(call.principal.caller)
    return {"said": call.body.text * call.body.times, "to": call.path["id"], "door": call.door}


async def wait(call: Call) -> Reply:
    call.state.waiting += 1
    try:
        await call.state.go.wait()
    except asyncio.CancelledError:
        call.state.cancelled += 1
        raise
    finally:
        call.state.waiting -= 1
    return Reply(status=204)


OPERATIONS = (
    Operation(
        method="POST",
        path="/agents/{id}/words",
        handler=say,
        access=Access.CALLER,
        summary="Say",
        tag="t",
        body=Said,
        answers=(Answer(status=200, body=dict, description="said"),),
    ),
    Operation(
        method="POST",
        path="/waits",
        handler=wait,
        access=Access.CALLER,
        summary="Wait",
        tag="t",
        streaming=True,
        answers=(Answer(status=204, body=None, description="done"),),
    ),
)
VARIANTS = {
    "Say": Variant(
        rows=(
            Row(
                method="POST",
                path="/agents/{id}/words",
                parameters={"id": "agent_id"},
                body={"text": "text", "times": "times"},
            ),
        ),
        answer=wrapped("Said"),
    ),
    "Wait": Variant(rows=(Row(method="POST", path="/waits"),), answer=ok, own="agent_id"),
}


@dataclass
class Doors:
    operators: Path
    agents: Path
    state: State
    runs: NonceRegistry
    refused: list[tuple[str, str]]
    listeners: list[Listener]
    sessions: list[tuple[str, str]]


async def _never(*_: object) -> Any:
    raise AssertionError("the sockets know callers by themselves")


@pytest.fixture
async def doors(tmp_path: Path) -> AsyncIterator[Doors]:
    state = State()
    surface = Surface(operations=OPERATIONS, state=state, authenticate=_never, grant_is_live=_never)
    dispatcher = Dispatcher(surface, variants=VARIANTS)
    sessions: list[tuple[str, str]] = []

    async def opened(agent_id: AgentId, run_id: str) -> None:
        sessions.append((agent_id, run_id))

    runs = NonceRegistry(session_opened=opened)
    refused: list[tuple[str, str]] = []
    sockets = [open_socket(tmp_path / "run" / name) for name in ("a.sock", "a.sock.agents")]
    listeners = []
    for opened_socket, admit in zip(sockets, (operators_only(), agents_only(runs)), strict=True):
        listener = Listener(dispatcher, admit, on_refused=lambda who, why: refused.append((who, why)))
        await listener.start(opened_socket.listening)
        listeners.append(listener)
    yield Doors(sockets[0].path, sockets[1].path, state, runs, refused, listeners, sessions)
    for listener in listeners:
        await listener.stop(drain_s=1)
    for opened_socket in sockets:
        opened_socket.close()
        assert not opened_socket.path.exists()


def expect_this_process(runs: NonceRegistry, agent: AgentId = ADA, nonce: str = NONCE) -> str:
    run_id = new_id()
    me = identify(os.getpid())
    assert me is not None
    runs.expect(agent, run_id, nonce_sha256=nonce_sha256(nonce))
    runs.started(run_id, pid=me.pid, started_ticks=me.started_ticks)
    return run_id


# -- frames and order --------------------------------------------------------------------------------------------------


async def test_requests_of_a_connection_are_answered_in_their_order(doors: Doors) -> None:
    client = await Client.connect(doors.operators)
    await client.send("Wait")
    await client.send({"Say": {"agent_id": "x", "text": "after"}})
    await eventually(lambda: _is(doors.state.waiting, 1))
    doors.state.go.set()
    assert await client.receive() == "Ok"
    assert await client.receive() == {"Said": {"said": "after", "to": "x", "door": "ipc"}}
    await client.close()


async def test_connections_do_not_wait_for_each_other(doors: Doors) -> None:
    slow, quick = await Client.connect(doors.operators), await Client.connect(doors.operators)
    await slow.send("Wait")
    await eventually(lambda: _is(doors.state.waiting, 1))
    assert await quick.ask({"Say": {"agent_id": "x", "text": "now"}}) == {
        "Said": {"said": "now", "to": "x", "door": "ipc"}
    }
    await slow.close()
    await quick.close()


async def test_operators_are_the_unbound_caller(doors: Doors) -> None:
    client = await Client.connect(doors.operators)
    await client.ask({"Say": {"agent_id": "x", "text": "a"}})
    assert doors.state.callers == [OPERATOR]
    await client.close()


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack(">I", frames.MOST_FRAME_BYTES + 1),
        struct.pack(">I", 3) + b"{]}",
        struct.pack(">I", 2) + b"[]",
        struct.pack(">I", 4) + b"null",
        struct.pack(">I", 2) + b"{}",
        struct.pack(">I", 15) + b'{"a":{},"b":{}}',
        struct.pack(">I", 7) + b'{"a":1}',
        struct.pack(">I", 2) + b"\xff\xfe",
    ],
)
async def test_what_is_no_message_is_refused_and_ends_the_connection(doors: Doors, sent: bytes) -> None:
    client = await Client.connect(doors.operators)
    client.writer.write(sent)
    answer = await client.receive()
    assert answer["Error"]["message"] == "invalid request"
    assert await client.receive() is None
    await client.close()


@pytest.mark.parametrize(
    "message",
    [
        "Unheard",
        {"Say": {"text": "a"}},
        {"Say": {"agent_id": "x"}},
        {"Say": {"agent_id": "x", "text": 7}},
        {"Say": {"agent_id": 7, "text": "a"}},
        {"Say": {"agent_id": "x", "text": "a", "tmes": 2}},
    ],
)
async def test_a_message_that_does_not_fit_is_refused_and_the_next_is_answered(doors: Doors, message: Any) -> None:
    client = await Client.connect(doors.operators)
    answer = await client.ask(message)
    assert answer["Error"]["message"] == "invalid request"
    assert answer["Error"]["code"] == "invalid_request"
    assert answer["Error"]["reason"]
    assert "Said" in await client.ask({"Say": {"agent_id": "x", "text": "a"}})
    await client.close()


async def test_a_frame_may_come_in_pieces(doors: Doors) -> None:
    client = await Client.connect(doors.operators)
    body = b'{"Say": {"agent_id": "x", "text": "a"}}'
    for byte in struct.pack(">I", len(body)) + body:
        client.writer.write(bytes([byte]))
        await client.writer.drain()
    assert "Said" in await client.receive()
    await client.close()


async def test_a_long_text_goes_both_ways(doors: Doors) -> None:
    client = await Client.connect(doors.operators)
    text = "x" * 3_000_000
    answer = await client.ask({"Say": {"agent_id": "x", "text": text, "times": 2}})
    assert answer["Said"]["said"] == text * 2
    await client.close()


# -- departures --------------------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_ends_what_it_waits_for(doors: Doors) -> None:
    client = await Client.connect(doors.operators)
    await client.send("Wait")
    await eventually(lambda: _is(doors.state.waiting, 1))
    await client.close()
    await eventually(lambda: _is(doors.state.cancelled, 1))
    assert doors.state.waiting == 0


async def test_a_client_that_says_no_more_still_gets_its_answer(doors: Doors) -> None:
    client = await Client.connect(doors.operators)
    await client.send("Wait")
    client.writer.write_eof()
    await eventually(lambda: _is(doors.state.waiting, 1))
    doors.state.go.set()
    assert await client.receive() == "Ok"
    assert await client.receive() is None
    assert doors.state.cancelled == 0
    await client.close()


async def test_a_client_that_asked_ahead_and_left_is_noticed(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LOOKED_FOR_EVERY_S", 0.02)
    client = await Client.connect(doors.operators)
    await client.send("Wait")
    await client.send("Wait")
    await eventually(lambda: _is(doors.state.waiting, 1))
    await client.close()
    await eventually(lambda: _is(doors.state.cancelled, 1))


async def test_a_client_that_does_not_read_is_cut_off(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ANSWER_TAKEN_WITHIN_S", 0.2)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(str(doors.operators))
        deaf.setblocking(False)
        body = msgspec.json.encode({"Say": {"agent_id": "x", "text": "x" * 1_000_000, "times": 15}})
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(deaf, struct.pack(">I", len(body)) + body)

        async def cut() -> bool:
            try:
                await loop.sock_sendall(deaf, b"\0\0\0\0")
            except (BrokenPipeError, ConnectionResetError):
                return True
            return False

        await eventually(cut)


async def test_too_many_connections_are_told_so(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 2)
    clients = [await Client.connect(doors.operators) for _ in range(2)]
    for client in clients:
        assert "Said" in await client.ask({"Say": {"agent_id": "x", "text": "a"}})
    third = await Client.connect(doors.operators)
    assert (await third.receive())["Error"]["code"] == "too_many_connections"
    assert await third.receive() is None
    await clients[0].close()

    async def room() -> bool:
        fourth = await Client.connect(doors.operators)
        try:
            return "Said" in (await fourth.ask({"Say": {"agent_id": "x", "text": "a"}}) or {})
        finally:
            await fourth.close()

    await eventually(room)
    for client in (*clients[1:], third):
        await client.close()


async def test_a_stopping_daemon_lets_running_requests_finish(doors: Doors) -> None:
    client = await Client.connect(doors.operators)
    await client.send("Wait")
    await eventually(lambda: _is(doors.state.waiting, 1))
    stopping = asyncio.ensure_future(doors.listeners[0].stop(drain_s=10))
    doors.state.go.set()
    assert await client.receive() == "Ok"
    assert await client.receive() is None
    await stopping
    with pytest.raises(OSError, match=r"refused|No such file"):
        await Client.connect(doors.operators)
    await client.close()


# -- who is let in -----------------------------------------------------------------------------------------------------


def connected_as(path: Path, uid: int) -> socket.socket:
    """Connect as another user: the kernel notes the effective one at that moment."""
    connection = socket.socket(socket.AF_UNIX)
    before = os.geteuid()
    os.seteuid(uid)
    try:
        connection.connect(str(path))
    finally:
        os.seteuid(before)
    connection.setblocking(False)
    return connection


async def test_only_the_daemon_s_user_and_root_are_operators(doors: Doors) -> None:
    need(os.geteuid() == 0, "root, who can connect as somebody else", "sudo make test")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        opened = open_socket(Path(folder) / "a.sock")
        opened.path.chmod(0o666)  # so that it is the daemon who refuses, and not the file
        refused: list[str] = []
        listener = Listener(
            doors.listeners[0]._dispatcher, operators_only(), on_refused=lambda who, _why: refused.append(who)
        )
        await listener.start(opened.listening)
        for uid, admitted in ((NOBODY_UID, False), (0, True)):
            reader, writer = await asyncio.open_unix_connection(sock=connected_as(opened.path, uid))
            client = Client(reader, writer)
            if admitted:
                assert "Said" in await client.ask({"Say": {"agent_id": "x", "text": "a"}})
            else:
                assert (await client.receive())["Error"]["message"] == "permission denied"
            await client.close()
        assert refused == [f"pid {os.getpid()} of uid {NOBODY_UID}"]
        await listener.stop()
        opened.close()


async def test_an_agent_is_who_its_nonce_and_its_process_say(doors: Doors) -> None:
    run_id = expect_this_process(doors.runs)
    client = await Client.connect(doors.agents)
    assert await client.ask({"Hello": {"nonce": NONCE}}) == "Ok"
    assert await client.ask({"Say": {"text": "me"}}) == {"Said": {"said": "me", "to": ADA, "door": "ipc"}}
    assert await client.ask({"Say": {"agent_id": BOB, "text": "you"}}) == {
        "Said": {"said": "you", "to": BOB, "door": "ipc"}
    }
    assert [(one.agent_id, one.role, one.token_name) for one in doors.state.callers] == [
        (ADA, Role.AGENT, "socket")
    ] * 2
    assert doors.sessions == [(ADA, run_id)]
    again = await Client.connect(doors.agents)
    assert await again.ask({"Hello": {"nonce": NONCE}}) == "Ok"
    assert doors.sessions == [(ADA, run_id)]
    await again.close()
    await client.close()


async def test_an_agent_cannot_ask_in_another_s_place(doors: Doors) -> None:
    expect_this_process(doors.runs)
    client = await Client.connect(doors.agents)
    await client.ask({"Hello": {"nonce": NONCE}})
    answer = await client.ask({"Wait": {"agent_id": BOB}})
    assert answer["Error"]["message"] == "permission denied"
    assert doors.state.waiting == 0
    doors.state.go.set()
    assert await client.ask({"Wait": {"agent_id": ADA}}) == "Ok"
    await client.close()


@pytest.mark.parametrize(
    "first",
    [
        {"Hello": {"nonce": "cd" * 32}},
        {"Hello": {"nonce": None}},
        {"Hello": {"nonce": ["a"]}},
        {"Hello": {"nonce": "\udcff"}},
        {"Hello": {}},
        {"Hello": {"nonce": nonce_sha256(NONCE)}},
        "Wait",
        {"Say": {"agent_id": ADA, "text": "trust me"}},
    ],
)
async def test_nobody_else_is_let_in_as_an_agent(doors: Doors, first: Any) -> None:
    expect_this_process(doors.runs)
    client = await Client.connect(doors.agents)
    answer = await client.ask(first)
    assert answer["Error"]["message"] in {"permission denied", "invalid request"}
    assert await client.receive() is None
    assert doors.state.callers == []
    assert doors.sessions == []
    await client.close()


async def test_a_run_that_ended_has_no_connection(doors: Doors) -> None:
    run_id = expect_this_process(doors.runs)
    client = await Client.connect(doors.agents)
    await client.ask({"Hello": {"nonce": NONCE}})
    await client.send("Wait")
    await eventually(lambda: _is(doors.state.waiting, 1))
    doors.runs.ended(run_id)
    await eventually(lambda: _is(doors.state.cancelled, 1))
    assert await client.receive() is None
    late = await Client.connect(doors.agents)
    assert (await late.ask({"Hello": {"nonce": NONCE}}))["Error"]["message"] == "permission denied"
    assert len(doors.runs) == 0
    await client.close()
    await late.close()


SHOWS_THE_NONCE = textwrap.dedent(
    """
    import json, os, socket, struct, sys
    path, nonce, forks = sys.argv[1], sys.argv[2], int(sys.argv[3])
    for _ in range(forks):
        if os.fork():
            os.wait()
            sys.exit(0)
        os.setsid()
    if len(sys.argv) > 4:
        input()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    body = json.dumps({"Hello": {"nonce": nonce}}).encode()
    connection.sendall(struct.pack(">I", len(body)) + body)
    (length,) = struct.unpack(">I", connection.recv(4, socket.MSG_WAITALL))
    print(connection.recv(length, socket.MSG_WAITALL).decode(), flush=True)
    """
)


def started(doors: Doors, nonce: str, *, forks: int, waits: bool = False) -> "subprocess.Popen[str]":
    arguments = [str(doors.agents), nonce, str(forks), *(["wait"] if waits else [])]
    return subprocess.Popen(
        [sys.executable, "-c", SHOWS_THE_NONCE, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


async def said(process: "subprocess.Popen[str]") -> Any:
    out, _ = await asyncio.to_thread(process.communicate, "\n")
    return msgspec.json.decode(out)


@pytest.mark.parametrize("forks", [0, 1, 3])
async def test_descendants_of_the_run_s_process_are_the_agent_too(doors: Doors, forks: int) -> None:
    process = started(doors, NONCE, forks=forks, waits=True)
    ref = identify(process.pid)
    assert ref is not None
    run_id = new_id()
    doors.runs.expect(ADA, run_id, nonce_sha256=nonce_sha256(NONCE))
    doors.runs.started(run_id, pid=ref.pid, started_ticks=ref.started_ticks)
    assert await said(process) == "Ok"


async def test_a_stolen_nonce_is_of_no_use_to_another_process(doors: Doors) -> None:
    """With a control: the very same program is let in when it is the run's own process."""
    process, thief = started(doors, NONCE, forks=0, waits=True), started(doors, NONCE, forks=0, waits=True)
    ref = identify(process.pid)
    assert ref is not None
    run_id = new_id()
    doors.runs.expect(ADA, run_id, nonce_sha256=nonce_sha256(NONCE))
    doors.runs.started(run_id, pid=ref.pid, started_ticks=ref.started_ticks)
    answer = await said(thief)
    assert answer["Error"]["reason"] == "the process does not belong to the run"
    assert await said(process) == "Ok"
    assert [why for _, why in doors.refused] == ["the process does not belong to the run"]


async def test_an_agent_may_connect_before_its_process_is_known(doors: Doors) -> None:
    run_id = new_id()
    doors.runs.expect(ADA, run_id, nonce_sha256=nonce_sha256(NONCE))
    client = await Client.connect(doors.agents)
    await client.send({"Hello": {"nonce": NONCE}})
    me = identify(os.getpid())
    assert me is not None
    doors.runs.started(run_id, pid=me.pid, started_ticks=me.started_ticks)
    assert await client.receive() == "Ok"
    await client.close()


# -- the files ---------------------------------------------------------------------------------------------------------


def test_a_socket_is_its_owner_s_alone(tmp_path: Path) -> None:
    opened = open_socket(tmp_path / "new" / "a.sock")
    assert stat.S_IMODE(opened.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(opened.path.parent.stat().st_mode) == 0o700
    opened.close()
    assert not opened.path.exists()


def test_a_socket_that_a_killed_daemon_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    opened = open_socket(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    opened.close()


def test_what_somebody_listens_on_is_left_alone(tmp_path: Path) -> None:
    opened = open_socket(tmp_path / "a.sock")
    with pytest.raises(Conflict, match="listens on"):
        open_socket(tmp_path / "a.sock")
    assert opened.path.exists()
    opened.close()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    path.write_text("mine")
    with pytest.raises(Conflict, match="not a socket"):
        open_socket(path)
    assert path.read_text() == "mine"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.sock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Conflict):
        open_socket(tmp_path / "a.sock")


def test_a_folder_that_others_may_write_into_is_no_place(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(Invalid, match="no place for a socket"):
        open_socket(tmp_path / "a.sock")
    tmp_path.chmod(0o700)


def test_a_path_that_is_too_long_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="longer than"):
        open_socket(tmp_path / ("x" * 100) / "a.sock")


async def _is(value: int, wanted: int) -> bool:
    return value == wanted

"""What authors of agents import: it needs nothing but Python, and tells each way in which the daemon may fail it."""

import asyncio
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import borough.agent
from borough.agent import (
    Agent,
    AgentError,
    AsyncAgent,
    Denied,
    EnvMissing,
    InvalidTransition,
    NotFound,
    ProtocolError,
    SocketError,
    ToolFailed,
)
from borough.agent.environment import Identity, read_environment
from borough.agent.frames import encode

pytestmark = pytest.mark.anyio
ID = "550e8400-e29b-41d4-a716-446655440000"
Answerer = Callable[[Any], bytes | None]
"""From a message to the bytes that answer it; ``None`` closes the connection."""


def told(message: Any) -> bytes:
    body = json.dumps(message).encode()
    return struct.pack(">I", len(body)) + body


@asynccontextmanager
async def daemon(path: Path, answer: Answerer) -> AsyncIterator[list[Any]]:
    """A socket that answers as ``answer`` says; yields what it was asked."""
    heard: list[Any] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while header := await reader.read(4):
                heard.append(json.loads(await reader.readexactly(struct.unpack(">I", header)[0])))
                said = answer(heard[-1])
                if said is None:
                    break
                writer.write(said)
                await writer.drain()
        except ConnectionError as gone:
            heard.append(gone)
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    try:
        yield heard
    finally:
        server.close()


def identity(path: Path, nonce: str | None = None) -> Identity:
    return Identity(agent_id=ID, socket=str(path), nonce=nonce, task="do", model=None)


async def asked(path: Path, ask: Callable[[Agent], Any]) -> Any:
    """Ask with the client for ordinary programs, in a thread: the socket is served by this one."""

    def run() -> Any:
        with Agent(identity(path)) as agent:
            return ask(agent)

    return await asyncio.to_thread(run)


def test_it_needs_nothing_but_python(tmp_path: Path) -> None:
    shutil.copytree(Path(borough.agent.__file__).parent, tmp_path / "borough" / "agent")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import borough.agent; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in eval(done.stdout)}
    assert loaded - sys.stdlib_module_names - {"__main__", "borough"} == set()


def test_the_environment_says_who_an_agent_is(tmp_path: Path) -> None:
    nonce = tmp_path / "nonce"
    nonce.write_text("5b0c\n")
    found = read_environment(
        {"SCARAB_AGENT_ID": ID, "SCARAB_SOCKET": "/s", "SCARAB_NONCE_FILE": str(nonce),
         "SCARAB_TASK": "t", "SCARAB_MODEL": "m"}
    )  # fmt: skip
    assert found == Identity(agent_id=ID, socket="/s", nonce="5b0c", task="t", model="m")
    assert "5b0c" not in repr(found)
    assert read_environment({"SCARAB_AGENT_ID": ID}).socket == "/run/agentd/agentd.sock.agents"


@pytest.mark.parametrize(
    "environ", [{}, {"SCARAB_AGENT_ID": ""}, {"SCARAB_AGENT_ID": ID, "SCARAB_NONCE_FILE": "/no/such"}]
)
def test_a_program_that_no_daemon_started_is_told_so(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SCARAB_")]:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(EnvMissing, match="SCARAB_"):
        Agent.from_env()


async def test_nobody_at_the_socket(tmp_path: Path) -> None:
    with pytest.raises(SocketError, match="nobody answers"):
        Agent(identity(tmp_path / "s"))
    with pytest.raises(SocketError, match="nobody answers"):
        await AsyncAgent.connect(identity(tmp_path / "s"))


async def test_the_nonce_is_the_first_thing_said(tmp_path: Path) -> None:
    async with daemon(tmp_path / "s", lambda _: told("Ok")) as heard:
        await asyncio.to_thread(lambda: Agent(identity(tmp_path / "s", "5b0c")).close())
        await (await AsyncAgent.connect(identity(tmp_path / "s", "5b0c"))).close()
    assert heard == [{"Hello": {"nonce": "5b0c"}}] * 2


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "illegal_transition", "kind": "conflict"}, InvalidTransition),
        ({"code": "unknown_phase", "kind": "invalid"}, InvalidTransition),
        ({"code": "over_ceiling", "kind": "forbidden"}, Denied),
        ({"code": "agent_not_found", "kind": "not_found"}, NotFound),
        ({"code": "ledger_unavailable", "kind": "unavailable"}, AgentError),
        ({}, AgentError),
    ],
)
async def test_a_refusal_is_raised_as_what_it_is(tmp_path: Path, error: dict[str, str], kind: type[AgentError]) -> None:
    answer = told({"Error": {"message": "no", "reason": "because", **error}})
    async with daemon(tmp_path / "s", lambda _: answer):
        with pytest.raises(AgentError, match=r"^no: because$") as refused:
            await asked(tmp_path / "s", lambda agent: agent.transition("act"))
        assert type(refused.value) is kind
        assert refused.value.code == error.get("code", "")
        agent = await AsyncAgent.connect(identity(tmp_path / "s"))
        with pytest.raises(kind):
            await agent.transition("act")
        with pytest.raises(kind):
            await agent.transition("act")
        await agent.close()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            {"ToolResult": {"status": "denied", "output": {"error": "access denied: fs.read:/x"}, "code": "denied"}},
            "access",
        ),
        ({"ToolResult": {"status": "error", "output": "it broke", "code": "tool_error"}}, "it broke"),
        ({"ToolResult": {"status": "not_found"}}, "not_found"),
        ({"Error": {"message": "agent not found: x", "code": "agent_not_found"}}, "agent not found"),
    ],
)
async def test_a_call_that_did_not_work_is_one_exception(tmp_path: Path, answer: Any, text: str) -> None:
    async with daemon(tmp_path / "s", lambda _: told(answer)):
        with pytest.raises(ToolFailed, match=text) as failed:
            await asked(tmp_path / "s", lambda agent: agent.invoke_tool("fs.read", {"path": "/x"}))
    assert failed.value.code


@pytest.mark.parametrize(
    "answer",
    [struct.pack(">I", 2**31), struct.pack(">I", 3) + b"{]}", told([]), told({}), told({"A": 1, "B": 2}),
     told({"Value": {}}), told({"Value": 7}), told("Ok")],
)  # fmt: skip
async def test_what_is_no_answer_is_a_fault_of_the_protocol(tmp_path: Path, answer: bytes) -> None:
    async with daemon(tmp_path / "s", lambda _: answer):
        with pytest.raises(ProtocolError):
            await asked(tmp_path / "s", lambda agent: agent.memory_get("k"))


async def test_a_daemon_that_goes_away_is_told_apart(tmp_path: Path) -> None:
    async with daemon(tmp_path / "s", lambda _: None):
        with pytest.raises(SocketError):
            await asked(tmp_path / "s", lambda agent: agent.transition("act"))
        agent = await AsyncAgent.connect(identity(tmp_path / "s"))
        with pytest.raises(SocketError):
            await agent.transition("act")
        await agent.close()


async def test_questions_of_several_tasks_get_their_own_answers(tmp_path: Path) -> None:
    def echo(message: Any) -> bytes:
        return told({"ToolResult": {"status": "success", "output": message["ToolInvoke"]["input"]}})

    async with daemon(tmp_path / "s", echo), await AsyncAgent.connect(identity(tmp_path / "s")) as agent:
        answers = await asyncio.gather(*(agent.invoke_tool("echo", {"n": number}) for number in range(50)))
    assert answers == [{"n": number} for number in range(50)]


async def test_a_question_that_was_given_up_leaves_no_answer_to_the_next(tmp_path: Path) -> None:
    hold = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        hold.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(tmp_path / "s"))
    agent = await AsyncAgent.connect(identity(tmp_path / "s"))
    asking = asyncio.create_task(agent.invoke_tool("echo", {"n": 1}))
    await hold.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    with pytest.raises(SocketError):
        await agent.invoke_tool("echo", {"n": 2})
    server.close()


def test_a_message_that_is_too_long_is_not_sent() -> None:
    with pytest.raises(ProtocolError):
        encode({"ToolInvoke": {"input": "x" * (17 * 1024 * 1024)}})

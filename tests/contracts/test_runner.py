"""The port AgentRunner: agents start confined, are found again, and end with everything that descends from them."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from borough.adapters import procfs
from borough.adapters.engines.bubblewrap.engine import Bubblewrap, build
from borough.adapters.engines.bubblewrap.limits import BoxLimits
from borough.adapters.engines.bubblewrap.settings import BoxSettings
from borough.adapters.process import ProcessRef
from borough.core.errors import Conflict, NotFound, Unavailable
from borough.core.ids import AgentId, new_id
from borough.governance.hosts import NetworkPolicy
from borough.governance.manifests import Layer, Manifest, Network, Program, Resources, Runtime
from borough.governance.ports.confinement import AgentOrder
from borough.governance.trust import TrustLevel
from tests import boxes
from tests.conftest import eventually, need

pytestmark = pytest.mark.anyio
GRACE = timedelta(seconds=5)
NO_GRACE = timedelta(seconds=0.2)
FOREVER = ("/bin/sh", "-c", "echo up; while :; do sleep 1; done")


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Bubblewrap]:
    async with boxes.engine(tmp_path) as made:
        yield made


async def begun(made: Bubblewrap, of: Manifest, **more: str) -> tuple[AgentId, AgentOrder, ProcessRef]:
    agent_id = boxes.agent()
    await made.workspaces.create(agent_id, of)
    order = boxes.order(agent_id, of, **more)
    started = await made.runner.start(order)
    assert started is not None
    return agent_id, order, ProcessRef(started.pid, started.started_ticks)


async def printed(made: Bubblewrap, order: AgentOrder, wanted: str) -> str:
    async def there() -> bool:
        return wanted.encode() in await made.runner.logs(order.agent_id, order.run_id, offset=0, limit=100_000)

    await eventually(there)
    return (await made.runner.logs(order.agent_id, order.run_id, offset=0, limit=100_000)).decode()


async def test_an_agent_runs_in_its_box_and_says_how_it_ended(made: Bubblewrap) -> None:
    agent_id, order, program = await begun(
        made, boxes.manifest("/bin/sh", "-c", "echo hello; pwd; id -u; exit 7"), task="greet"
    )
    ended = await made.runner.exited(agent_id)
    assert (ended.code, ended.signal, ended.asked_for) == (7, None, False)
    assert await made.runner.logs(agent_id, order.run_id, offset=0, limit=100) == b"hello\n/workspace\n1000\n"
    assert await made.runner.logs(agent_id, order.run_id, offset=6, limit=3) == b"/wo"
    assert not procfs.is_alive(program)
    assert boxes.left_of(agent_id) == []


async def test_what_an_agent_is_told_is_in_its_environment_and_nothing_of_ours_is(
    made: Bubblewrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "the daemon's own")
    of = boxes.manifest("/usr/bin/env", program=Program(command="/usr/bin/env", env={"GREETING": "hi there"}))
    agent_id, order, _ = await begun(made, of, task="sum up")
    await made.runner.exited(agent_id)
    told = dict(
        line.split("=", 1)
        for line in (await made.runner.logs(agent_id, order.run_id, offset=0, limit=10_000)).decode().splitlines()
    )
    assert told["SCARAB_AGENT_ID"] == agent_id
    assert told["SCARAB_SOCKET"] == "/run/agentd/agentd.sock"
    assert told["SCARAB_TASK"] == "sum up"
    assert told["GREETING"] == "hi there"
    assert "SCARAB_MODEL" not in told
    assert "OPENROUTER_API_KEY" not in told
    assert boxes.NONCE not in told.values()


async def test_the_nonce_is_a_private_file_and_in_no_command_line(made: Bubblewrap) -> None:
    of = boxes.manifest(
        "/bin/sh", "-c", 'stat -c "%a %u" $SCARAB_NONCE_FILE; cat $SCARAB_NONCE_FILE; echo; while :; do sleep 1; done'
    )
    agent_id, order, program = await begun(made, of)
    assert (await printed(made, order, boxes.NONCE)).split() == ["400", "1000", boxes.NONCE]
    for ref in boxes.left_of(agent_id):
        shown = Path(f"/proc/{ref.pid}/cmdline").read_text() + Path(f"/proc/{ref.pid}/environ").read_text()
        assert boxes.NONCE not in shown
    assert program in boxes.left_of(agent_id)
    await made.runner.end(agent_id, grace=NO_GRACE)


async def test_an_agent_reaches_the_daemons_socket_and_is_known_by_its_pid(made: Bubblewrap) -> None:
    folder = boxes.short_folder()
    path = folder / "s.agents"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o666)
        listener.setblocking(False)
        code = (
            "import os,socket,time\ns=socket.socket(socket.AF_UNIX)\ns.connect(os.environ['SCARAB_SOCKET'])\n"
            "s.sendall(b'hi')\ntime.sleep(600)"
        )
        agent_id, _, program = await begun(made, boxes.manifest("/usr/bin/python3", "-c", code), socket=str(path))
        connection, _ = await asyncio.get_running_loop().sock_accept(listener)
        with connection:
            assert await asyncio.get_running_loop().sock_recv(connection, 2) == b"hi"
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            assert int.from_bytes(credentials[:4], sys.byteorder) == program.pid
        await made.runner.end(agent_id, grace=GRACE)
    path.unlink()
    folder.rmdir()


async def test_a_manifest_that_names_nothing_starts_nothing(made: Bubblewrap) -> None:
    agent_id, of = boxes.agent(), boxes.manifest()
    await made.workspaces.create(agent_id, of)
    assert await made.runner.start(boxes.order(agent_id, of)) is None
    with pytest.raises(NotFound):
        await made.runner.exited(agent_id)


async def test_scripts_run_by_their_runtime(made: Bubblewrap) -> None:
    of = boxes.manifest(program=Program(runtime=Runtime.PYTHON, entrypoint="main.py", args=("a b",)))
    agent_id = boxes.agent()
    await made.workspaces.create(agent_id, of)
    await made.files.write(agent_id, "/workspace/main.py", b"import sys; print(sys.argv[1:])", append=False)
    order = boxes.order(agent_id, of)
    await made.runner.start(order)
    assert (await made.runner.exited(agent_id)).well
    assert await made.runner.logs(agent_id, order.run_id, offset=0, limit=100) == b"['a b']\n"


async def test_a_program_elsewhere_on_the_host_is_shown_alone(made: Bubblewrap, tmp_path: Path) -> None:
    folder = tmp_path / "tool"
    folder.mkdir()
    (folder / "run").write_text("#!/bin/sh\nls -A $(dirname $0)\n")
    (folder / "run").chmod(0o755)
    (folder / "beside").write_text("")
    agent_id, order, _ = await begun(made, boxes.manifest(str(folder / "run")))
    assert (await made.runner.exited(agent_id)).well
    assert await made.runner.logs(agent_id, order.run_id, offset=0, limit=100) == b"run\n"


async def test_an_agent_is_told_to_end_and_may_do_so_well(made: Bubblewrap) -> None:
    of = boxes.manifest("/bin/sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done")
    agent_id, order, _ = await begun(made, of)
    await printed(made, order, "up")
    ended = await made.runner.end(agent_id, grace=GRACE)
    assert (ended.code, ended.asked_for) == (3, True)
    assert "bye" in await printed(made, order, "bye")
    assert await made.runner.end(agent_id, grace=GRACE) == ended


async def test_one_that_does_not_end_is_ended_with_its_daemons(made: Bubblewrap) -> None:
    code = (
        "import os,signal,time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if os.fork()==0:\n os.setsid()\n if os.fork(): os._exit(0)\n"
        " os.execve('/bin/sleep', ['sleep','600'], {})\nprint('off',flush=True)\ntime.sleep(600)"
    )
    agent_id, order, program = await begun(made, boxes.manifest("/usr/bin/python3", "-c", code))
    await printed(made, order, "off")
    inside = Path(f"/proc/{program.pid}/ns/pid").stat().st_ino
    assert len(in_namespace(inside)) >= 4  # the box's own two, the agent, and its daemon without our marker
    ended = await made.runner.end(agent_id, grace=NO_GRACE)
    assert (ended.code, ended.signal, ended.asked_for) == (None, 9, True)
    assert in_namespace(inside) == []
    assert boxes.left_of(agent_id) == []


def in_namespace(wanted: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):  # it is gone, or not ours
                if (folder / "ns/pid").stat().st_ino == wanted:
                    found.append(int(folder.name))
    return found


async def test_daemons_of_an_agent_end_with_it(made: Bubblewrap) -> None:
    agent_id, _, _ = await begun(made, boxes.manifest("/bin/sh", "-c", "(setsid sleep 600 &) ; exit 0"))
    assert (await made.runner.exited(agent_id)).well
    assert boxes.left_of(agent_id) == []


async def test_a_signal_is_told_apart_from_an_exit_status(made: Bubblewrap) -> None:
    first, _, _ = await begun(made, boxes.manifest("/bin/sh", "-c", "kill -SEGV $$"))
    second, _, _ = await begun(made, boxes.manifest("/bin/sh", "-c", "exit 139"))
    assert (await made.runner.exited(first)).signal == signal.SIGSEGV
    assert (await made.runner.exited(second)).code == 139


async def test_a_paused_agent_stands_still_and_goes_on(made: Bubblewrap) -> None:
    of = boxes.manifest(
        "/bin/sh", "-c", "(while :; do echo x >> /workspace/child; sleep 0.01; done) & "
        "while :; do echo x >> /workspace/own; sleep 0.01; done"
    )  # fmt: skip
    agent_id, _, _ = await begun(made, of)

    async def sizes() -> tuple[int, ...]:
        return tuple(entry.size for entry in await made.files.listing(agent_id, "/workspace", glob=None, limit=10))

    async def grown() -> bool:
        now = await sizes()
        return len(now) == 2 and all(new > old for new, old in zip(now, before or (0, 0), strict=True))

    before: tuple[int, ...] = ()
    await eventually(grown)
    await made.runner.pause(agent_id)
    before = await sizes()
    await asyncio.sleep(0.2)  # the only way to see that something does not happen
    assert await sizes() == before
    await made.runner.resume(agent_id)
    await eventually(grown)
    await made.runner.pause(agent_id)
    ended = await made.runner.end(agent_id, grace=GRACE)  # a paused one can be ended too
    assert ended.signal == signal.SIGTERM
    with pytest.raises(Conflict):
        await made.runner.pause(agent_id)


async def test_nobody_starts_twice(made: Bubblewrap) -> None:
    of = boxes.manifest(*FOREVER)
    agent_id, _, _ = await begun(made, of)
    with pytest.raises(Conflict) as refused:
        await made.runner.start(boxes.order(agent_id, of))
    assert refused.value.code == "agent_runs"
    await made.runner.end(agent_id, grace=NO_GRACE)
    assert await made.runner.start(boxes.order(agent_id, of)) is not None
    await made.runner.end(agent_id, grace=NO_GRACE)


async def test_what_does_not_hold_here_and_is_required_stops_the_start(made: Bubblewrap) -> None:
    of = boxes.manifest(*FOREVER, require=frozenset({Layer.EGRESS_PROXY, Layer.SECCOMP}))
    agent_id = boxes.agent()
    await made.workspaces.create(agent_id, of)
    with pytest.raises(Unavailable) as refused:
        await made.runner.start(boxes.order(agent_id, of))
    assert refused.value.code == "enforcement_missing"
    assert refused.value.details == {"missing": ["egress_proxy"]}
    assert boxes.left_of(agent_id) == []


async def test_what_is_not_there_cannot_be_started(made: Bubblewrap) -> None:
    for command in ("/usr/bin/no-such-program", "no-such-program", "./nothing"):
        of = boxes.manifest(command)
        agent_id = boxes.agent()
        await made.workspaces.create(agent_id, of)
        with pytest.raises(Unavailable) as failed:
            await made.runner.start(boxes.order(agent_id, of))
        assert failed.value.code == "start_failed"
        assert boxes.left_of(agent_id) == []
    assert await made.keeper.boxes() == set()


async def test_a_log_has_a_size_and_says_so(tmp_path: Path) -> None:
    async with boxes.engine(tmp_path, limits=BoxLimits(log_bytes=10_000)) as made:
        of = boxes.manifest("/bin/sh", "-c", "i=0; while [ $i -lt 5000 ]; do echo 0123456789; i=$((i+1)); done; exit 4")
        agent_id, order, _ = await begun(made, of)
        assert (await made.runner.exited(agent_id)).code == 4  # it is never held up by a full log
        log = await made.runner.logs(agent_id, order.run_id, offset=0, limit=1_000_000)
        assert log[:10_000] == b"0123456789\n" * 909 + b"0"
        assert log[10_000:] == b"\n[the log is full at 10000 bytes; the rest is dropped]\n"
        with pytest.raises(NotFound) as missing:
            await made.runner.logs(agent_id, new_id(), offset=0, limit=1)
        assert missing.value.code == "log_not_found"


# -- restarts ----------------------------------------------------------------------------------------------------------


async def test_a_daemon_that_starts_again_finds_its_agents(tmp_path: Path) -> None:
    first = build(BoxSettings(state=tmp_path / "state"))
    agent_id, order, program = await begun(first, boxes.manifest(*FOREVER))
    quick, quick_order, _ = await begun(first, boxes.manifest("/bin/sh", "-c", "sleep 0.1; exit 5"))
    await first.close()
    async with boxes.engine(tmp_path) as second:
        found = await second.runner.adopt(agent_id, order.run_id)
        assert found is not None
        assert ProcessRef(found.pid, found.started_ticks) == program
        assert found.enforcement.layers[Layer.SECCOMP]

        async def over() -> bool:
            return boxes.left_of(quick) == []

        await eventually(over)
        assert await second.runner.adopt(quick, quick_order.run_id) is None
        assert (await second.runner.exited(quick)).code == 5
        await second.runner.pause(agent_id)
        await second.runner.resume(agent_id)
        ended = await second.runner.end(agent_id, grace=GRACE)
        assert (ended.signal, ended.asked_for) == (signal.SIGTERM, True)
        assert boxes.left_of(agent_id) == []
        assert await second.runner.adopt(agent_id, new_id()) is None


KILLED = """
import asyncio, json, os, sys
from pathlib import Path
from tests import boxes
async def main():
    made = boxes.build(boxes.BoxSettings(state=Path(sys.argv[1])))
    of = boxes.manifest("/bin/sh", "-c", "while :; do sleep 1; done")
    agent_id = boxes.agent()
    await made.workspaces.create(agent_id, of)
    order = boxes.order(agent_id, of)
    started = await made.runner.start(order)
    code = boxes.execution(agent_id, of, "echo > /workspace/up; sleep 600")
    running = asyncio.create_task(made.sandbox.execute(code))
    while "up" not in [e.name for e in await made.files.listing(agent_id, "/workspace", glob=None, limit=9)]:
        await asyncio.sleep(0.01)
    print(json.dumps([agent_id, order.run_id, started.pid, started.started_ticks]), flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


OF_ONE_BOX = 2
"""Bubblewraps: the one that waits outside, and the first process inside."""


async def test_a_daemon_killed_outright_leaves_agents_to_be_found_and_code_surely_ended(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "state")], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as daemon:
        assert daemon.stdout is not None
        agent_id, run_id, pid, ticks = json.loads(await asyncio.to_thread(daemon.stdout.readline))
        assert {len(boxes.cmdline(ref.pid)) > 0 for ref in boxes.left_of(agent_id)} == {True}
        daemon.kill()
    async with boxes.engine(tmp_path) as made:

        async def code_ended() -> bool:
            left = [boxes.cmdline(ref.pid).split(b"\0") for ref in boxes.left_of(agent_id)]
            of_code = [words for words in left if b"/run/borough/code" in words or b"600" in words]
            return not of_code and sum(words[0] == b"bwrap" for words in left) == OF_ONE_BOX

        await eventually(code_ended)
        found = await made.runner.adopt(agent_id, run_id)
        assert found is not None
        assert (found.pid, found.started_ticks) == (pid, ticks)
        await made.runner.end(agent_id, grace=NO_GRACE)
        assert boxes.left_of(agent_id) == []


async def test_when_the_keeper_is_killed_all_boxes_end_and_the_next_start_makes_another(made: Bubblewrap) -> None:
    of = boxes.manifest(*FOREVER)
    agent_id, _, program = await begun(made, of)
    keeper = (await made.keeper.hello()).pid
    os.kill(keeper, signal.SIGKILL)
    ended = await made.runner.exited(agent_id)
    assert ended.signal == signal.SIGKILL
    assert not procfs.is_alive(program)
    assert boxes.left_of(agent_id) == []
    assert await made.runner.start(boxes.order(agent_id, of)) is not None
    assert (await made.keeper.hello()).pid != keeper
    await made.runner.end(agent_id, grace=NO_GRACE)


# -- network -----------------------------------------------------------------------------------------------------------


class Doors:
    """Notes what is opened and closed, and looks into the box at that moment."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.seen: list[bytes] = []
        self.fails = False

    async def open(self, agent_id: AgentId, run_id: str, network: Network, box_pid: int) -> None:
        assert network.policy is NetworkPolicy.ALLOWLIST
        self.calls.append(("open", run_id))
        self.seen = [boxes.cmdline(ref.pid) for ref in boxes.left_of(agent_id)]
        assert Path(f"/proc/{box_pid}/ns/net").stat().st_ino != Path("/proc/self/ns/net").stat().st_ino
        if self.fails:
            raise Unavailable("no proxy", code="egress_unavailable", resolution="none")

    async def close(self, agent_id: AgentId, run_id: str) -> None:
        assert boxes.left_of(agent_id) == []
        self.calls.append(("close", run_id))


async def test_the_way_out_is_open_before_anything_runs_and_closed_after_the_end(tmp_path: Path) -> None:
    doors = Doors()
    async with boxes.engine(tmp_path, network=doors) as made:
        of = boxes.manifest(
            "/usr/bin/printenv",
            "HTTPS_PROXY",
            network=Network(policy=NetworkPolicy.ALLOWLIST),
            trust=TrustLevel.TRUSTED,
        )
        agent_id, order, _ = await begun(made, of)
        assert not any(b"printenv" in line for line in doors.seen)
        assert (await made.runner.exited(agent_id)).well
        assert doors.calls == [("open", order.run_id), ("close", order.run_id)]
        assert await made.runner.logs(agent_id, order.run_id, offset=0, limit=99) == b"http://127.0.0.1:3128\n"
        doors.fails = True
        with pytest.raises(Unavailable) as failed:
            await made.runner.start(boxes.order(agent_id, of))
        assert failed.value.code == "egress_unavailable"
        assert boxes.left_of(agent_id) == []


async def test_without_a_proxy_an_agent_with_a_way_out_does_not_start(made: Bubblewrap) -> None:
    of = boxes.manifest(*FOREVER, network=Network(policy=NetworkPolicy.FULL), trust=TrustLevel.TRUSTED)
    agent_id = boxes.agent()
    await made.workspaces.create(agent_id, of)
    with pytest.raises(Unavailable) as failed:
        await made.runner.start(boxes.order(agent_id, of))
    assert failed.value.code == "start_failed"


async def test_limits_hold_for_all_processes_together(made: Bubblewrap) -> None:
    code = (
        "import os,time\nn=0\ntry:\n while n<200:\n  if os.fork()==0: time.sleep(600)\n  n+=1\n"
        "except OSError as e: print('stopped at',n,flush=True)\nelse: print('all',flush=True)"
    )
    of = boxes.manifest("/usr/bin/python3", "-c", code, resources=Resources(max_processes=20))
    agent_id, order, _ = await begun(made, of)
    said = await printed(made, order, "\n")
    assert said.startswith("stopped at")
    assert 10 <= int(said.split()[-1]) <= 22
    await made.runner.end(agent_id, grace=NO_GRACE)
    assert boxes.left_of(agent_id) == []


async def test_an_adopted_agent_reaches_the_new_daemon_by_the_same_path(tmp_path: Path) -> None:
    folder = boxes.short_folder()
    path = folder / "s.agents"
    code = (
        "import os,socket,time\nsaid=b'first'\nwhile True:\n s=socket.socket(socket.AF_UNIX)\n"
        " try: s.connect(os.environ['SCARAB_SOCKET']); s.sendall(said); s.recv(1); said=b'again'\n"
        " except OSError: pass\n s.close(); time.sleep(0.05)"
    )

    async def hears(listener: socket.socket, wanted: bytes) -> None:
        while True:
            connection, _ = await asyncio.get_running_loop().sock_accept(listener)
            with connection:
                if await asyncio.get_running_loop().sock_recv(connection, 9) == wanted:
                    return

    def listening() -> socket.socket:
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen()
        listener.setblocking(False)
        return listener

    async with asyncio.timeout(60):
        first = build(BoxSettings(state=tmp_path / "state"))
        need(folder.stat().st_dev == tmp_path.stat().st_dev, "one file system for both", "running in /tmp")
        with listening() as listener:
            agent_id, order, _ = await begun(first, boxes.manifest("/usr/bin/python3", "-c", code), socket=str(path))
            await hears(listener, b"first")
        await first.close()
        async with boxes.engine(tmp_path) as second:
            with listening() as listener:
                assert await second.runner.adopt(agent_id, order.run_id) is not None
                await hears(listener, b"again")
            await second.runner.end(agent_id, grace=NO_GRACE)
    path.unlink()
    folder.rmdir()


async def test_what_a_keeper_left_half_made_is_ended_by_the_next_one(made: Bubblewrap) -> None:
    of = boxes.manifest(*FOREVER)
    agent_id = boxes.agent()
    await made.workspaces.create(agent_id, of)
    for _ in range(8):
        starting = asyncio.create_task(made.runner.start(boxes.order(agent_id, of)))
        keeper = (await made.keeper.hello()).pid

        async def setting_up(starting: asyncio.Task[object] = starting) -> bool:
            return starting.done() or any(b"bwrap" in boxes.cmdline(ref.pid) for ref in boxes.left_of(agent_id))

        await eventually(setting_up)
        os.kill(keeper, signal.SIGKILL)
        await asyncio.gather(starting, return_exceptions=True)

        async def served_by_the_next_one(killed: int = keeper) -> bool:
            return (await made.keeper.hello()).pid != killed  # the old one's greeting holds until its end is seen

        await eventually(served_by_the_next_one)
        assert boxes.left_of(agent_id) == []


async def test_nothing_is_left_of_a_start_that_is_given_up_half_way(made: Bubblewrap) -> None:
    of = boxes.manifest(*FOREVER)
    agent_id = boxes.agent()
    await made.workspaces.create(agent_id, of)
    for _ in range(24):
        starting = asyncio.create_task(made.runner.start(boxes.order(agent_id, of)))

        async def setting_up(starting: asyncio.Task[object] = starting) -> bool:
            return starting.done() or any(b"bwrap" in boxes.cmdline(ref.pid) for ref in boxes.left_of(agent_id))

        await eventually(setting_up)
        if not starting.cancel():
            await made.runner.end(agent_id, grace=NO_GRACE)
        await asyncio.gather(starting, return_exceptions=True)
        assert boxes.left_of(agent_id) == []


async def test_boxes_that_cannot_be_set_up_hold_up_nobody_else(made: Bubblewrap) -> None:
    of = boxes.manifest("/bin/sh", "-c", "exit 3")
    bad = boxes.manifest("/usr/bin/no-such-program")

    async def one(which: Manifest) -> int | None:
        agent_id = boxes.agent()
        await made.workspaces.create(agent_id, which)
        try:
            await made.runner.start(boxes.order(agent_id, which))
        except Unavailable:
            return None
        return (await made.runner.exited(agent_id)).code

    async with asyncio.timeout(60):
        ended = await asyncio.gather(*(one(bad if number % 2 else of) for number in range(16)))
    assert ended == [3, None] * 8
    assert await made.keeper.boxes() == set()

"""The port Sandbox: code runs once, sees the agent's workspace, and nothing of it is left."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from borough.adapters.engines.bubblewrap.engine import Bubblewrap
from borough.adapters.engines.bubblewrap.limits import BoxLimits
from borough.core.errors import NotFound, Unavailable
from borough.core.ids import AgentId
from borough.governance.hosts import NetworkPolicy
from borough.governance.manifests import Layer, Network, Resources, Workspace
from borough.governance.ports.outside import ExecutionResult
from borough.governance.trust import TrustLevel
from tests import boxes
from tests.conftest import eventually, need
from tests.contracts.tools_kit import PLACES, Tools

pytestmark = pytest.mark.anyio


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Bubblewrap]:
    async with boxes.engine(tmp_path) as made:
        yield made


@pytest.fixture
async def bob(here: Bubblewrap) -> AgentId:
    """On this host."""
    agent_id = boxes.agent()
    await here.workspaces.create(agent_id, boxes.manifest())
    return agent_id


@pytest.fixture(params=PLACES)
async def made(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Tools]:
    async with PLACES[request.param](tmp_path) as made:
        yield made


@pytest.fixture
async def ada(made: Tools) -> AgentId:
    agent_id = boxes.agent()
    await made.create(agent_id, boxes.manifest())
    return agent_id


async def test_code_runs_with_input_output_and_status(made: Tools, ada: AgentId) -> None:
    code = "cat; echo out; echo err >&2; exit 3"
    result = await made.sandbox.execute(boxes.execution(ada, boxes.manifest(), code, stdin="in\n"))
    assert result == ExecutionResult(stdout="in\nout\n", stderr="err\n", exit_code=3)
    assert await made.left_of(ada) == 0


@pytest.mark.parametrize(
    ("runtime", "code"),
    [
        ("python3", "import sys,os; print(6*7, sys.stdin.read(), os.getcwd())"),
        ("node", "console.log(6*7, require('fs').readFileSync(0,'utf8'), process.cwd())"),
        ("sh", "echo $((6*7)) $(cat) $(pwd)"),
    ],
)
async def test_each_runtime_runs(made: Tools, ada: AgentId, runtime: str, code: str) -> None:
    need(runtime != "node" or Path("/usr/bin/node").exists(), "node", "apt-get install nodejs")
    result = await made.sandbox.execute(boxes.execution(ada, boxes.manifest(), code, runtime=runtime, stdin="x"))
    assert (result.stdout, result.exit_code) == ("42 x /workspace\n", 0), result.stderr


async def test_it_sees_and_changes_the_agents_workspace(made: Tools, ada: AgentId) -> None:
    await made.files.write(ada, "/workspace/in.txt", b"seen", append=False)
    result = await made.sandbox.execute(
        boxes.execution(ada, boxes.manifest(), "cat in.txt; mkdir d; echo made > d/out.txt; echo more >> in.txt")
    )
    assert result.stdout == "seen"
    assert (await made.files.read(ada, "/workspace/d/out.txt", limit=99)).content == b"made\n"
    assert (await made.files.read(ada, "/workspace/in.txt", limit=99)).content == b"seenmore\n"


async def test_it_shares_the_workspace_with_the_running_agent_at_once(here: Bubblewrap, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "shared").write_text("base")
    of = boxes.manifest(
        "/bin/sh", "-c", "while ! [ -e ping ]; do sleep 0.01; done; cat ping > pong; cat",
        workspace=boxes_workspace(base),
    )  # fmt: skip
    agent_id = boxes.agent()
    await here.workspaces.create(agent_id, of)
    await here.runner.start(boxes.order(agent_id, of))
    result = await here.sandbox.execute(
        boxes.execution(agent_id, of, "ls /workspace/ping 2>/dev/null; echo hi > /workspace/ping; "
                        "while ! [ -s /workspace/pong ]; do sleep 0.01; done; cat /workspace/pong shared")
    )  # fmt: skip
    assert result.stdout == "hi\nbase"
    await here.runner.exited(agent_id)


def boxes_workspace(base: Path) -> Workspace:
    return Workspace(base=str(base))


async def test_time_over_ends_everything(made: Tools, ada: AgentId) -> None:
    code = "echo begun; (setsid sleep 600 &); trap '' TERM; sleep 600"
    result = await made.sandbox.execute(boxes.execution(ada, boxes.manifest(), code, timeout_s=0.5))
    assert result == ExecutionResult(stdout="begun\n", stderr="", exit_code=137, timed_out=True)
    assert await made.left_of(ada) == 0


async def test_daemons_end_with_the_code(made: Tools, ada: AgentId) -> None:
    code = "(setsid sleep 600 > /dev/null 2>&1 &); (setsid sleep 600 &); echo done"
    async with asyncio.timeout(60):
        result = await made.sandbox.execute(boxes.execution(ada, boxes.manifest(), code))
    assert (result.stdout, result.timed_out) == ("done\n", False)
    assert await made.left_of(ada) == 0


async def test_output_has_a_limit_and_the_writer_is_not_held_up(made: Tools, ada: AgentId) -> None:
    code = "print('x' * 3_000_000); import sys; print('end', file=sys.stderr)"
    result = await made.sandbox.execute(
        boxes.execution(ada, boxes.manifest(), code, runtime="python3", output_limit_bytes=1000)
    )
    assert (result.stdout, result.stderr, result.exit_code, result.truncated) == ("x" * 1000, "end\n", 0, True)


async def test_a_signal_is_told_as_shells_do(made: Tools, ada: AgentId) -> None:
    result = await made.sandbox.execute(boxes.execution(ada, boxes.manifest(), "kill -TERM $$"))
    assert result.exit_code == 128 + 15


async def test_secrets_are_in_the_environment_and_in_no_command_line(here: Bubblewrap, bob: AgentId) -> None:
    code = "echo $TOKEN > /workspace/up; while [ -e /workspace/up ]; do sleep 0.01; done"
    running = asyncio.create_task(
        here.sandbox.execute(boxes.execution(bob, boxes.manifest(), code, env={"TOKEN": "hunter2"}))
    )

    async def up() -> bool:
        entries = await here.files.listing(bob, "/workspace", glob="up", limit=1)
        return bool(entries) and entries[0].size > 0

    await eventually(up)
    refs = boxes.left_of(bob)
    assert len(refs) >= 3
    running_pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    assert not any(b"hunter2" in boxes.cmdline(pid) for pid in running_pids)
    assert (await here.files.read(bob, "/workspace/up", limit=99)).content == b"hunter2\n"
    await here.files.delete(bob, "/workspace/up")
    assert (await running).exit_code == 0


async def test_an_unknown_runtime_and_an_agent_without_workspace_are_refused(made: Tools, ada: AgentId) -> None:
    with pytest.raises(Unavailable) as missing:
        await made.sandbox.execute(boxes.execution(ada, boxes.manifest(), "x", runtime="cobol"))
    assert missing.value.code == "runtime_missing"
    with pytest.raises(NotFound) as nobody:
        await made.sandbox.execute(boxes.execution(boxes.agent(), boxes.manifest(), "true"))
    assert nobody.value.code == "agent_not_found"


async def test_required_layers_and_a_missing_proxy_fail_closed(here: Bubblewrap, bob: AgentId) -> None:
    with pytest.raises(Unavailable) as missing:
        await here.sandbox.execute(
            boxes.execution(bob, boxes.manifest(require=frozenset({Layer.EGRESS_PROXY})), "echo ran > /workspace/ran")
        )
    assert missing.value.code == "enforcement_missing"
    open_one = boxes.manifest(network=Network(policy=NetworkPolicy.FULL), trust=TrustLevel.TRUSTED)
    with pytest.raises(Unavailable) as without:
        await here.sandbox.execute(boxes.execution(bob, open_one, "echo ran > /workspace/ran"))
    assert without.value.code == "start_failed"
    assert await here.files.listing(bob, "/workspace", glob=None, limit=9) == ()


async def test_many_run_at_once(made: Tools, ada: AgentId) -> None:
    results = await asyncio.gather(
        *(made.sandbox.execute(boxes.execution(ada, boxes.manifest(), f"echo {n}")) for n in range(12))
    )
    assert [result.stdout for result in results] == [f"{n}\n" for n in range(12)]


async def test_a_full_workspace_ends_the_code(tmp_path: Path) -> None:
    limits = BoxLimits(workspace_bytes=8 * boxes.MIB, file_bytes=4 * boxes.MIB)
    async with boxes.engine(tmp_path, limits=limits) as made:
        agent_id = boxes.agent()
        await made.workspaces.create(agent_id, boxes.manifest())
        one = "head -c 6000000 /dev/zero > one; wc -c < one"
        result = await made.sandbox.execute(boxes.execution(agent_id, boxes.manifest(), one))
        assert result.stdout == f"{4 * boxes.MIB}\n"
        many = "for i in 1 2 3 4 5; do head -c 3000000 /dev/zero > f$i; done; sleep 600"
        result = await made.sandbox.execute(boxes.execution(agent_id, boxes.manifest(), many))
        assert (result.exit_code, result.timed_out) == (137, False)


async def test_memory_is_limited(here: Bubblewrap, bob: AgentId) -> None:
    of = boxes.manifest(resources=Resources(memory_limit_bytes=64 * boxes.MIB))
    code = "x = bytearray(200_000_000); print('had it')"
    result = await here.sandbox.execute(boxes.execution(bob, of, code, runtime="python3"))
    assert result.exit_code != 0
    assert "had it" not in result.stdout


async def test_a_cancelled_execution_leaves_nothing(here: Bubblewrap, bob: AgentId) -> None:
    running = asyncio.create_task(here.sandbox.execute(boxes.execution(bob, boxes.manifest(), "sleep 600")))

    async def begun() -> bool:
        return any(b"/run/borough/code" in boxes.cmdline(ref.pid) for ref in boxes.left_of(bob))

    await eventually(begun)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert boxes.left_of(bob) == []
    assert await here.keeper.boxes() == set()


async def test_cancelling_at_any_moment_leaves_nothing(made: Tools, ada: AgentId) -> None:
    seen = set()
    for moment in range(0, 40, 3):
        running = asyncio.create_task(made.sandbox.execute(boxes.execution(ada, boxes.manifest(), "sleep 600")))
        for _ in range(moment):
            await asyncio.sleep(0.002)  # not to wait for something, but to come at another moment each time
        seen.add(await made.left_of(ada) > 0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await made.left_of(ada) == 0
    assert True in seen, "some were cancelled while they ran"

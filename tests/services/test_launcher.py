"""The local launcher with real workers on a real HTTP server."""

import os
import signal
import stat
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from borough.adapters import process
from borough.adapters.launcher import LocalLauncher
from borough.adapters.process import ProcessRef
from borough.core.errors import Unavailable
from borough.core.ids import AgentId
from borough.town.agents import WorkerProcess
from tests.conftest import eventually
from tests.services.townhall_double import State, Townhall, everyone, order

pytestmark = pytest.mark.anyio
GRACE = timedelta(seconds=5)
DAEMON = (
    "import os,time\nif os.fork()==0:\n os.setsid()\n if os.fork(): os._exit(0)\n print('off', flush=True)\n"
    "time.sleep(600)"
)


@pytest.fixture
def town() -> Iterator[Townhall]:
    with Townhall(State(argv=[sys.executable, "-c", DAEMON])) as town:
        yield town
        process.reap(everyone(town), grace_s=0)


async def test_a_worker_starts_works_and_is_ended_whole(town: Townhall, tmp_path: Path) -> None:
    ended: list[tuple[AgentId, WorkerProcess, int]] = []
    launcher = LocalLauncher(town_root=tmp_path, on_end=lambda *what: ended.append(what))
    worker = await launcher.launch(order(town))
    given = town.give("run away")
    await eventually(lambda: seen(town, given["task_id"]))
    (started,) = town.state.starts
    assert (started["pid"], started["started_ticks"]) == (worker.pid, worker.started_ticks)
    assert len(process.owned(everyone(town))) >= 3
    await launcher.end(AgentId(town.state.agent_id), worker, grace=GRACE)
    assert process.owned(everyone(town)) == []
    assert ended == [(AgentId(town.state.agent_id), worker, 0)]
    assert [how for _, how, _ in town.state.reports] == ["release"]
    assert not (tmp_path / ".tt/agents" / town.state.agent_id).exists()
    assert "serving agent alder" in (tmp_path / ".tt/logs/alder.log").read_text()
    launcher.close()


async def seen(town: Townhall, task_id: str) -> bool:
    return b"off" in town.state.logs.get((task_id, 1), b"")


async def test_the_token_is_a_private_file_and_nowhere_else(town: Townhall, tmp_path: Path) -> None:
    launcher = LocalLauncher(town_root=tmp_path)
    worker = await launcher.launch(order(town))
    token = tmp_path / ".tt/agents" / town.state.agent_id / "1/token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert town.state.token not in Path(f"/proc/{worker.pid}/cmdline").read_text()
    assert town.state.token not in Path(f"/proc/{worker.pid}/environ").read_text()
    await launcher.end(AgentId(town.state.agent_id), worker, grace=GRACE)
    launcher.close()


async def test_nothing_is_left_of_a_worker_that_was_killed_with_its_guard(town: Townhall, tmp_path: Path) -> None:
    ended: list[int] = []
    launcher = LocalLauncher(town_root=tmp_path, on_end=lambda _agent, _worker, status: ended.append(status))
    worker = await launcher.launch(order(town))
    given = town.give("run away")
    await eventually(lambda: seen(town, given["task_id"]))
    guards = [ref for ref in process.descendants(worker.pid) if b"procfs.py" in cmdline(ref)]
    for pid in [*(guard.pid for guard in guards), worker.pid]:
        os.kill(pid, signal.SIGKILL)
    await eventually(lambda: told(ended))
    assert len(guards) == 1
    assert len(process.owned(everyone(town))) >= 2
    await launcher.end(AgentId(town.state.agent_id), worker, grace=GRACE)
    assert process.owned(everyone(town)) == []
    assert ended == [-9]
    launcher.close()


def cmdline(ref: ProcessRef) -> bytes:
    return Path(f"/proc/{ref.pid}/cmdline").read_bytes()


async def told(ended: list[int]) -> bool:
    return bool(ended)


async def test_ending_an_earlier_incarnation_spares_the_later(town: Townhall, tmp_path: Path) -> None:
    launcher = LocalLauncher(town_root=tmp_path)
    idle = LocalLauncher(town_root=tmp_path, worker_argv=(sys.executable, "-c", "import time; time.sleep(600)"))
    first, second = await idle.launch(order(town, 1)), await idle.launch(order(town, 2))
    fresh = LocalLauncher(town_root=tmp_path)  # as after a restart of the server
    await fresh.end(AgentId(town.state.agent_id), first, grace=GRACE)
    assert process.owned(everyone(town)) == [ProcessRef(second.pid, second.started_ticks)]
    await fresh.end(AgentId(town.state.agent_id), None, grace=GRACE)
    assert process.owned(everyone(town)) == []
    for one in (launcher, idle, fresh):
        one.close()


async def test_a_worker_is_frozen_whole_and_ended_although_it_is(town: Townhall, tmp_path: Path) -> None:
    launcher = LocalLauncher(town_root=tmp_path)
    worker = await launcher.launch(order(town))
    given = town.give("run away")
    await eventually(lambda: seen(town, given["task_id"]))
    agent = AgentId(town.state.agent_id)
    assert not await launcher.freeze(agent, WorkerProcess(host="elsewhere", pid=1, started_ticks=1))
    assert await launcher.freeze(agent, worker)
    found = process.owned(everyone(town))
    assert len(found) >= 3
    assert {Path(f"/proc/{ref.pid}/stat").read_text().rpartition(")")[2].split()[0] for ref in found} == {"T"}
    await launcher.end(agent, worker, grace=timedelta(0))
    assert process.owned(everyone(town)) == []
    assert not await launcher.freeze(agent, None), "nothing is left to be frozen"
    launcher.close()


async def test_what_is_not_ours_is_not_touched(town: Townhall, tmp_path: Path) -> None:
    launcher = LocalLauncher(town_root=tmp_path)
    stranger = process.start(["sleep", "600"], env=dict(os.environ))
    ref = WorkerProcess(host=os.uname().nodename, pid=stranger.pid, started_ticks=stranger.ref.started_ticks)
    await launcher.end(AgentId(town.state.agent_id), ref, grace=GRACE)
    await launcher.end(AgentId(town.state.agent_id), None, grace=GRACE)
    assert process.is_alive(stranger.ref)
    process.end(stranger.ref, grace_s=1)
    stranger.wait()
    launcher.close()


async def test_a_launch_that_fails_says_so(town: Townhall, tmp_path: Path) -> None:
    launcher = LocalLauncher(town_root=tmp_path, worker_argv=("no-such-python",))
    with pytest.raises(Unavailable) as failed:
        await launcher.launch(order(town))
    assert failed.value.code == "launch_failed"
    assert not (tmp_path / ".tt/agents" / town.state.agent_id).exists()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".tt/logs/alder.log").unlink()
    (tmp_path / ".tt/logs/alder.log").symlink_to(tmp_path / "elsewhere/log")
    with pytest.raises(Unavailable):
        await LocalLauncher(town_root=tmp_path).launch(order(town))
    assert not (tmp_path / "elsewhere/log").exists()
    launcher.close()

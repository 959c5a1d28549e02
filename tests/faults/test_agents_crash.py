"""The daemon is killed in the middle of a step: whatever was begun is taken up, concluded or undone by the next one."""

import asyncio
import sys
from pathlib import Path

import pytest

from borough.core.errors import NotFound
from borough.core.ids import AgentId
from borough.governance.agents import GovernedAgent
from borough.governance.lifecycle import Phase, Status
from tests.conftest import eventually
from tests.services.agents_kit import Daemon, operator

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]


async def killed(folder: Path, scenario: str) -> list[str]:
    """Run a daemon of its own until it is where ``scenario`` wants it, end it with SIGKILL; return what it said."""
    daemon = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.agents_daemon", str(folder), scenario,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert daemon.stdout is not None
    try:
        said = await asyncio.wait_for(daemon.stdout.readline(), 60)
    finally:
        daemon.kill()
        await daemon.wait()
    assert said, "it ended by itself"
    return said.decode().split()


async def reopened(folder: Path) -> tuple[Daemon, GovernedAgent]:
    daemon = Daemon(folder)
    await daemon.open()
    (one,) = await daemon.stores.agents.all(ended=True)
    return daemon, one


async def no_boxes(daemon: Daemon) -> None:
    async def none() -> bool:
        return await daemon.engine.keeper.boxes() == set()

    await eventually(none)


@pytest.mark.parametrize("scenario", ["before-the-process", "before-plan"])
async def test_a_start_that_was_cut_off_is_concluded_and_nothing_of_it_is_left(tmp_path: Path, scenario: str) -> None:
    await killed(tmp_path, scenario)
    daemon, one = await reopened(tmp_path)
    try:
        assert (one.phase, one.status) == (Phase.TERMINATE, Status.FAILED)
        assert one.last_error == "the daemon ended while it was being started"
        assert (await daemon.stores.courses.get(one.id)).restart_at is None
        assert [entry["outcome"] for entry in await daemon.told(one.id, "AgentSpawn")] == ["pending", "unknown"]
        with pytest.raises(NotFound):
            await daemon.engine.workspaces.history(one.id)
        await no_boxes(daemon)
    finally:
        await daemon.close()


async def test_an_ending_that_was_cut_off_is_finished(tmp_path: Path) -> None:
    await killed(tmp_path, "while-ending")
    daemon, one = await reopened(tmp_path)
    try:
        assert (one.phase, one.status) == (Phase.TERMINATE, Status.KILLED)
        outcomes = [entry["outcome"] for entry in await daemon.told(one.id, "AgentTerminate")]
        assert outcomes == ["pending", "unknown", "pending", "success"]
        await no_boxes(daemon)
    finally:
        await daemon.close()


async def test_agents_outlive_the_daemon_and_are_found_again(tmp_path: Path) -> None:
    working, virtual = await killed(tmp_path, "while-running")
    daemon = Daemon(tmp_path)
    await daemon.open()
    try:
        listed = {one.id: (one.phase, one.status) for one in await daemon.service.listing(operator())}
        assert listed == {working: (Phase.PLAN, Status.RUNNING), virtual: (Phase.PLAN, Status.RUNNING)}
        assert (await daemon.service.details(operator(), AgentId(working))).has_process
        await daemon.engine.files.write(AgentId(working), "/workspace/go", b"", append=False)

        async def has_ended() -> bool:
            return (await daemon.stores.agents.get(AgentId(working))).status is Status.FAILED

        await eventually(has_ended)
        assert (await daemon.stores.agents.get(AgentId(working))).exit_code == 3
        await no_boxes(daemon)
    finally:
        await daemon.close()

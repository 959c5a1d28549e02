"""What becomes of runs by themselves: exits, restarts, timeouts, budgets, the daemon's own restart. Real processes."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from borough.controllers.governance import controllers
from borough.controllers.loops import run
from borough.core.clock import utc_now
from borough.core.errors import Conflict, Forbidden, NotFound
from borough.core.ids import AgentId
from borough.governance.agents import GovernedAgent
from borough.governance.lifecycle import Phase, Status
from borough.governance.ports.confinement import AgentOrder
from tests.conftest import eventually
from tests.services.agents_kit import Daemon, agent, manifest, operator, shell

pytestmark = pytest.mark.anyio


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    opened = Daemon(tmp_path)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def loops(daemon: Daemon) -> AsyncIterator[None]:
    """Governance's loops, as a daemon runs them."""
    tasks = [asyncio.create_task(run(controller)) for controller in controllers(daemon.supervision, daemon.workspaces)]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def get(daemon: Daemon, agent_id: str) -> GovernedAgent:
    return await daemon.stores.agents.get(AgentId(agent_id))


async def until(daemon: Daemon, agent_id: str, *, status: Status, restarts: int = 0) -> GovernedAgent:
    async def stands_so() -> bool:
        one = await get(daemon, agent_id)
        return (one.status, one.restarts) == (status, restarts)

    await eventually(stands_so)
    return await get(daemon, agent_id)


async def nothing_is_left(daemon: Daemon) -> None:
    assert await daemon.engine.keeper.boxes() == set()


# -- exits -------------------------------------------------------------------------------------------------------------


async def test_an_agent_whose_process_never_spoke_lives_on_without_it(daemon: Daemon) -> None:
    agent_id = await daemon.spawn(shell("echo said; exit 3"))

    async def is_noted() -> bool:
        return (await get(daemon, agent_id)).exit_code == 3

    await eventually(is_noted)
    one = await get(daemon, agent_id)
    assert (one.phase, one.status, one.last_error, one.ended_at) == (Phase.PLAN, Status.RUNNING, "exit code 3", None)
    assert [entry["data"] for entry in await daemon.told(agent_id, "ProcessExit")] == [{"exit_code": 3, "signal": None}]
    assert not (await daemon.service.details(operator(), agent_id)).has_process
    await daemon.service.kill(operator(), agent_id)
    await daemon.service.settled()
    assert ((await get(daemon, agent_id)).status, (await get(daemon, agent_id)).exit_code) == (Status.KILLED, 3)


@pytest.mark.parametrize(("code", "status", "error"), [(0, Status.SUCCEEDED, None), (4, Status.FAILED, "exit code 4")])
async def test_an_agent_that_spoke_ends_with_its_process(
    daemon: Daemon, code: int, status: Status, error: str | None
) -> None:
    agent_id = await daemon.spawn(shell(f"while [ ! -e go ]; do sleep 0.05; done; exit {code}"))
    await daemon.service.session_opened(agent_id, (await get(daemon, agent_id)).run_id)
    await daemon.engine.files.write(agent_id, "/workspace/go", b"", append=False)
    one = await until(daemon, agent_id, status=status)
    assert (one.phase, one.exit_code, one.last_error) == (Phase.TERMINATE, code, error)
    await nothing_is_left(daemon)


async def test_a_session_is_of_the_present_run(daemon: Daemon) -> None:
    agent_id = await daemon.spawn(manifest())
    with pytest.raises(Conflict) as refused:
        await daemon.service.session_opened(agent_id, "another")
    assert refused.value.code == "stale_agent"


async def test_a_nonce_proves_which_run_connects(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[AgentOrder] = []
    start = daemon.engine.runner.start

    async def keep(order: AgentOrder) -> object:
        handed.append(order)
        return await start(order)

    monkeypatch.setattr(daemon.engine.runner, "start", keep)
    agent_id = await daemon.spawn(manifest())
    assert (await daemon.service.run_of(handed[0].nonce)).id == agent_id
    with pytest.raises(Forbidden):
        await daemon.service.run_of("0" * 64)
    await daemon.service.kill(operator(), agent_id)
    await daemon.service.settled()
    with pytest.raises(Forbidden):
        await daemon.service.run_of(handed[0].nonce)


async def test_killing_ends_everything_that_descends_from_the_process(daemon: Daemon) -> None:
    stubborn = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; sleep 600' & ) ; echo up; while :; do sleep 1; done"
    agent_id = await daemon.spawn(shell(stubborn, lifecycle={"timeout_secs": 1}))
    assert (await daemon.results.logs(operator(), agent_id, wait_s=10)).text == "up\n"
    await daemon.service.kill(operator(), agent_id)
    assert (await get(daemon, agent_id)).phase is Phase.TERMINATE
    await until(daemon, agent_id, status=Status.KILLED)
    await nothing_is_left(daemon)


async def test_a_paused_agent_stands_still_and_can_be_killed(daemon: Daemon) -> None:
    agent_id = await daemon.spawn(shell("while :; do echo tick; sleep 0.02; done"))
    await daemon.results.logs(operator(), agent_id, wait_s=10)
    await daemon.service.pause(operator(), agent_id)
    first = await daemon.results.logs(operator(), agent_id)
    second = await daemon.results.logs(operator(), agent_id, offset=first.next_offset, wait_s=0.3)
    assert second.text in ("", "tick\n")
    await daemon.service.kill(operator(), agent_id)
    await until(daemon, agent_id, status=Status.KILLED)
    await nothing_is_left(daemon)


# -- restarts, timeouts, budgets ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("loops")
async def test_a_failed_agent_is_started_again_under_its_id_and_at_last_given_up(daemon: Daemon) -> None:
    lifecycle = {"restart_policy": "on-failure", "max_restarts": 1}
    agent_id = await daemon.spawn(shell("echo run >> runs; cat runs; exit 5", lifecycle=lifecycle))
    first = (await get(daemon, agent_id)).run_id
    one = await until(daemon, agent_id, status=Status.FAILED, restarts=1)
    assert one.run_id != first
    assert (one.phase, one.exit_code) == (Phase.TERMINATE, 5)
    assert (await daemon.stores.courses.get(agent_id)).restart_at is None
    assert (await daemon.results.logs(operator(), agent_id)).text == "run\nrun\n"
    assert (await daemon.results.logs(operator(), agent_id, run_id=first)).text == "run\n"
    spawned = await daemon.told(agent_id, "AgentSpawn")
    assert [entry["detail"] for entry in spawned if entry["kind"] == "outcome"] == ["worker 1.0.0", "restart 1 of 1"]


async def test_killing_an_agent_that_waits_for_its_restart_calls_it_off(daemon: Daemon) -> None:
    lifecycle = {"restart_policy": "always"}
    agent_id = await daemon.spawn(shell("exit 0", lifecycle=lifecycle))
    await until(daemon, agent_id, status=Status.SUCCEEDED)
    assert (await daemon.stores.courses.get(agent_id)).restart_at is not None
    await daemon.service.kill(operator(), agent_id)
    assert (await daemon.stores.courses.get(agent_id)).restart_at is None


@pytest.mark.usefixtures("loops")
async def test_an_agent_ends_when_its_time_is_over(daemon: Daemon) -> None:
    late = await daemon.spawn(shell("sleep 600", lifecycle={"timeout_secs": 1}))
    virtual = await daemon.spawn(manifest(lifecycle={"timeout_secs": 1}))
    for agent_id in (late, virtual):
        one = await until(daemon, agent_id, status=Status.FAILED)
        assert (one.phase, one.last_error) == (Phase.TERMINATE, "it ran longer than 1 s")

        async def told(agent_id: AgentId = agent_id) -> bool:
            return [one["outcome"] for one in await daemon.told(agent_id, "AgentTerminate")] == ["pending", "timeout"]

        await eventually(told)
    await nothing_is_left(daemon)


@pytest.mark.usefixtures("loops")
async def test_an_agent_ends_when_its_budget_of_time_is_used_up(daemon: Daemon) -> None:
    agent_id = await daemon.spawn(manifest(budget={"wall_time_secs": 1}, lifecycle={"restart_policy": "always"}))
    one = await until(daemon, agent_id, status=Status.KILLED)
    assert (one.last_error, one.spent.wall_time_s) == ("1 of 1 seconds used", 1)
    assert len(await daemon.told(agent_id, "BudgetExceeded")) == 1
    assert (await daemon.stores.courses.get(agent_id)).restart_at is None


async def test_agents_that_ended_long_ago_are_forgotten(daemon: Daemon) -> None:
    gone, running = await daemon.spawn(shell("exit 0")), await daemon.spawn(manifest())
    await daemon.service.kill(operator(), gone)
    await daemon.service.settled()
    assert await daemon.supervision.forget(ended_before=utc_now() - timedelta(hours=1)) == 0
    assert await daemon.supervision.forget(ended_before=utc_now() + timedelta(seconds=1)) == 1
    with pytest.raises(NotFound):
        await daemon.service.details(operator(), gone)
    with pytest.raises(NotFound):
        await daemon.engine.workspaces.history(gone)
    assert (await daemon.service.details(operator(), running)).agent.id == running


# -- the daemon's restart ----------------------------------------------------------------------------------------------


async def test_a_daemon_that_comes_back_finds_its_agents(daemon: Daemon) -> None:
    working = await daemon.spawn(shell("while [ ! -e go ]; do sleep 0.05; done; echo went; exit 6"))
    virtual = await daemon.spawn(manifest())
    await daemon.service.session_opened(working, (await get(daemon, working)).run_id)
    before = await get(daemon, working)
    await daemon.restart()
    assert await get(daemon, working) == before
    details = await daemon.service.details(operator(), working)
    assert details.has_process
    assert details.enforcement is not None
    assert (await get(daemon, virtual)).phase is Phase.PLAN
    await daemon.engine.files.write(working, "/workspace/go", b"", append=False)
    one = await until(daemon, working, status=Status.FAILED)
    assert (one.exit_code, one.last_error) == (6, "exit code 6")
    assert (await daemon.results.logs(operator(), working)).text == "went\n"


async def test_what_ended_while_the_daemon_was_down_is_concluded(daemon: Daemon) -> None:
    agent_id = await daemon.spawn(shell("while [ ! -e go ]; do sleep 0.05; done; exit 7"))
    await daemon.service.session_opened(agent_id, (await get(daemon, agent_id)).run_id)
    await daemon.engine.files.write(agent_id, "/workspace/go", b"", append=False)
    await daemon.close(end_agents=False)

    await daemon.open()
    one = await until(daemon, agent_id, status=Status.FAILED)
    assert (one.phase, one.exit_code) == (Phase.TERMINATE, 7)


async def test_a_daemon_that_stops_in_order_ends_its_agents(daemon: Daemon) -> None:
    boss = await daemon.spawn(shell("sleep 600", name="boss", capabilities=["agent.spawn", "tool.invoke:echo"]))
    child = await daemon.spawn(shell("sleep 600"), agent(boss))
    await daemon.close()
    await daemon.open()
    for one in [await get(daemon, boss), await get(daemon, child)]:
        assert (one.phase, one.status) == (Phase.TERMINATE, Status.KILLED)
    await nothing_is_left(daemon)

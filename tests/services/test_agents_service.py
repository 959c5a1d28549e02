"""Agents over their lives: started, listed, moved, ended, each told of in the ledger."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from borough.core.errors import BoroughError, Conflict, Forbidden, Invalid, NotFound, Unavailable
from borough.core.ids import AgentId, new_id
from borough.governance.agents import GovernedAgent
from borough.governance.lifecycle import Phase, Status
from borough.governance.manifests import Manifest
from borough.governance.services.agents import SpawnOrder
from borough.governance.tokens import Role
from tests.conftest import eventually
from tests.services.agents_kit import Daemon, agent, inline, manifest, operator, shell

pytestmark = pytest.mark.anyio

BOSS = manifest(
    "boss",
    capabilities=["agent.spawn", "tool.invoke:echo", "memory.read:*", "agent.discover:work*"],
    network={"policy": "none"},
    budget={"calls": 10},
)


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    opened = Daemon(tmp_path)
    await opened.open()
    yield opened
    await opened.close()


async def get(daemon: Daemon, agent_id: str) -> GovernedAgent:
    return await daemon.stores.agents.get(AgentId(agent_id))


async def ended(daemon: Daemon, agent_id: str) -> GovernedAgent:
    async def is_over() -> bool:
        return (await get(daemon, agent_id)).ended_at is not None

    await eventually(is_over)
    return await get(daemon, agent_id)


# -- starting ----------------------------------------------------------------------------------------------------------


async def test_an_agent_without_a_program_lives_in_the_register_until_it_is_killed(daemon: Daemon) -> None:
    started = await daemon.service.spawn(operator(), inline(manifest()))
    assert (started.phase, started.status, started.parent_id) == (Phase.PLAN, Status.RUNNING, None)
    assert [one.id for one in await daemon.service.listing(operator())] == [started.id]
    await daemon.service.kill(operator(), started.id)
    assert (await get(daemon, started.id)).phase is Phase.TERMINATE
    assert await daemon.service.listing(operator()) == ()
    assert (await ended(daemon, started.id)).status is Status.KILLED
    await daemon.service.kill(operator(), started.id)
    told = [(entry["action"], entry["kind"], entry["outcome"]) for entry in await daemon.told(started.id)]
    assert told == [
        ("AgentSpawn", "intent", "pending"),
        ("LifecycleTransition", "event", "success"),
        ("AgentSpawn", "outcome", "success"),
        ("AgentTerminate", "intent", "pending"),
        ("LifecycleTransition", "event", "success"),
        ("AgentTerminate", "outcome", "success"),
    ]


async def test_a_repeated_request_starts_one_agent(daemon: Daemon) -> None:
    first = await daemon.service.spawn(operator("again"), inline(manifest()))
    second = await daemon.service.spawn(operator("again"), inline(manifest()))
    other = await daemon.service.spawn(operator(), inline(manifest()))
    assert first == second
    assert {one.id for one in await daemon.service.listing(operator())} == {first.id, other.id}


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (manifest(trust="odd"), "invalid_manifest", "invalid manifest: "),
        (manifest().replace("scarab/v1", "scarab/v9"), "unsupported_api_version", "unsupported api version: scarab/v9"),
        (manifest(lifecycle={"timeout_secs": 0}), "invalid_timeout", "lifecycle timeout_secs=0 is invalid"),
        (manifest(workspace={"base": "here"}), "workspace_base", "the workspace's base"),
        ("[", "invalid_yaml", "the document cannot be read"),
    ],
)
async def test_a_wrong_manifest_starts_nothing(daemon: Daemon, text: str, code: str, message: str) -> None:
    with pytest.raises(Invalid) as refused:
        await daemon.spawn(text)
    assert refused.value.code == code
    assert refused.value.message.startswith(message)
    assert await daemon.stores.agents.all(ended=True) == ()


async def test_an_order_names_one_thing(daemon: Daemon) -> None:
    for order in (SpawnOrder(), SpawnOrder(manifest_yaml=manifest(), name="worker")):
        with pytest.raises(Invalid) as refused:
            await daemon.service.spawn(operator(), order)
        assert refused.value.code == "invalid_request"
    with pytest.raises(NotFound) as unknown:
        await daemon.service.spawn(operator(), SpawnOrder(name="nobody"))
    assert unknown.value.message == "agent store: not found: nobody"


async def test_plans_that_bind_are_not_available(daemon: Daemon) -> None:
    with pytest.raises(Unavailable) as refused:
        await daemon.spawn(manifest(plan={"mode": "strict"}))
    assert (refused.value.code, "advisory" in str(refused.value.resolution)) == ("not_available", True)


async def test_a_start_that_fails_leaves_nothing_behind(daemon: Daemon) -> None:
    asker = operator("fails")
    with pytest.raises(BoroughError):
        await daemon.service.spawn(asker, inline(manifest(command="/nowhere/at/all")))
    (left,) = await daemon.stores.agents.all(ended=True)
    assert (left.phase, left.status, bool(left.last_error)) == (Phase.TERMINATE, Status.FAILED, True)
    assert [entry["outcome"] for entry in await daemon.told(left.id, "AgentSpawn")] == ["pending", "failure"]
    with pytest.raises(NotFound):
        await daemon.engine.workspaces.history(left.id)
    assert await daemon.engine.keeper.boxes() == set()


async def test_hooks_see_a_run_before_it_plans_and_after_it_ended(daemon: Daemon) -> None:
    seen: list[tuple[str, Phase]] = []

    async def begins(one: GovernedAgent, _: Manifest) -> None:
        seen.append(("start", one.phase))

    async def fails(one: GovernedAgent) -> None:
        raise Unavailable("gone", code="gone")

    async def ends(one: GovernedAgent) -> None:
        seen.append(("end", one.phase))

    daemon.service.on_start.append(begins)
    daemon.service.on_end.extend([fails, ends])
    agent_id = await daemon.spawn(manifest())
    await daemon.service.kill(operator(), agent_id)
    await daemon.service.settled()
    assert seen == [("start", Phase.INIT), ("end", Phase.TERMINATE)]
    assert (await get(daemon, agent_id)).status is Status.KILLED


async def test_an_agent_that_is_ended_while_it_is_being_started_is_ended(daemon: Daemon) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: GovernedAgent, __: Manifest) -> None:
        reached.set()
        await go_on.wait()

    daemon.service.on_start.append(slow)
    starting = asyncio.ensure_future(daemon.spawn(shell("sleep 600", lifecycle={"restart_policy": "always"})))
    await reached.wait()
    (one,) = await daemon.service.listing(operator())
    assert one.phase is Phase.INIT
    await daemon.service.kill(operator(), one.id)
    go_on.set()
    with pytest.raises(Conflict):
        await starting
    assert (await ended(daemon, one.id)).status is Status.KILLED
    assert (await daemon.stores.courses.get(one.id)).restart_at is None
    assert await daemon.engine.keeper.boxes() == set()


async def test_an_agent_may_be_faster_than_its_start(daemon: Daemon) -> None:
    moved: list[asyncio.Task[GovernedAgent]] = []

    async def connects(one: GovernedAgent, _: Manifest) -> None:
        moved.append(asyncio.ensure_future(daemon.service.transition(agent(one.id), one.id, Phase.PLAN)))
        await asyncio.sleep(0)

    daemon.service.on_start.append(connects)
    agent_id = await daemon.spawn(manifest())
    assert ((await moved[0]).id, (await moved[0]).phase) == (agent_id, Phase.PLAN)


# -- parents and children ----------------------------------------------------------------------------------------------


async def test_what_an_agent_starts_stands_below_it_and_ends_with_it(daemon: Daemon) -> None:
    boss = await daemon.spawn(BOSS)
    child = await daemon.service.spawn(agent(boss), inline(manifest("helper")))
    grandchild = await daemon.service.spawn(operator(), inline(manifest("small"), parent_id=child.id))
    assert (child.parent_id, child.depth, grandchild.parent_id, grandchild.depth) == (boss, 2, child.id, 3)
    assert child.budget.calls == 10
    (top,) = await daemon.hierarchy.tree(operator())
    assert [top.agent.id, top.children[0].agent.id, top.children[0].children[0].agent.id] == [
        boss,
        child.id,
        grandchild.id,
    ]
    await daemon.service.kill(operator(), boss)
    await daemon.service.settled()
    for one in (boss, child.id, grandchild.id):
        assert (await get(daemon, one)).status is Status.KILLED
    assert (await get(daemon, child.id)).last_error == "its parent ended"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (manifest("greedy", capabilities=["tool.invoke:fs.read"]), "capability_escalation_denied"),
        (manifest("greedy", trust="privileged"), "over_ceiling"),
        (manifest("greedy", network={"policy": "full"}), "network_escalation_denied"),
        (manifest("greedy", workspace={"base": "/srv"}), "workspace_escalation_denied"),
        (manifest("greedy", runtime="python", entrypoint="/root/.netrc"), "workspace_escalation_denied"),
    ],
)
async def test_a_child_is_never_more_than_its_parent(daemon: Daemon, text: str, code: str) -> None:
    boss = await daemon.spawn(BOSS)
    with pytest.raises(Forbidden) as refused:
        await daemon.spawn(text, agent(boss))
    assert refused.value.code == code
    denied = await daemon.told(boss, "AccessDenied")
    assert [(entry["outcome"], entry["data"]["code"]) for entry in denied] == [("denied", code)]


async def test_a_child_can_be_given_less_than_its_manifest_says(daemon: Daemon) -> None:
    boss = await daemon.spawn(BOSS)
    wide = manifest(
        "wide",
        capabilities=["tool.invoke:fs.read"],
        policy=[
            {"id": "more", "effect": "allow", "capability": "tool.invoke:fs.write"},
            {"id": "never", "effect": "deny", "capability": "tool.invoke:web.fetch"},
        ],
    )
    child = await daemon.spawn(wide, agent(boss), cap_override=("memory.read:note*",))
    run = await daemon.stores.agents.manifest(child)
    assert [str(one) for one in run.capabilities] == ["memory.read:note*"]
    assert [rule.id for rule in run.policy] == ["never"]
    with pytest.raises(Forbidden) as refused:
        await daemon.spawn(wide, agent(boss), cap_override=("memory.write:*",))
    assert refused.value.message == "capability escalation denied"


async def test_the_tree_has_a_lowest_place(daemon: Daemon) -> None:
    above: AgentId | None = None
    for _ in range(8):
        above = await daemon.spawn(manifest(), parent_id=above)
    with pytest.raises(Forbidden) as refused:
        await daemon.spawn(manifest(), parent_id=above)
    assert (refused.value.code, refused.value.message) == ("hierarchy_depth_exceeded", "hierarchy depth exceeded")


async def test_only_who_may_spawn_does(daemon: Daemon) -> None:
    worker, other = await daemon.spawn(manifest()), await daemon.spawn(BOSS)
    with pytest.raises(Forbidden) as denied:
        await daemon.spawn(manifest(), agent(worker))
    assert denied.value.code == "denied"
    with pytest.raises(Forbidden) as unrelated:
        await daemon.spawn(manifest(), agent(other), parent_id=worker)
    assert unrelated.value.code == "not_related"
    with pytest.raises(Forbidden) as dead:
        await daemon.spawn(manifest(), agent(new_id()))
    assert dead.value.code == "denied"
    assert (await get(daemon, await daemon.spawn(manifest(), agent(new_id(), role=Role.OPERATOR)))).parent_id is None


async def test_nothing_is_started_below_an_agent_that_has_ended(daemon: Daemon) -> None:
    boss = await daemon.spawn(BOSS)
    await daemon.service.kill(operator(), boss)
    with pytest.raises(Conflict) as refused:
        await daemon.spawn(manifest(), parent_id=boss)
    assert refused.value.code == "agent_not_running"
    assert all(one.status is not Status.RUNNING for one in await daemon.stores.agents.all(ended=True) if one.id != boss)


async def test_agents_find_one_another_by_what_they_can_do(daemon: Daemon) -> None:
    boss, worker = await daemon.spawn(BOSS), await daemon.spawn(manifest("worker", capabilities=["memory.read:a/b"]))
    await daemon.spawn(manifest("quiet", capabilities=["memory.read:a/b"]))
    found = await daemon.hierarchy.discover(agent(boss), boss, "memory.*")
    assert [(one.agent.id, one.capabilities) for one in found] == [
        (boss, ("memory.read:*",)),
        (worker, ("memory.read:a/b",)),
    ]
    with pytest.raises(Forbidden) as refused:
        await daemon.hierarchy.discover(operator(), worker, "*")
    assert refused.value.code == "denied"


# -- moving ------------------------------------------------------------------------------------------------------------


async def test_agents_move_along_the_table_and_operators_force_them(daemon: Daemon) -> None:
    agent_id = await daemon.spawn(manifest())
    assert (await daemon.service.transition(agent(agent_id), agent_id, Phase.PLAN)).phase is Phase.PLAN
    with pytest.raises(Conflict) as refused:
        await daemon.service.transition(agent(agent_id), agent_id, Phase.OBSERVE)
    assert refused.value.code == "illegal_transition"
    assert (await get(daemon, agent_id)).phase is Phase.PLAN
    assert (await daemon.service.transition(operator(), agent_id, Phase.OBSERVE)).phase is Phase.OBSERVE
    assert (await daemon.service.transition(agent(agent_id), agent_id, Phase.ACT)).phase is Phase.ACT
    moves = [entry["detail"] for entry in await daemon.told(agent_id, "LifecycleTransition")]
    assert moves == ["Init -> Plan", "Plan -> Observe", "Observe -> Act"]


async def test_an_agent_that_says_it_ends_has_succeeded(daemon: Daemon) -> None:
    agent_id = await daemon.spawn(manifest())
    assert (await daemon.service.transition(agent(agent_id), agent_id, Phase.TERMINATE)).phase is Phase.TERMINATE
    assert (await ended(daemon, agent_id)).status is Status.SUCCEEDED
    forced = await daemon.spawn(manifest())
    await daemon.service.transition(operator(), forced, Phase.TERMINATE)
    assert (await ended(daemon, forced)).status is Status.KILLED


async def test_an_agent_can_be_paused_and_goes_on(daemon: Daemon) -> None:
    agent_id = await daemon.spawn(manifest())
    assert (await daemon.service.pause(operator(), agent_id)).status is Status.PAUSED
    assert (await daemon.service.pause(operator(), agent_id)).status is Status.PAUSED
    assert (await daemon.service.resume(operator(), agent_id)).status is Status.RUNNING
    await daemon.service.kill(operator(), agent_id)
    with pytest.raises(Conflict) as refused:
        await daemon.service.pause(operator(), agent_id)
    assert refused.value.code == "agent_not_running"


async def test_what_is_known_of_an_agent(daemon: Daemon) -> None:
    async def two(_: AgentId) -> int:
        return 2

    daemon.service.count_approvals.append(two)
    agent_id = await daemon.spawn(shell("sleep 60", task="be there"), task_override="be here")
    details = await daemon.service.details(operator(), agent_id)
    assert (details.agent.task, details.pending_approvals, details.has_process) == ("be here", 2, True)
    assert details.enforcement is not None
    assert details.enforcement.backend == "bubblewrap"

"""The register of agents: what was acknowledged is in memory and on disk alike, and changes only from where it was."""

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta

import apsw
import pytest

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance.stores import open_stores
from borough.adapters.sql.governance.tables import MIGRATIONS
from borough.adapters.sql.ledger import SqlLedger
from borough.core.errors import Conflict, Invalid, NotFound, Unavailable
from borough.core.ids import AgentId, new_id
from borough.governance.agents import GovernedAgent
from borough.governance.budgets import Limits, Spent
from borough.governance.ledger import Draft, Outcome
from borough.governance.lifecycle import Exit, Phase, Status
from borough.governance.manifest_reading import parse_manifest
from borough.governance.manifests import McpServer, Transport
from borough.governance.ports.register import Agents, McpDefinitions
from tests.conftest import eventually
from tests.contracts.governance_kit import MANIFEST, NOON, SECOND, House, new_agent

pytestmark = pytest.mark.anyio
NOBODY = AgentId(new_id())


@pytest.fixture
def agents(house: House) -> Agents:
    return house.stores.agents


async def ended(agents: Agents, agent: GovernedAgent, *, after: timedelta = SECOND) -> GovernedAgent:
    return await agents.set_status(
        agent.id,
        run_id=agent.run_id,
        was=Status.RUNNING,
        to=Status.FAILED,
        at=NOON + after,
        ended=Exit(code=3),
        last_error="exit code 3",
    )


async def test_an_agent_is_kept_whole_over_a_restart(house: House, agents: Agents) -> None:
    parent = new_agent()
    agent = new_agent(
        parent_id=parent.id,
        depth=2,
        restarts=1,
        task="read",
        model="m-1",
        tainted=True,
        budget=Limits(calls=5, cost_micros=7),
        spent=Spent(calls=1, tokens=2, cost_micros=3, wall_time_s=4),
        spawned_at=NOON + SECOND,
        run_started_at=NOON + 2 * SECOND,
    )
    await agents.add(parent, MANIFEST)
    await agents.add(agent, MANIFEST)
    assert (await agents.get(agent.id), await agents.manifest(agent.id)) == (agent, parse_manifest(MANIFEST))
    again = (await house.reopen()).agents
    assert (await again.get(agent.id), await again.manifest(agent.id)) == (agent, parse_manifest(MANIFEST))
    assert await again.all(ended=False) == (parent, agent)
    assert await again.ancestors(agent.id) == (parent.id,)


async def test_adding_an_agent_again_changes_nothing_and_another_run_is_refused(agents: Agents) -> None:
    agent = new_agent()
    await agents.add(agent, MANIFEST)
    await agents.charge(agent.id, Spent(calls=1))
    await agents.add(agent, MANIFEST)
    assert (await agents.get(agent.id)).spent == Spent(calls=1)
    with pytest.raises(Conflict) as refused:
        await agents.add(new_agent(id=agent.id), MANIFEST)
    assert refused.value.code == "stale_agent"


async def test_text_that_is_no_manifest_registers_nobody(agents: Agents) -> None:
    with pytest.raises(Invalid):
        await agents.add(new_agent(), "kind: Something")
    assert await agents.all(ended=True) == ()


async def test_whoever_is_not_there_is_not_found(agents: Agents) -> None:
    for attempt in (
        agents.get(NOBODY),
        agents.manifest(NOBODY),
        agents.ancestors(NOBODY),
        agents.charge(NOBODY, Spent(calls=1)),
        agents.taint(NOBODY, tainted=True),
        agents.begin_run(NOBODY, run_id=new_id(), at=NOON),
        agents.move(NOBODY, run_id="r", was=Phase.INIT, to=Phase.PLAN, at=NOON),
    ):
        with pytest.raises(NotFound) as refused:
            await attempt
        assert refused.value.code == "agent_not_found"


async def test_of_many_who_move_an_agent_from_one_phase_one_does(agents: Agents) -> None:
    agent = new_agent()
    await agents.add(agent, MANIFEST)
    moves = [agents.move(agent.id, run_id=agent.run_id, was=Phase.INIT, to=Phase.PLAN, at=NOON) for _ in range(8)]
    outcomes = await asyncio.gather(*moves, return_exceptions=True)
    assert sorted(type(each).__name__ for each in outcomes) == ["Conflict"] * 7 + ["GovernedAgent"]
    assert (await agents.get(agent.id)).phase is Phase.PLAN
    with pytest.raises(Conflict) as refused:
        await agents.move(agent.id, run_id="another", was=Phase.PLAN, to=Phase.ACT, at=NOON)
    assert refused.value.code == "stale_agent"


async def test_an_end_is_kept_with_its_moment_and_reason_and_happens_once(house: House, agents: Agents) -> None:
    agent = new_agent()
    await agents.add(agent, MANIFEST)
    over = await ended(agents, agent)
    assert (over.ended_at, over.exit_code, over.last_error) == (NOON + SECOND, 3, "exit code 3")
    with pytest.raises(Conflict):
        await ended(agents, agent)
    assert await agents.all(ended=False) == ()
    again = (await house.reopen()).agents
    assert await again.all(ended=True) == (over,)
    assert await again.manifest(agent.id) == parse_manifest(MANIFEST)


async def test_a_pause_is_no_end(agents: Agents) -> None:
    agent = new_agent()
    await agents.add(agent, MANIFEST)
    await agents.set_status(agent.id, run_id=agent.run_id, was=Status.RUNNING, to=Status.PAUSED, at=NOON)
    assert [(each.status, each.ended_at) for each in await agents.all(ended=False)] == [(Status.PAUSED, None)]


async def test_a_new_run_starts_clean_with_what_was_spent_and_once(agents: Agents) -> None:
    agent = new_agent(tainted=True, phase=Phase.ACT, spent=Spent(calls=9))
    await agents.add(agent, MANIFEST)
    with pytest.raises(Conflict) as refused:
        await agents.begin_run(agent.id, run_id=new_id(), at=NOON)
    assert refused.value.code == "stale_agent"
    await agents.set_result(agent.id, run_id=agent.run_id, result="1")
    await ended(agents, agent)
    run_id = new_id()
    later = NOON + 5 * SECOND
    again = await agents.begin_run(agent.id, run_id=run_id, at=later)
    assert (again.run_id, again.restarts, again.run_started_at) == (run_id, 1, later)
    assert (again.phase, again.status, again.tainted) == (Phase.INIT, Status.RUNNING, False)
    assert again.spent == Spent(calls=9)
    assert (again.ended_at, again.exit_code, again.last_error, again.result) == (None, None, None, None)
    assert await agents.begin_run(agent.id, run_id=run_id, at=later + SECOND) == again
    assert await agents.get(agent.id) == again
    with pytest.raises(Conflict):
        await agents.set_result(agent.id, run_id=agent.run_id, result="2")


async def test_charges_of_many_add_up_in_memory_and_on_disk(house: House, agents: Agents) -> None:
    agent = new_agent()
    await agents.add(agent, MANIFEST)
    more = Spent(calls=1, tokens=10, cost_micros=100, wall_time_s=7)
    sums = await asyncio.gather(*(agents.charge(agent.id, more) for _ in range(200)))
    assert sorted(each.calls for each in sums) == list(range(1, 201))
    total = Spent(calls=200, tokens=2000, cost_micros=20_000, wall_time_s=7)
    assert (await agents.get(agent.id)).spent == total
    assert (await (await house.reopen()).agents.get(agent.id)).spent == total
    with pytest.raises(ValueError, match="taken back"):
        await house.stores.agents.charge(agent.id, Spent(calls=-1))


async def test_memory_follows_the_disk_also_when_the_caller_no_longer_waits(house: House, agents: Agents) -> None:
    agent = new_agent()
    await agents.add(agent, MANIFEST)
    charges = [asyncio.ensure_future(agents.charge(agent.id, Spent(calls=1))) for _ in range(20)]
    await asyncio.sleep(0)
    for each in charges:
        each.cancel()
    assert all(
        isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*charges, return_exceptions=True)
    )
    await agents.charge(agent.id, Spent(tokens=1))
    in_memory = await agents.get(agent.id)
    assert await (await house.reopen()).agents.get(agent.id) == in_memory
    assert in_memory.spent.calls == 20


async def test_what_was_undone_on_disk_is_not_in_memory(house: House, agents: Agents) -> None:
    both = [await gone(agents), await gone(agents)]
    await house.database.write(
        lambda connection: connection.execute(
            "CREATE TRIGGER half BEFORE DELETE ON manifests WHEN (SELECT count(*) FROM manifests) = 1"
            " BEGIN SELECT RAISE(ABORT, 'half of it'); END"
        ).fetchall()
    )
    with pytest.raises(Exception, match="half of it"):
        await agents.forget(ended_before=NOON + 60 * SECOND)
    await agents.add(new_agent(), MANIFEST)
    assert {agent.id for agent in both} < {each.id for each in await agents.all(ended=True)}


async def gone(agents: Agents) -> GovernedAgent:
    agent = new_agent()
    await agents.add(agent, MANIFEST)
    return await ended(agents, agent)


class Stumbling:
    """A follower that fails once, after the commit: nobody is told that it happened, and it did."""

    def __init__(self) -> None:
        self.fails = 0

    def mark(self) -> object:
        return None

    def undo(self, mark: object) -> None:
        """Nothing is kept."""

    def rebuild(self, connection: apsw.Connection) -> None:
        """Nothing is kept."""

    def committed(self) -> Callable[[], None] | None:
        self.fails -= 1
        if self.fails == 0:
            raise RuntimeError("after the commit")
        return None


async def test_memory_is_read_anew_when_a_commit_left_open_what_is_on_disk(house: House, agents: Agents) -> None:
    agent, gone = new_agent(), new_agent()
    for each in (agent, gone):
        await agents.add(each, MANIFEST)
    await ended(agents, gone)
    stumbling = Stumbling()
    await house.close()
    house.database = await Database.open(house.path, MIGRATIONS)
    house.database.follow(stumbling)
    house.stores = await open_stores(house.database)
    agents = house.stores.agents
    for lost in (agents.charge(agent.id, Spent(calls=1)), agents.forget(ended_before=NOON + 60 * SECOND)):
        stumbling.fails = 1
        with pytest.raises(Unavailable):
            await lost
    assert (await agents.charge(agent.id, Spent(calls=1))).calls == 2
    in_memory = await agents.all(ended=True)
    assert [(each.id, each.spent.calls) for each in in_memory] == [(agent.id, 2)]
    assert await (await house.reopen()).agents.all(ended=True) == in_memory


async def test_a_charge_is_flushed_together_with_the_entry_of_its_call(house: House, agents: Agents) -> None:
    agent = new_agent()
    await agents.add(agent, MANIFEST)
    ledger = await SqlLedger.open(house.database)
    commits = 0
    entered, released = threading.Event(), threading.Event()

    def count() -> bool:
        nonlocal commits
        commits += 1
        return False  # the commit goes on

    def hold(connection: apsw.Connection) -> None:
        entered.set()
        connection.set_commit_hook(count)
        assert released.wait(30)

    held = asyncio.ensure_future(house.database.write(hold))
    await asyncio.to_thread(entered.wait, 30)
    draft = Draft(id=new_id(), at=NOON, agent_id=agent.id, action="tool.called", outcome=Outcome.SUCCESS)
    both = [
        asyncio.ensure_future(ledger.append([draft])),
        asyncio.ensure_future(agents.charge(agent.id, Spent(calls=1))),
    ]

    async def both_wait() -> bool:
        return house.database._waiting.qsize() >= 1 and not house.database._asked

    await eventually(both_wait)
    released.set()
    await held
    await asyncio.gather(*both)
    assert commits == 2  # the one that held the writer, and one for both
    assert (await ledger.head()).size == 1
    await ledger.close()


async def test_the_taint_is_set_and_cleared(agents: Agents) -> None:
    agent = new_agent()
    await agents.add(agent, MANIFEST)
    for tainted in (True, False):
        await agents.taint(agent.id, tainted=tainted)
        assert (await agents.get(agent.id)).tainted is tainted


async def test_those_that_ended_long_ago_are_forgotten_but_not_above_one_that_runs(
    house: House, agents: Agents
) -> None:
    top = new_agent()
    middle = new_agent(parent_id=top.id, depth=2)
    below = new_agent(parent_id=middle.id, depth=3)
    alone, late = new_agent(), new_agent()
    for each in (top, middle, below, alone, late):
        await agents.add(each, MANIFEST)
    for each in (top, middle, alone):
        await ended(agents, each)
    await ended(agents, late, after=60 * SECOND)
    assert await agents.forget(ended_before=NOON + 30 * SECOND) == (alone.id,)
    with pytest.raises(NotFound):
        await agents.manifest(alone.id)
    assert await agents.ancestors(below.id) == (middle.id, top.id)
    await ended(agents, below)
    assert set(await agents.forget(ended_before=NOON + 30 * SECOND)) == {top.id, middle.id, below.id}
    assert [each.id for each in await agents.all(ended=True)] == [late.id]
    assert [each.id for each in await (await house.reopen()).agents.all(ended=True)] == [late.id]


SERVER = McpServer(
    name="files",
    transport=Transport.STDIO,
    command="mcp-files",
    args=("--root", "/srv"),
    env_template=(("TOKEN", "{{secret:files-token}}"), ("MODE", "ro")),
    description="Files",
)


async def test_definitions_of_mcp_servers_keep_handles_and_are_one_for_each_name(house: House) -> None:
    definitions: McpDefinitions = house.stores.mcp_definitions
    other = McpServer(name="docs", transport=Transport.HTTP, url="https://docs.example/mcp")
    for _ in range(2):
        await definitions.add(SERVER)
    await definitions.add(other)
    with pytest.raises(Conflict) as refused:
        await definitions.add(McpServer(name="files", transport=Transport.STDIO, command="another"))
    assert refused.value.code == "mcp_exists"
    definitions = (await house.reopen()).mcp_definitions
    assert await definitions.all() == (other, SERVER)
    assert (await definitions.get("files")).env_template[0] == ("TOKEN", "{{secret:files-token}}")
    await definitions.remove("files")
    for attempt in (definitions.get("files"), definitions.remove("files")):
        with pytest.raises(NotFound) as missing:
            await attempt
        assert missing.value.code == "mcp_not_found"

"""What is done often finds its rows by an index: no step reads a whole table, however long the town has lived."""

from collections.abc import Iterator
from dataclasses import replace

import apsw
import pytest

from borough.core.ids import new_id
from borough.core.paging import PageRequest
from borough.governance.approvals import ApprovalState, approve
from borough.governance.budgets import Spent
from borough.governance.grants import revoke
from borough.governance.lifecycle import Phase, Status
from borough.governance.observations import NewObservation, ObservationFilter
from borough.governance.tools import ProposalState, decide_proposal
from tests.contracts.governance_kit import MANIFEST, NOON, SECOND, House, new_agent
from tests.contracts.test_approvals import new_approval
from tests.contracts.test_grants import new_grant
from tests.contracts.test_proposals import new_proposal
from tests.contracts.test_secrets import POLICY

pytestmark = pytest.mark.anyio


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Every statement of every connection that is opened from now on."""
    heard: list[str] = []

    def listen(connection: apsw.Connection) -> None:
        def note(_cursor: apsw.Cursor, statement: str, _values: object) -> bool:
            heard.append(statement)
            return True

        connection.exec_trace = note

    apsw.connection_hooks.append(listen)
    yield heard
    apsw.connection_hooks.remove(listen)


async def live(house: House) -> None:
    """Do once what is done all day."""
    stores, agent = house.stores, new_agent()
    await stores.agents.add(agent, MANIFEST)
    await stores.agents.move(agent.id, run_id=agent.run_id, was=Phase.INIT, to=Phase.PLAN, at=NOON)
    await stores.agents.charge(agent.id, Spent(calls=1))
    await stores.agents.taint(agent.id, tainted=True)
    grant = new_grant(agent.id)
    await stores.grants.add(grant)
    await stores.grants.replace(revoke(grant, by="operator", at=NOON))
    approval = new_approval(agent_id=agent.id)
    await stores.approvals.add(approval)
    await stores.approvals.waiting()
    await stores.approvals.replace(approve(approval, by="ada", at=NOON), was=ApprovalState.PENDING)
    await stores.approvals.decided(approval.id, timeout_s=0)
    proposal = new_proposal()
    await stores.proposals.add(proposal)
    await stores.proposals.all(state=ProposalState.PROPOSED)
    denied = decide_proposal(proposal, ProposalState.DENIED, by="ada", at=NOON)
    await stores.proposals.replace(denied, was=ProposalState.PROPOSED)
    await remember(house)
    await stores.secrets.add_policy(replace(POLICY, id="p"))
    await stores.secrets.count_use("p")
    await stores.secrets.remove_policy("p")
    await stores.agents.set_status(agent.id, run_id=agent.run_id, was=Status.RUNNING, to=Status.KILLED, at=NOON)
    await stores.agents.begin_run(agent.id, run_id="again", at=NOON)
    await stores.agents.set_status(agent.id, run_id="again", was=Status.RUNNING, to=Status.KILLED, at=NOON)


async def remember(house: House) -> None:
    memory, observations, agent = house.stores.memory, house.stores.observations, new_agent()
    for key in ("a", "b"):
        await memory.write("reader", key, "1", at=NOON, ttl_s=1)
    await memory.swap("reader", "a", expected=1, new="2", at=NOON)
    await memory.keys("reader", at=NOON, page=PageRequest())
    await memory.delete("reader", "b", at=NOON)
    await memory.sweep(at=NOON + SECOND, limit=10)
    said = NewObservation(action="Plan", result="read", tags=("x",))
    await observations.append(agent.id, said, id=new_id(), at=NOON)
    for wanted in (
        ObservationFilter(),
        ObservationFilter(tag="x"),
        ObservationFilter(keyword="pla"),
        ObservationFilter(since=NOON, until=NOON),
    ):
        assert len(await observations.find(agent.id, wanted)) == 1


async def test_nothing_that_is_done_often_reads_or_sorts_a_whole_table(statements: list[str], house: House) -> None:
    statements.clear()
    await live(house)
    plain = apsw.Connection(str(house.path), flags=apsw.SQLITE_OPEN_READONLY)
    asked = {each for each in statements if each.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")}
    assert len(asked) > 30
    for statement in asked:
        unbound = [None] * 40
        plan = plain.execute(f"EXPLAIN QUERY PLAN {statement}", tuple(unbound[: statement.count("?")])).fetchall()
        for step in (str(each[-1]) for each in plan):
            assert "TEMP B-TREE" not in step, (statement, step)
            indexed = not step.startswith("SCAN") or "VIRTUAL TABLE INDEX" in step or "approvals_waiting" in step
            assert indexed, (statement, step)
    plain.close()

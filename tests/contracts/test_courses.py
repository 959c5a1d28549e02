"""Courses: kept whole, changed in one step, in memory as on disk."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from borough.core.errors import Forbidden
from borough.core.ids import AgentId, new_id
from borough.governance.budgets import Limits
from borough.governance.courses import Course, PlanStep, new_run, with_plan, with_priority
from tests.contracts.governance_kit import MANIFEST, NOON, House, new_agent

pytestmark = pytest.mark.anyio
ADA, BOB = AgentId(new_id()), AgentId(new_id())


async def test_a_course_is_kept_whole_over_a_restart(house: House) -> None:
    courses = house.stores.courses
    assert await courses.get(ADA) == Course()
    whole = Course(
        priority=70,
        deadline=NOON + timedelta(milliseconds=1),
        deadline_is_operators=True,
        run_id="run",
        nonce_sha256="d" * 64,
        has_process=True,
        connected=True,
        restart_at=NOON,
    )
    whole = with_plan(whole, (PlanStep(description="read", tool="fs.read"),), at=NOON)
    assert await courses.change(ADA, lambda _: whole) == whole
    assert await courses.get(ADA) == whole
    again = (await house.reopen()).courses
    assert dict(await again.all()) == {ADA: whole}


async def test_changes_of_many_are_made_one_after_the_other(house: House) -> None:
    courses = house.stores.courses
    await asyncio.gather(
        *(courses.change(ADA, lambda course: replace(course, priority=course.priority + 1)) for _ in range(20))
    )
    assert (await courses.get(ADA)).priority == 70


async def test_a_change_that_raises_changes_nothing(house: House) -> None:
    courses = house.stores.courses
    with pytest.raises(Forbidden):
        await courses.change(ADA, lambda course: with_priority(course, 51, own=True))
    assert dict(await courses.all()) == {}


async def test_a_course_can_be_forgotten(house: House) -> None:
    courses = house.stores.courses
    for agent_id in (ADA, BOB):
        await courses.change(agent_id, lambda course: new_run(course, run_id="r", nonce_sha256="n"))
    for _ in range(2):
        await courses.forget(ADA)
    assert list(await courses.all()) == [BOB]
    assert list(await (await house.reopen()).courses.all()) == [BOB]


async def test_a_budget_can_be_changed(house: House) -> None:
    agents, agent = house.stores.agents, new_agent()
    await agents.add(agent, MANIFEST)
    wanted = Limits(calls=1, tokens=2, cost_micros=3, wall_time_s=4)
    assert (await agents.set_budget(agent.id, wanted)).budget == wanted
    assert (await (await house.reopen()).agents.get(agent.id)).budget == wanted

"""What needs a person of leases that nobody ends, on every server: there is none to end them here."""

from datetime import timedelta

import pytest

from borough.core.clock import rfc3339
from borough.overview.services import needs_of_town
from borough.overview.services.needs_of_town import StuckLeases
from borough.town.tasks import TaskState
from tests.conftest import eventually
from tests.contracts.conftest import Town
from tests.contracts.kit import AT_ONCE, BRIEF, FIRST, GRACE, hire, queue

pytestmark = pytest.mark.anyio


async def test_a_lease_that_is_over_and_that_nobody_ends_needs_somebody(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = await (await hire(town, "ada")).must_take() if await queue(town, "goes on") else None
    await queue(town, "left in the middle")
    stuck = await (await hire(town, "bea")).must_take(BRIEF)
    source = StuckLeases(town.tasks)
    assert (await source.page(FIRST)).items == (), "it may still be ended in time"
    monkeypatch.setattr(needs_of_town, "OVERDUE", timedelta(0))

    async def told() -> bool:
        return len((await source.page(FIRST)).items) == 1

    await eventually(told)
    (need,) = (await source.page(FIRST)).items
    assert held is not None
    assert (need.subject.id, need.title) == (stuck.id, "left in the middle is held by nobody")
    assert f"epoch {stuck.epoch}" in need.why
    assert need.since == stuck.lease_expires_at, rfc3339(need.since)
    assert "ended by itself" in need.safe_default
    assert [(each.method, each.path) for each in need.settled_by] == [("POST", "/v1/recover")]
    await town.leases.sweep(retry=AT_ONCE, limit=100, agent_grace=GRACE)  # what that request does
    assert (await source.page(FIRST)).items == ()
    assert (await town.tasks.get(stuck.id))[0].state is not TaskState.RUNNING

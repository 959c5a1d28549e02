"""The ports Escalations and the pins of MCP tools, on their stores."""

from dataclasses import replace

import pytest

from borough.core.errors import Conflict, NotFound
from borough.core.ids import AgentId, new_id
from borough.governance.escalations import Escalation, EscalationKind, EscalationState, pass_up, resolve
from tests.contracts.governance_kit import NOON, House

pytestmark = pytest.mark.anyio
ADA, BOB = AgentId("6f6d1ab0-7a4e-4f0b-9d6b-0b0f5c1f8a11"), AgentId("7f6d1ab0-7a4e-4f0b-9d6b-0b0f5c1f8a12")


def asked(**other: object) -> Escalation:
    made = Escalation(
        id=new_id(),
        from_agent_id=ADA,
        to_agent_id=BOB,
        kind=EscalationKind.CAPABILITY_REQUEST,
        detail="to speak",
        created_at=NOON,
        capability="tool.invoke:echo",
        ttl_s=60,
    )
    return replace(made, **other)  # type: ignore[arg-type] # what the test names


async def test_what_is_kept_is_found_again_also_after_a_restart(house: House) -> None:
    first, second = asked(), asked(to_agent_id=None, capability=None, ttl_s=None, kind=EscalationKind.STUCK)
    for each in (first, second, first):
        await house.stores.escalations.add(each)
    stores = await house.reopen()
    assert await stores.escalations.open() == (first, second)
    assert await stores.escalations.get(second.id) == second
    with pytest.raises(NotFound) as missing:
        await stores.escalations.get(new_id())
    assert missing.value.code == "escalation_not_found"


async def test_only_what_is_still_as_it_was_is_changed(house: House) -> None:
    before = asked()
    await house.stores.escalations.add(before)
    passed = pass_up(before, None)
    await house.stores.escalations.replace(passed, was=before)
    decided = resolve(before, EscalationState.APPROVED, by="bob", at=NOON)
    with pytest.raises(Conflict) as stale:
        await house.stores.escalations.replace(decided, was=before)
    assert stale.value.code == "already_decided"
    done = resolve(passed, EscalationState.DENIED, by="ada", at=NOON)
    await house.stores.escalations.replace(done, was=passed)
    assert await house.stores.escalations.get(before.id) == done
    assert await house.stores.escalations.open() == ()
    with pytest.raises(NotFound):
        await house.stores.escalations.replace(asked(), was=before)


async def test_pins_belong_to_an_agent_and_a_server(house: House) -> None:
    pins = house.stores.tool_pins
    assert await pins.load(ADA, "docs") is None
    await pins.save(ADA, "docs", {"say": "one"})
    await pins.save(ADA, "docs", {"say": "two", "new": "three"})
    assert await (await house.reopen()).tool_pins.load(ADA, "docs") == {"say": "two", "new": "three"}
    assert await house.stores.tool_pins.load(BOB, "docs") is None

"""Escalations go up, and are decided once."""

from datetime import UTC, datetime

import pytest

from borough.core.errors import Conflict, Invalid
from borough.core.ids import AgentId
from borough.governance.escalations import (
    MOVES,
    Escalation,
    EscalationKind,
    EscalationState,
    check_request,
    pass_up,
    resolve,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ADA, BOB, EVE = AgentId("ada"), AgentId("bob"), AgentId("eve")
OPEN = Escalation(id="e", from_agent_id=ADA, to_agent_id=BOB, kind=EscalationKind.STUCK, detail="", created_at=NOON)


@pytest.mark.parametrize("to", sorted(MOVES[EscalationState.OPEN]))
def test_what_is_decided_stays_so(to: EscalationState) -> None:
    done = resolve(OPEN, to, by="grace", at=NOON)
    assert (done.state, done.resolved_by, done.resolved_at) == (to, "grace", NOON)
    assert resolve(done, to, by="other", at=NOON) is done
    for other in MOVES[EscalationState.OPEN] - {to}:
        with pytest.raises(Conflict) as decided:
            resolve(done, other, by="other", at=NOON)
        assert decided.value.code == "already_decided"
    with pytest.raises(Conflict):
        pass_up(done, EVE)


def test_it_goes_up_until_people_have_it() -> None:
    higher = pass_up(OPEN, EVE)
    top = pass_up(higher, None)
    assert (higher.to_agent_id, top.to_agent_id, top.passed_by) == (EVE, None, (BOB, EVE))
    with pytest.raises(Conflict) as nobody:
        pass_up(top, None)
    assert nobody.value.code == "at_the_top"


def test_what_is_asked_for_is_a_capability_for_a_time_with_a_reason() -> None:
    assert check_request("mcp.docs.*", "why not", 5) == "tool.invoke:mcp.docs.*"
    for reason, ttl_s in (("x" * 2001, None), ("", 0)):
        with pytest.raises(Invalid) as refused:
            check_request("obs.append", reason, ttl_s)
        assert refused.value.code == "invalid_capability_request"
    with pytest.raises(Invalid):
        check_request("everything", "", None)

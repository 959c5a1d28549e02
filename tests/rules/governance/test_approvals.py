"""Approvals: bound to the call, once, in time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from borough.core.errors import Conflict, Forbidden
from borough.core.ids import AgentId
from borough.governance.approvals import Approval, ApprovalState, Call, approve, cancel, deny, expire, use

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CALL = Call(agent_id=AgentId("a"), run_id="r", tool="sensitive-op", arguments={"x": 1.5}, manifest_digest="m")
ASKED = Approval(
    id="1",
    agent_id=AgentId("a"),
    tool="sensitive-op",
    call_digest=CALL.digest,
    shown={"x": 1.5},
    rule="tool.requires_approval",
    submitted_at=NOON,
    expires_at=NOON + timedelta(seconds=300),
)


def test_an_agreement_is_used_once() -> None:
    agreed = approve(ASKED, by="ada", at=NOON)
    used = use(agreed, CALL, at=NOON)
    assert (agreed.state, agreed.decided_by, used.state) == (ApprovalState.APPROVED, "ada", ApprovalState.USED)
    with pytest.raises(Conflict):
        use(used, CALL, at=NOON)


@pytest.mark.parametrize(
    "other",
    [
        replace(CALL, arguments={"x": 2}),
        replace(CALL, tool="echo"),
        replace(CALL, run_id="r2"),
        replace(CALL, agent_id=AgentId("b")),
        replace(CALL, manifest_digest="n"),
    ],
)
def test_an_agreement_holds_for_the_very_call_only(other: Call) -> None:
    with pytest.raises(Forbidden) as refused:
        use(approve(ASKED, by="ada", at=NOON), other, at=NOON)
    assert refused.value.code == "approval_mismatch"


def test_nobody_agreeing_in_time_is_a_refusal() -> None:
    late = ASKED.expires_at
    assert expire(ASKED, at=late).state is ApprovalState.EXPIRED
    with pytest.raises(Conflict):
        approve(ASKED, by="ada", at=late)
    for asked in (ASKED, approve(ASKED, by="ada", at=NOON)):
        with pytest.raises(Forbidden) as refused:
            use(asked, CALL, at=late)
        assert refused.value.code == "approval_timeout"


def test_a_refusal_is_final_and_has_the_words_of_the_reference() -> None:
    refused = deny(ASKED, by="ada", at=NOON)
    assert deny(refused, by="bob", at=NOON) == refused
    with pytest.raises(Conflict):
        approve(refused, by="bob", at=NOON)
    with pytest.raises(Forbidden, match="denied by operator"):
        use(refused, CALL, at=NOON)


def test_two_people_are_two_people() -> None:
    first = approve(replace(ASKED, needed=2), by="ada", at=NOON)
    assert approve(first, by="ada", at=NOON) == first
    assert first.state is ApprovalState.PENDING
    assert approve(first, by="bob", at=NOON).state is ApprovalState.APPROVED


def test_a_pending_or_cancelled_request_allows_nothing() -> None:
    for asked in (ASKED, cancel(approve(ASKED, by="ada", at=NOON), at=NOON)):
        with pytest.raises(Conflict):
            use(asked, CALL, at=NOON)
    used = use(approve(ASKED, by="ada", at=NOON), CALL, at=NOON)
    assert cancel(used, at=NOON) == used


def test_an_agreement_is_not_shown_to_say_what_the_arguments_are() -> None:
    assert "1.5" not in repr(CALL)

"""How messages are summed up."""

from datetime import UTC, datetime

import pytest

from borough.core.ids import AgentId, MessageId
from borough.town.messages import Message, confirmation, summary


def message(type_: str, text: str) -> Message:
    return Message(
        id=MessageId("11111111-1111-4111-8111-111111111111"),
        type=type_,
        text=text,
        sender=AgentId("a"),
        to=AgentId("b"),
        urgent=False,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("received, will do", "Received"),
        ("Approved", "Approved"),
        ("many thanks", "Thanks"),
        ("Thank you!", "Thanks"),
        ("rejected: too long", 'Rejected { reason: "too long" }'),
        ("Rejected:", 'Rejected { reason: "No reason provided" }'),
        ("all good", "Acknowledged"),
    ],
)
def test_confirmations_say_which(text: str, told: str) -> None:
    assert confirmation(text) == told
    assert summary(message("confirmation", text)) == told


def test_assignments_name_the_task_and_texts_stay_whole() -> None:
    assert summary(message("task_assign", "x")) == "task assignment 11111111-1111-4111-8111-111111111111"
    assert summary(message("query", "a\nb" * 500)) == "a\nb" * 500

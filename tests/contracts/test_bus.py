"""The bus: in order, once for each listener, and never more than a mailbox holds."""

import pytest

from borough.adapters.bus import ProcessBus
from borough.core.errors import Conflict, Invalid
from borough.core.ids import AgentId
from borough.governance.messages import MOST_MAIL, MOST_SUBSCRIPTIONS, BusMessage, Mail
from borough.governance.ports.records import Bus
from tests.contracts.governance_kit import NOON

pytestmark = pytest.mark.anyio
ADA, BOB = AgentId("ada"), AgentId("bob")


@pytest.fixture
def bus() -> Bus:
    return ProcessBus()


def message(topic: str, payload: str = "1") -> BusMessage:
    return BusMessage(topic=topic, payload=payload, published_at=NOON, from_agent_id=BOB)


async def test_listeners_get_what_matches_in_order_and_once(bus: Bus) -> None:
    for pattern in ("build.*", "build.done", "build.**", "test/*"):
        await bus.subscribe(ADA, pattern)
    await bus.subscribe(BOB, "build.done")
    sent = [message("build.done"), message("build.step.one"), message("test/a"), message("test/a/b"), message("other")]
    assert [await bus.publish(each) for each in sent] == [2, 1, 1, 0, 0]
    assert await bus.poll(ADA) == Mail(messages=tuple(sent[:3]))
    assert await bus.poll(BOB) == Mail(messages=(sent[0],))
    assert await bus.poll(ADA) == Mail()


async def test_both_separators_end_a_segment(bus: Bus) -> None:
    await bus.subscribe(ADA, "a*")
    assert [await bus.publish(message(topic)) for topic in ("ab", "a.b", "a/b")] == [1, 0, 0]


async def test_a_full_mailbox_loses_the_oldest_and_tells_how_many(bus: Bus) -> None:
    await bus.subscribe(ADA, "**")
    for number in range(MOST_MAIL + 3):
        await bus.publish(message("n", str(number)))
    mail = await bus.poll(ADA)
    assert (len(mail.messages), mail.dropped) == (MOST_MAIL, 3)
    assert [mail.messages[0].payload, mail.messages[-1].payload] == ["3", str(MOST_MAIL + 2)]
    await bus.publish(message("n"))
    assert (await bus.poll(ADA)).dropped == 0


async def test_a_subscription_ends_by_its_exact_pattern_and_leaves_the_mail(bus: Bus) -> None:
    for pattern in ("b.*", "a", "a"):
        await bus.subscribe(ADA, pattern)
    assert await bus.subscriptions(ADA) == ("a", "b.*")
    await bus.publish(message("a"))
    assert [await bus.unsubscribe(ADA, pattern) for pattern in ("*", "a", "a", "b.*")] == [False, True, False, True]
    assert await bus.publish(message("a")) == await bus.publish(message("b.c")) == 0
    assert len((await bus.poll(ADA)).messages) == 1
    assert await bus.subscriptions(ADA) == ()


async def test_subscriptions_and_mail_end_with_the_agent(bus: Bus) -> None:
    for agent_id in (ADA, BOB):
        await bus.subscribe(agent_id, "a")
        await bus.subscribe(agent_id, "b.*")
    await bus.publish(message("a"))
    await bus.end(ADA)
    await bus.end(ADA)
    assert await bus.poll(ADA) == Mail()
    assert [await bus.publish(message(topic)) for topic in ("a", "b.c")] == [1, 1]
    assert await bus.subscriptions(ADA) == ()


async def test_an_agent_has_only_so_many_subscriptions_and_only_patterns(bus: Bus) -> None:
    for number in range(MOST_SUBSCRIPTIONS):
        await bus.subscribe(ADA, f"t.{number}")
    await bus.subscribe(ADA, "t.0")
    with pytest.raises(Conflict) as refused:
        await bus.subscribe(ADA, "one.more")
    assert refused.value.code == "too_many_subscriptions"
    with pytest.raises(Invalid):
        await bus.subscribe(BOB, "")
    assert await bus.publish(message("one.more")) == 0

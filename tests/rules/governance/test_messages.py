"""Topics, patterns and payloads on the bus."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.core.errors import Conflict, Forbidden, Invalid
from borough.governance.messages import (
    MOST_PAYLOAD_BYTES,
    MOST_SUBSCRIPTIONS,
    MOST_TOPIC_CHARACTERS,
    check_pattern,
    check_payload,
    check_subscriptions,
    check_topic,
    is_reserved,
)

segments = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)


@given(st.lists(segments, min_size=1, max_size=4), st.sampled_from("./"))
def test_a_plain_topic_may_be_used_and_matches_itself_and_its_neighbours_star(parts: list[str], separator: str) -> None:
    topic = separator.join(["t", *parts])
    assert check_topic(topic) == topic
    assert check_pattern(topic).matches(topic)
    assert check_pattern(separator.join(["t", *parts[:-1], "*"])).matches(topic)
    assert check_pattern("t**").matches(topic)


@pytest.mark.parametrize("topic", ["", "a*", "a\nb", "x" * (MOST_TOPIC_CHARACTERS + 1)])
def test_what_is_no_topic_is_refused(topic: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_topic(topic)
    assert refused.value.code == "invalid_topic"


@pytest.mark.parametrize("pattern", ["", "a\0", "*" * (MOST_TOPIC_CHARACTERS + 1)])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_pattern(pattern)
    assert refused.value.code == "invalid_topic"


@pytest.mark.parametrize("topic", ["scarab", "scarab.escalation.7", "scarab/escalation"])
def test_only_the_daemon_publishes_under_its_own_segment_and_everyone_may_listen(topic: str) -> None:
    with pytest.raises(Forbidden) as refused:
        check_topic(topic)
    assert refused.value.code == "reserved_topic"
    assert check_topic(topic, by_daemon=True) == topic
    assert check_pattern("scarab**").matches(topic)


@pytest.mark.parametrize("topic", ["scarabs", "scarabs.a", "a.scarab", "Scarab.a"])
def test_other_segments_are_everyones(topic: str) -> None:
    assert not is_reserved(topic)
    assert check_topic(topic) == topic


def test_a_payload_is_measured_in_bytes() -> None:
    most = "ä" * (MOST_PAYLOAD_BYTES // 2)
    assert check_payload(most) == most
    with pytest.raises(Invalid) as refused:
        check_payload(most + "x")
    assert refused.value.code == "payload_too_long"


def test_one_more_subscription_is_let_in_below_the_limit_only() -> None:
    check_subscriptions(MOST_SUBSCRIPTIONS - 1)
    with pytest.raises(Conflict) as refused:
        check_subscriptions(MOST_SUBSCRIPTIONS)
    assert refused.value.code == "too_many_subscriptions"

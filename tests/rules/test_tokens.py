import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.auth.scopes import Scope
from borough.auth.tokens import PREFIX, SignedTokens, is_worker_token
from borough.core.errors import Forbidden
from borough.core.ids import AgentId, TaskId, derived_id

TOKENS = SignedTokens(b"k" * 32)
ADA = AgentId(derived_id("ada"))
WORK = TaskId(derived_id("work"))


def test_a_workers_token_says_whom_it_speaks_for() -> None:
    principal = TOKENS.verify(TOKENS.mint(agent_id=ADA, incarnation=3))
    assert principal.id == f"worker:{ADA}"
    assert principal.scopes == {Scope.READ}
    assert principal.worker is not None
    assert (principal.worker.agent_id, principal.worker.incarnation) == (ADA, 3)
    assert (principal.worker.task_id, principal.worker.epoch) == (None, None)


def test_an_attempts_token_may_also_write_and_names_its_epoch() -> None:
    principal = TOKENS.verify(TOKENS.mint(agent_id=ADA, incarnation=3, task_id=WORK, epoch=7))
    assert principal.scopes == {Scope.READ, Scope.WRITE}
    assert principal.worker is not None
    assert (principal.worker.task_id, principal.worker.epoch) == (WORK, 7)


def test_half_an_attempt_cannot_be_minted() -> None:
    with pytest.raises(ValueError, match="attempt"):
        TOKENS.mint(agent_id=ADA, incarnation=1, task_id=WORK)
    with pytest.raises(ValueError, match="attempt"):
        TOKENS.mint(agent_id=ADA, incarnation=1, epoch=1)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SignedTokens(b"short")


def test_another_towns_token_is_refused() -> None:
    other = SignedTokens(b"o" * 32).mint(agent_id=ADA, incarnation=1)
    with pytest.raises(Forbidden) as refusal:
        TOKENS.verify(other)
    assert refusal.value.code == "invalid_credentials"
    assert other not in str(refusal.value)


@given(position=st.integers(min_value=0, max_value=10_000), replacement=st.characters())
def test_no_change_of_a_single_character_survives(position: int, replacement: str) -> None:
    token = TOKENS.mint(agent_id=ADA, incarnation=3, task_id=WORK, epoch=7)
    position %= len(token)
    tampered = token[:position] + replacement + token[position + 1 :]
    if tampered == token:
        assert TOKENS.verify(tampered).worker is not None
    else:
        with pytest.raises(Forbidden):
            TOKENS.verify(tampered)


@given(st.text(max_size=600))
def test_arbitrary_text_is_refused_and_never_an_accident(text: str) -> None:
    with pytest.raises(Forbidden):
        TOKENS.verify(PREFIX + text)
    with pytest.raises(Forbidden):
        TOKENS.verify(text)


@given(incarnation=st.integers(min_value=0, max_value=2**53), epoch=st.integers(min_value=0, max_value=2**53))
def test_numbers_come_back_as_they_were(incarnation: int, epoch: int) -> None:
    worker = TOKENS.verify(TOKENS.mint(agent_id=ADA, incarnation=incarnation, task_id=WORK, epoch=epoch)).worker
    assert worker is not None
    assert (worker.incarnation, worker.epoch) == (incarnation, epoch)


def test_parts_of_two_tokens_do_not_make_a_third() -> None:
    first = TOKENS.mint(agent_id=ADA, incarnation=1)
    second = TOKENS.mint(agent_id=ADA, incarnation=2)
    mixed = second.split(".")[0] + "." + first.split(".")[1]
    with pytest.raises(Forbidden):
        TOKENS.verify(mixed)


def test_only_the_prefix_makes_a_workers_token() -> None:
    assert is_worker_token(TOKENS.mint(agent_id=ADA, incarnation=1))
    assert not is_worker_token("0" * 64)


def test_verifying_is_fast() -> None:
    token = TOKENS.mint(agent_id=ADA, incarnation=3, task_id=WORK, epoch=7)
    best = min(timeit.repeat(lambda: TOKENS.verify(token), number=500, repeat=5)) / 500
    # Ten times the goal of 20 µs: this may fail on a change of kind, never on a busy machine.
    assert best < 200e-6

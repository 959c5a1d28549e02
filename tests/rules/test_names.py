"""Names become files, keys and arguments: only harmless ones pass."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.core.errors import Invalid
from borough.town.names import NAME_PATTERN, agent_name, role_name, suggested_name, town_name


@pytest.mark.parametrize("name", ["worker-1", "a", "conductor-helper", "x" * 63, "0_0"])
def test_plain_names_pass(name: str) -> None:
    assert agent_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "Worker", "a b", "../etc", "$(touch x)", "-a", "x" * 64, "a\n", "ä", "a/b", "a:b"]
)
def test_everything_else_is_refused_with_a_way_out(name: str) -> None:
    with pytest.raises(Invalid) as refusal:
        agent_name(name)
    assert refusal.value.code == "invalid_name"
    assert refusal.value.resolution


@pytest.mark.parametrize("name", ["supervisor", "Conductor", " supervisor "])
def test_the_supervisors_names_are_reserved(name: str) -> None:
    with pytest.raises(Invalid) as refusal:
        agent_name(name)
    assert refusal.value.code == "reserved_name"


@pytest.mark.parametrize("name", ["*", "a b", "", "x" * 64, "a:b", "{a}"])
def test_towns_cannot_be_patterns(name: str) -> None:
    with pytest.raises(Invalid):
        town_name(name)


def test_towns_may_be_called_after_folders() -> None:
    assert town_name("Borough-main.2") == "Borough-main.2"


def test_roles_follow_the_same_rule() -> None:
    assert role_name("backend") == "backend"
    with pytest.raises(Invalid):
        role_name("Back End")


@given(st.text(max_size=200))
def test_every_suggestion_is_a_name(text: str) -> None:
    assert re.fullmatch(NAME_PATTERN, suggested_name(text))

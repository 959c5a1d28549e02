"""Editing a manifest's document: fewer capabilities, absolute paths, and what a child may see of the host."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.core.errors import Forbidden, Invalid
from borough.governance.documents import dump_document, load_document
from borough.governance.manifest_editing import (
    Document,
    check_host_paths,
    with_absolute_paths,
    with_capabilities,
    with_program,
)
from borough.governance.manifest_reading import parse_manifest
from borough.governance.manifests import Manifest

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def document(**spec: Any) -> Document:
    return {
        "apiVersion": "scarab/v1",
        "kind": "AgentManifest",
        "metadata": {"name": "a", "version": "1.0.0"},
        "spec": {"trust_level": "trusted", **spec},
    }


def manifest(**spec: Any) -> Manifest:
    return parse_manifest(dump_document(document(**spec)))


@given(PLAIN)
def test_what_is_written_is_read_as_the_same(value: Any) -> None:
    assert load_document(dump_document(value)) == value


@pytest.mark.parametrize(
    "text", ["no", "0o17", "0x1F", "1e3", "~", "null", "- a", "a: b", "", " ", "\x85", "\ud7ff", "😀"]
)
def test_text_stays_text(text: str) -> None:
    assert load_document(dump_document({"key": text})) == {"key": text}


def test_other_capabilities_take_the_place_of_the_manifests() -> None:
    edited = with_capabilities(
        document(
            capabilities=["fs.read", "obs.append"],
            policy=[
                {"id": "a", "effect": "allow", "capability": "memory.read:a"},
                {"id": "b", "effect": "ask", "capability": "fs.read:/b"},
                {"id": "c", "effect": "deny", "capability": "fs.read:/c"},
            ],
        ),
        ["memory.read:*"],
    )
    read = parse_manifest(dump_document(edited))
    assert [str(one) for one in read.capabilities] == ["memory.read:*"]
    assert [rule.id for rule in read.policy] == ["a", "c"]


def test_paths_begin_where_the_manifest_lies() -> None:
    edited = with_absolute_paths(
        document(command="./bin/agent", entrypoint="main.py", workspace={"base": "../data", "auto_snapshot": True}),
        "/opt/agents/one",
    )
    assert edited["spec"] == {
        "trust_level": "trusted",
        "command": "/opt/agents/one/bin/agent",
        "entrypoint": "/opt/agents/one/main.py",
        "workspace": {"base": "/opt/agents/data", "auto_snapshot": True},
    }
    untouched = document(command="python3", workspace={"base": "/srv"})
    assert with_absolute_paths(untouched, "/opt") == untouched
    in_the_workspace = document(command="./agent", entrypoint="main.py")
    assert with_absolute_paths(in_the_workspace, None) == in_the_workspace
    with pytest.raises(Invalid) as refused:
        with_absolute_paths(document(workspace={"base": "data"}), None)
    assert refused.value.code == "workspace_base"


def test_a_program_can_be_put_in() -> None:
    assert parse_manifest(dump_document(with_program(document(), "/opt/a/a"))).program.command == "/opt/a/a"


@pytest.mark.parametrize(
    ("child", "parent"),
    [
        ({"workspace": {"base": "/srv/a"}}, {}),
        ({"workspace": {"base": "/srv/ab"}}, {"workspace": {"base": "/srv/a"}}),
        ({"workspace": {"base": "/srv/a/../b"}}, {"workspace": {"base": "/srv/a"}}),
        ({"command": "/root/.netrc"}, {}),
        ({"command": "/usr/../root/.netrc"}, {}),
        ({"runtime": "python", "entrypoint": "/home/x/key"}, {"command": "/opt/x"}),
    ],
)
def test_a_child_is_not_shown_more_of_the_host(child: dict[str, Any], parent: dict[str, Any]) -> None:
    with pytest.raises(Forbidden) as refused:
        check_host_paths(manifest(**child), manifest(**parent), installed=False)
    assert refused.value.code == "workspace_escalation_denied"


@pytest.mark.parametrize(
    ("child", "parent"),
    [
        ({}, {}),
        ({"workspace": {"base": "/srv/a/b"}}, {"workspace": {"base": "/srv/a"}}),
        ({"command": "/usr/bin/python3"}, {}),
        ({"command": "sh"}, {}),
        ({"command": "./made/here"}, {}),
        ({"command": "/opt/x"}, {"command": "/opt/x"}),
    ],
)
def test_a_child_may_be_shown_what_its_parent_is(child: dict[str, Any], parent: dict[str, Any]) -> None:
    check_host_paths(manifest(**child), manifest(**parent), installed=False)


def test_an_installed_program_is_an_operators_choice() -> None:
    check_host_paths(manifest(command="/opt/installed"), manifest(), installed=True)

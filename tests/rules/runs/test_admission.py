"""Whether, where and under what a run may be."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.core.errors import Invalid
from borough.fleet.engines import ISOLATION, Capability, Engine
from borough.fleet.placement import NotPlaced, Plan, place
from borough.governance.budgets import Limits
from borough.governance.hosts import NetworkPolicy, parse_allowed
from borough.governance.manifests import Layer, Manifest, Network, Program
from borough.governance.trust import TrustLevel
from borough.runs.admission import (
    FLOORS,
    NO_ROOM_TOLD,
    READY_TOLD,
    Place,
    Ready,
    Start,
    admit,
    allowed_engines,
    floor_of,
    needs_of,
    reserved_elsewhere,
)
from borough.runs.orders import Budget, Isolation, RunOrder, Source, SourceKind, check_order
from tests.contracts.fleet_kit import a_host, a_spec

levels, walls = st.sampled_from(list(TrustLevel)), st.sampled_from(list(Isolation))
engines = st.sampled_from(list(Engine))


def a_manifest(trust: TrustLevel = TrustLevel.SANDBOXED, **other: Any) -> Manifest:
    return replace(Manifest(name="worker", version="1.0.0", trust_level=trust), **other)


def an_order(**other: Any) -> RunOrder:
    return replace(RunOrder(task="a task", command=("true",), image="base"), **other)


def somewhere(engine: Engine) -> Place:
    plan = place([a_spec(engine=Engine.BUBBLEWRAP)], [a_host("h1")])
    assert isinstance(plan, Plan)
    return Place(engine=engine, plan=plan)


def nowhere(engine: Engine) -> Place:
    plan = place([a_spec(engine=engine)], [a_host("h1", cordoned=True)])
    assert isinstance(plan, NotPlaced)
    return Place(engine=engine, plan=plan)


@given(levels, walls)
def test_the_floor_is_never_below_what_was_asked_for_nor_below_what_trust_allows(
    trust: TrustLevel, asked: Isolation
) -> None:
    floor = floor_of(trust, asked)
    assert floor.rank >= asked.rank
    assert floor.rank >= FLOORS[trust].rank
    assert floor in (asked, FLOORS[trust])


@given(levels, walls, st.one_of(st.none(), engines), st.sets(engines), st.sets(engines))
def test_no_run_is_ever_admitted_behind_a_weaker_wall(
    trust: TrustLevel, asked: Isolation, engine: Engine | None, free: set[Engine], full: set[Engine]
) -> None:
    order = an_order(isolation=asked, engine=engine)
    places = [*map(somewhere, sorted(free)), *map(nowhere, sorted(full - free))]
    decided = admit(order, a_manifest(trust), places)
    good = {each for each in free if ISOLATION[each] >= floor_of(trust, asked).rank and engine in (None, each)}
    assert decided.ok is bool(good)
    if decided.engine is not None:
        assert decided.engine in good
        assert ISOLATION[decided.engine] == min(ISOLATION[each] for each in good)
    else:
        assert decided.reasons


def test_a_machine_that_stands_ready_comes_first_and_says_so() -> None:
    ready = Place(engine=Engine.DOCKER, plan=Ready(host_id="h1"))
    decided = admit(an_order(), a_manifest(), [nowhere(Engine.BUBBLEWRAP), ready, somewhere(Engine.QEMU)])
    assert (decided.ok, decided.engine, decided.host_id, decided.start) == (True, Engine.DOCKER, "h1", Start.WARM)
    assert decided.reasons[0].reason == READY_TOLD
    cold = admit(an_order(), a_manifest(), [somewhere(Engine.DOCKER)])
    assert cold.start is Start.COLD
    assert decided.expected_start_ms < cold.expected_start_ms
    measured = {(Engine.DOCKER, Start.WARM): 42, (Engine.DOCKER, Start.COLD): 777}
    assert admit(an_order(), a_manifest(), [ready], measured_ms=measured).expected_start_ms == 42
    assert not admit(an_order(isolation=Isolation.VM), a_manifest(), [ready]).ok, "it is no exception to the floor"


def test_what_was_reserved_is_what_is_told() -> None:
    seen = admit(an_order(), a_manifest(), [somewhere(Engine.BUBBLEWRAP)])
    other = reserved_elsewhere(seen, "h2", ())
    assert (other.ok, other.host_id, other.reasons[0].subject) == (True, "h2", "h2")
    waits = reserved_elsewhere(seen, None, ("waits for room: too little", "h1: cpu 0 of 1 needed"))
    assert (waits.ok, waits.host_id) == (True, None)
    told = [(each.subject, each.reason) for each in waits.reasons]
    assert told == [
        ("bubblewrap", NO_ROOM_TOLD), ("waits for room", "too little"), ("h1", "cpu 0 of 1 needed"),
    ]  # fmt: skip


def test_where_there_is_no_room_now_it_waits_for_some() -> None:
    waits = replace(nowhere(Engine.BUBBLEWRAP), later=True)
    decided = admit(an_order(), a_manifest(), [waits, nowhere(Engine.QEMU)])
    assert (decided.ok, decided.engine, decided.host_id) == (True, Engine.BUBBLEWRAP, None)
    assert "waits" in decided.reasons[0].reason
    strong = admit(an_order(isolation=Isolation.VM), a_manifest(), [waits])
    assert not strong.ok
    assert admit(an_order(), a_manifest(), [waits, somewhere(Engine.DOCKER)]).engine is Engine.DOCKER


def test_why_not_names_weak_engines_and_full_hosts() -> None:
    decided = admit(an_order(isolation=Isolation.CONTAINER), a_manifest(), [nowhere(Engine.QEMU)])
    assert not decided.ok
    told = {each.subject: each.reason for each in decided.reasons}
    assert "isolates less than container" in told["bubblewrap"]
    assert "cordoned" in told["h1"]


def test_code_of_nobody_s_gets_a_kernel_of_its_own() -> None:
    allowed, weak = allowed_engines(floor_of(TrustLevel.UNTRUSTED, Isolation.PROCESS), None)
    assert {ISOLATION[engine] for engine in allowed} == {Isolation.VM.rank}
    assert {each.subject for each in weak} >= {"bubblewrap", "docker"}


def test_without_a_command_there_is_no_run() -> None:
    decided = admit(an_order(command=()), a_manifest(), [somewhere(Engine.BUBBLEWRAP)])
    assert (decided.ok, decided.reasons[-1].subject) == (False, "command")
    told = a_manifest(program=Program(command="agent"))
    assert admit(an_order(command=()), told, [somewhere(Engine.BUBBLEWRAP)]).ok


@given(st.one_of(st.none(), st.integers(0, 100)), st.one_of(st.none(), st.integers(0, 100)))
def test_a_budget_is_never_more_than_the_manifest_gives(given_: int | None, asked: int | None) -> None:
    manifest = a_manifest(budget=Limits(calls=given_, tokens=given_, cost_micros=given_))
    budget = Budget(tool_calls=asked, tokens=asked, cost_micros=asked)
    found = admit(an_order(budget=budget), manifest, [somewhere(Engine.BUBBLEWRAP)]).budget
    least = min((value for value in (given_, asked) if value is not None), default=None)
    assert (found.tool_calls, found.tokens, found.cost_micros) == (least, least, least)


def test_the_network_is_what_the_manifest_lists() -> None:
    listed = Network(policy=NetworkPolicy.ALLOWLIST, allowlist=(parse_allowed("api.example.org:443"),))
    places = [somewhere(Engine.BUBBLEWRAP)]
    assert admit(an_order(), a_manifest(network=listed), places).domains == ("api.example.org:443",)
    assert admit(an_order(), a_manifest(network=Network(policy=NetworkPolicy.FULL)), places).domains == ("*",)
    assert admit(an_order(), a_manifest(), places).domains == ()


@pytest.mark.parametrize(
    ("url", "listed", "why"),
    [
        ("https://git.example.org/a.git", "git.example.org:443", None),
        ("http://[2001:db8::1]:8080/a", "[2001:db8::1]:8080", None),
        ("https://git.example.org:8443/a.git", "git.example.org:443", "does not reach git.example.org:8443"),
        ("https://GIT.example.org", "*.example.org:*", None),
        ("ssh://git@git.example.org/a.git", "git.example.org:22", "does not pass the proxy"),
        ("git://git.example.org/a.git", "*.example.org:*", "does not pass the proxy"),
    ],
)
def test_a_remote_is_cloned_only_by_the_way_that_the_manifest_leaves_open(
    url: str, listed: str, why: str | None
) -> None:
    order = check_order(an_order(source=Source(kind=SourceKind.GIT, url=url)))
    network = Network(policy=NetworkPolicy.ALLOWLIST, allowlist=(parse_allowed(listed),))
    decided = admit(order, a_manifest(network=network), [replace(somewhere(Engine.BUBBLEWRAP), tools=True)])
    assert decided.ok is (why is None)
    assert why is None or any(each.subject == "source" and why in each.reason for each in decided.reasons)
    assert not admit(order, a_manifest(), [somewhere(Engine.BUBBLEWRAP)]).ok
    open_to_all = a_manifest(network=Network(policy=NetworkPolicy.FULL))
    assert admit(order, open_to_all, [somewhere(Engine.QEMU)]).ok, "where there is no list, there is no proxy"


def test_a_layer_that_a_manifest_requires_is_asked_of_the_engine() -> None:
    assert Capability.MEMORY_LIMIT in needs_of(a_manifest(require=frozenset({Layer.CGROUPS})))
    assert Capability.MEMORY_LIMIT not in needs_of(a_manifest())


@pytest.mark.parametrize(
    "source",
    [
        Source(kind=SourceKind.FOLDER, path="here"),
        Source(kind=SourceKind.FOLDER, path="/here", url="https://example.org/x"),
        Source(kind=SourceKind.GIT, url="file:///etc"),
        Source(kind=SourceKind.GIT, url="https://example.org/x", ref="--upload-pack=evil"),
        Source(kind=SourceKind.GIT, url="--upload-pack=evil"),
        Source(kind=SourceKind.GIT, url="https://me:secret@example.org/x"),
        Source(kind=SourceKind.GIT, url="https://token@example.org/x"),
        Source(kind=SourceKind.GIT, url="https://example.org:99999/x"),
        Source(kind=SourceKind.GIT, url="https://0177.1/x"),
        Source(kind=SourceKind.UPLOAD, path="/here"),
    ],
)
def test_what_is_no_source_is_refused(source: Source) -> None:
    with pytest.raises(Invalid) as refused:
        check_order(an_order(source=source))
    assert refused.value.code == "invalid_source"


def test_a_run_has_one_manifest() -> None:
    with pytest.raises(Invalid) as refused:
        check_order(an_order(manifest="text", agent="name"))
    assert refused.value.code == "two_manifests"

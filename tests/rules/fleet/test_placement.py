"""Placement: never more than there is, always the same answer, and a reason for every host that was not chosen."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from borough.fleet.engines import Capability, Engine, Offer
from borough.fleet.environments import Spread
from borough.fleet.fitness import Constraints
from borough.fleet.hosts import Host, HostState, Pressure
from borough.fleet.placement import NotPlaced, Plan, place, unplaceable
from borough.fleet.resources import Resource, Size
from borough.fleet.storage import Storage
from borough.fleet.vms import Origin, VmSpec
from tests.contracts.fleet_kit import a_host, a_report, a_spec, fresh_vm_id


def host(name: str, *, cpu: int = 4, mem: int = 4096, disk: int = 100_000, **other: Any) -> Host:
    return a_host(name, room=Resource(cpu_total=cpu, mem_total=mem, disk_total=disk), **other)


def chosen(plan: Plan | NotPlaced) -> list[str]:
    assert isinstance(plan, Plan), plan
    return [each.host_id for each in plan.placed]


def refused(plan: Plan | NotPlaced) -> NotPlaced:
    assert isinstance(plan, NotPlaced)
    return plan


def test_the_fullest_host_that_fits_is_taken() -> None:
    small, large = host("small"), host("large", cpu=16, mem=32_768)
    assert chosen(place([a_spec()], [large, small])) == ["small"]


def test_machines_go_on_to_the_next_host_when_one_is_full() -> None:
    plan = place([a_spec(cpu=2)] * 3, [host("a"), host("b")])
    assert chosen(plan) == ["a", "a", "b"]
    assert isinstance(plan, Plan)
    assert plan.placed[2].others == {"a": "too little is free: cpu 0 of 2 needed"}
    assert "least free memory" in plan.placed[0].why


def test_spread_takes_as_many_hosts_as_can_be() -> None:
    hosts = [host("a"), host("b"), host("c")]
    assert sorted(chosen(place([a_spec()] * 3, hosts, Constraints(spread=Spread.SPREAD)))) == ["a", "b", "c"]
    assert chosen(place([a_spec()] * 3, hosts)) == ["a", "a", "a"]


def test_no_machines_are_a_plan() -> None:
    assert chosen(place([], [])) == []


@pytest.mark.parametrize(
    ("change", "spec", "told"),
    [
        ({"state": HostState.OFFLINE}, {}, "no online hosts"),
        ({"cordoned": True}, {}, "cordoned"),
        ({"draining": True}, {}, "drained"),
        ({}, {"engine": Engine.FIRECRACKER}, "engine=firecracker"),
        ({}, {"deny_outgoing": True, "engine": Engine.BUBBLEWRAP}, "can do what was asked for"),
        ({}, {"cpu": 5}, "no host has enough resources for engine=qemu cpu=5 mem=512 disk=1000"),
        ({}, {"mem_mib": 5000}, "resources"),
        ({}, {"disk_mib": 200_000}, "resources"),
        ({}, {"image": "absent"}, "image 'absent'"),
    ],
)
def test_the_reason_is_that_of_the_hosts_that_came_furthest(
    change: dict[str, Any], spec: dict[str, Any], told: str
) -> None:
    failure = refused(place([a_spec(**spec)], [host("a", **change)]))
    assert told in failure.reason
    assert set(failure.hosts) == {"a"}
    error = unplaceable(failure)
    assert (error.code, error.message) == ("unschedulable", failure.reason)
    assert "a: " in str(error.reason)


def test_without_hosts_the_answer_is_that_there_are_none() -> None:
    assert refused(place([a_spec()], [])).reason == "no online hosts"


def test_a_host_under_strain_takes_nothing_more() -> None:
    strained = host("a")
    strained = replace(strained, report=replace(strained.report, pressure=Pressure(memory_some_avg10=50)))
    failure = refused(place([a_spec()], [strained]))
    assert "just now" in failure.reason
    assert "waits for memory" in failure.hosts["a"]


def test_containers_need_no_image_on_the_host() -> None:
    docker = replace(a_report("a").offers[0], engine=Engine.DOCKER)
    there = replace(host("a"), report=replace(host("a").report, offers=(docker,), images=()))
    assert chosen(place([a_spec(engine=Engine.DOCKER, image="nginx:alpine")], [there])) == ["a"]


def holding(there: Host, *images: str, storage: Storage = Storage.FILE) -> Host:
    digests = dict.fromkeys(images, "sha256:ab")
    return replace(there, report=replace(there.report, images=images, image_digests=digests, storage=storage))


def test_an_image_that_another_host_has_is_brought_and_that_is_told() -> None:
    full, empty = holding(host("full", cpu=1), "tiny"), holding(host("empty"))
    plan = place([a_spec(image="tiny", cpu=2)], [full, empty])
    assert chosen(plan) == ["empty"]
    assert isinstance(plan, Plan)
    assert plan.placed[0].why.endswith("; the image tiny is brought from full")


def test_an_image_is_for_engines_that_can_start_from_it_and_that_is_told_before_anything_is_made() -> None:
    offers = tuple(replace(host("a").report.offers[0], engine=engine) for engine in (Engine.QEMU, Engine.BUBBLEWRAP))
    folder = replace(holding(host("a"), "tree", "old"), labels={})
    has = replace(folder.report, offers=offers, image_engines={"tree": frozenset({Engine.BUBBLEWRAP, Engine.JAIL})})
    knows, lacks = replace(folder, report=has), replace(host("b"), report=replace(host("b").report, offers=offers))
    failure = refused(place([a_spec(image="tree", engine=Engine.QEMU)], [knows, lacks]))
    assert failure.reason == "no host's image 'tree' is one that engine=qemu can start from"
    assert failure.hosts["a"] == "its image 'tree' is one that bubblewrap, jail can start from, and qemu cannot"
    assert failure.hosts["b"].startswith("it has no image 'tree'"), "it would not be of use there either"
    assert chosen(place([a_spec(image="tree", engine=Engine.BUBBLEWRAP)], [knows])) == ["a"]
    assert chosen(place([a_spec(image="old", engine=Engine.QEMU)], [knows])) == ["a"], "an older host does not tell"


def test_a_host_that_has_the_image_comes_first_unless_machines_are_to_be_spread() -> None:
    hosts = [holding(host("has", mem=8192), "tiny"), holding(host("fits-better", mem=2048))]
    plan = place([a_spec(image="tiny")], hosts)
    assert chosen(plan) == ["has"]
    assert isinstance(plan, Plan)
    assert "brought" not in plan.placed[0].why
    assert chosen(place([a_spec(image="tiny")] * 2, hosts, Constraints(spread=Spread.SPREAD))) == ["has", "fits-better"]


def test_an_image_comes_only_from_a_host_that_is_there_and_stores_images_alike() -> None:
    wants = holding(host("wants"))
    gone = replace(holding(host("gone"), "tiny"), state=HostState.OFFLINE)
    volumes = holding(host("volumes", cpu=1), "tiny", storage=Storage.ZVOL)
    failure = refused(place([a_spec(image="tiny", cpu=2)], [wants, gone, volumes]))
    assert "image 'tiny'" in failure.reason
    assert failure.hosts["wants"] == "it has no image 'tiny', nor has another host from which it could come"


def test_what_an_engine_cannot_do_there_is_told_with_its_reason() -> None:
    offer = replace(a_report("a").offers[0], capabilities=frozenset(), reasons={Capability.EXEC: "no guest agent"})
    there = replace(host("a"), report=replace(host("a").report, offers=(offer,)))
    failure = refused(place([a_spec(required=frozenset({Capability.EXEC}))], [there]))
    assert failure.hosts["a"] == "its qemu lacks exec: no guest agent"


def test_a_clone_goes_where_its_snapshot_is_and_nowhere_else() -> None:
    able = Offer(engine=Engine.QEMU, capabilities=frozenset({Capability.CLONE}))
    full, there, other = (
        replace(host(name), report=replace(host(name).report, offers=(able,), images=()))
        for name in ("full", "there", "other")
    )
    clone = a_spec(origin=Origin(vm_id=fresh_vm_id(), snapshot="first", host_id="there"), image="gone")
    plan = place([clone], [full, there, other])
    assert chosen(plan) == ["there"]
    assert isinstance(plan, Plan)
    assert plan.placed[0].why.startswith("it has the snapshot")
    assert "is kept on there" in plan.placed[0].others["other"]
    assert "it is cordoned" in refused(place([clone], [other, replace(there, cordoned=True)])).hosts["there"]
    assert "that has the snapshot" in refused(place([clone], [other])).reason
    unable = replace(there, report=replace(there.report, offers=(replace(able, capabilities=frozenset()),)))
    assert "lacks clone" in refused(place([clone], [unable])).hosts["there"]


def test_labels_neighbours_and_walls_are_constraints() -> None:
    fast, slow = host("fast", labels={"disk": "ssd"}), host("slow")
    tenants = {"fast": frozenset({"db"}), "slow": frozenset({"web"})}
    hosts = [slow, fast]

    def where(**constraints: Any) -> list[str]:
        return chosen(place([a_spec()], hosts, Constraints(**constraints), tenants=tenants))

    assert where(labels={"disk": "ssd"}) == ["fast"]
    assert where(near=frozenset({"db"})) == ["fast"]
    assert where(apart=frozenset({"db"})) == ["slow"]
    assert where(isolation=3) == ["slow"]
    weak = place([a_spec(engine=Engine.BUBBLEWRAP)], hosts, Constraints(isolation=2))
    assert "constraints" in refused(weak).reason
    nowhere = place([a_spec()], hosts, Constraints(labels={"disk": "tape"}))
    assert set(refused(nowhere).hosts.values()) == {"it has no label disk=tape"}


_ENGINES = st.sampled_from([Engine.QEMU, Engine.BUBBLEWRAP, Engine.FIRECRACKER])
_SPECS = st.builds(
    lambda cpu, mem, engine, image, deny: a_spec(cpu=cpu, mem_mib=mem, engine=engine, image=image, deny_outgoing=deny),
    st.integers(1, 6),
    st.integers(1, 4000),
    _ENGINES,
    st.sampled_from(["base", "base", "base", "other"]),
    st.booleans(),
)
_HOSTS = st.lists(
    st.builds(
        lambda cpu, mem, used, state, cordoned, labels, avg: (cpu, mem, used, state, cordoned, labels, avg),
        st.integers(0, 16),
        st.integers(0, 8000),
        st.integers(0, 8),
        st.sampled_from([HostState.ONLINE, HostState.ONLINE, HostState.OFFLINE]),
        st.booleans(),
        st.sampled_from([{}, {"a": "b"}]),
        st.sampled_from([0.0, 0.0, 90.0]),
    ),
    max_size=6,
)
_CONSTRAINTS = st.builds(
    lambda spread, labels, apart, isolation: Constraints(
        spread=spread, labels=labels, apart=frozenset(apart), isolation=isolation
    ),
    st.sampled_from(Spread),
    st.sampled_from([{}, {}, {"a": "b"}]),
    st.sets(st.sampled_from(["e1", "e2"]), max_size=1),
    st.integers(0, 3),
)


def _made(number: int, drawn: tuple[Any, ...]) -> Host:
    cpu, mem, used, state, cordoned, labels, avg = drawn
    room = Resource(cpu_total=cpu, cpu_used=used, mem_total=mem, disk_total=10_000)
    report = a_report(f"h{number}", room=room, pressure=Pressure(memory_some_avg10=avg))
    return a_host(f"h{number}", report=report, state=state, cordoned=cordoned, labels=labels)


@settings(max_examples=300, deadline=None)
@given(st.lists(_SPECS, max_size=6), _HOSTS, _CONSTRAINTS)
def test_whatever_is_asked_for(specs: list[VmSpec], drawn: list[tuple[Any, ...]], constraints: Constraints) -> None:
    hosts = [_made(number, each) for number, each in enumerate(drawn)]
    tenants = {"h0": frozenset({"e1"})}
    plan = place(specs, hosts, constraints, tenants=tenants)
    again = place(specs, hosts, constraints, tenants=tenants)
    assert plan == again, "the same question has the same answer"
    by_id = {each.id: each for each in hosts}
    if isinstance(plan, NotPlaced):
        assert set(plan.hosts) == set(by_id)
        assert all(plan.hosts.values())
        # What cannot be placed among others may be placeable alone, but what fits nowhere alone is never placed.
        assert len(specs) > plan.number
        return
    left = {each.id: each.report.resource for each in hosts}
    for placed, spec in zip(plan.placed, specs, strict=True):
        taken = by_id[placed.host_id]
        assert placed.spec == spec
        assert left[placed.host_id].fits(spec.size), "never over capacity"
        left[placed.host_id] = left[placed.host_id].with_one_more(spec.size)
        assert taken.state is HostState.ONLINE
        assert not taken.cordoned
        offer = taken.offer(spec.engine)
        assert offer is not None
        assert spec.needs <= offer.capabilities
        assert spec.image in taken.report.images
        assert constraints.labels.items() <= taken.labels.items()
        assert not (constraints.apart and tenants.get(taken.id, frozenset()) & constraints.apart)
        assert set(placed.others) == set(by_id) - {placed.host_id}, "every other host has its reason"
        assert all(placed.others.values())


@given(_HOSTS, _SPECS)
def test_a_host_that_fits_is_refused_for_no_reason_of_its_own(drawn: list[tuple[Any, ...]], spec: VmSpec) -> None:
    hosts = [_made(number, each) for number, each in enumerate(drawn)]
    together = place([spec], hosts)
    alone = {each.id for each in hosts if isinstance(place([spec], [each]), Plan)}
    if isinstance(together, Plan):
        (placed,) = together.placed
        assert placed.host_id in alone
        fitting = {name for name, why in placed.others.items() if "fits better" in why}
        assert fitting | {placed.host_id} == alone
    else:
        assert not alone


def test_sizes_are_compared_in_every_dimension() -> None:
    whole = Size(cpu=4, mem_mib=4096, disk_mib=100_000)
    exact = a_spec(cpu=whole.cpu, mem_mib=whole.mem_mib, disk_mib=whole.disk_mib)
    assert chosen(place([exact], [host("a")])) == ["a"]

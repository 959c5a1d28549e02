"""Machines, environments, hosts, operations: what may become of them, and when."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.core.errors import Conflict, Invalid
from borough.fleet.engines import Capability, Engine
from borough.fleet.environments import (
    MOST_LABELS,
    Due,
    Environment,
    EnvState,
    check_labels,
    due,
    lifetime_of,
    reference_state,
    state_of,
)
from borough.fleet.hosts import Pressure, check_address, is_silent, reserve_mib, strain
from borough.fleet.operations import OperationKind, OperationState, concluded, progressed
from borough.fleet.services.operations import new_operation
from borough.fleet.vms import MOVES, REFERENCE_STATES, VmState, check_move, check_vm_id, vm_id_of, vm_spec
from tests.contracts.fleet_kit import a_host, a_spec, a_vm

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ENVIRONMENT = Environment(id="e", owner="", created_at=NOON, expires_at=NOON + timedelta(hours=6))
STATES = list(VmState)


@pytest.mark.parametrize(("before", "to"), list(product(STATES, STATES)))
def test_a_machine_moves_as_the_table_says(before: VmState, to: VmState) -> None:
    vm = replace(a_vm("e", "h", a_spec()), state=before)
    if to is before or to in MOVES[before]:
        assert check_move(vm, to) is to
    else:
        with pytest.raises(Conflict) as refused:
            check_move(vm, to)
        assert refused.value.code == "illegal_state"


def test_the_table_knows_every_state_and_nothing_comes_back_from_deletion() -> None:
    assert set(MOVES) == set(VmState)
    assert not MOVES[VmState.DELETING] - {VmState.DELETING}
    assert all(VmState.DELETING in MOVES[state] for state in VmState if state is not VmState.DELETING)


def test_the_reference_is_told_states_that_it_knows() -> None:
    told = {REFERENCE_STATES.get(state, state).value for state in VmState}
    assert told == {"creating", "running", "paused", "stopped", "failed"}


@pytest.mark.parametrize(
    ("state", "desired", "counts"),
    [(VmState.STOPPED, VmState.STOPPED, False), (VmState.STOPPED, VmState.RUNNING, True)]
    + [(state, VmState.STOPPED, True) for state in VmState if state is not VmState.STOPPED],
)
def test_everything_counts_that_may_run(state: VmState, desired: VmState, *, counts: bool) -> None:
    assert replace(a_vm("e", "h", a_spec()), state=state, desired=desired).runs is counts


def test_ids_of_machines_are_the_beginning_of_a_uuid() -> None:
    assert vm_id_of("1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed") == "1b9d6bcd-bbf"
    for wrong in ("", "1B9D6BCD-BBF", "1b9d6bcd-bbfd", "../../../etc"):
        with pytest.raises(ValueError, match="not a machine's id"):
            check_vm_id(wrong)


def test_a_spec_has_the_defaults_of_the_reference() -> None:
    spec = vm_spec(image="debian-cloud", engine=Engine.QEMU)
    assert (spec.size.cpu, spec.size.mem_mib, spec.size.disk_mib) == (2, 1024, 40_960)
    assert spec.ports == (22,)
    assert spec.needs == frozenset()
    denied = vm_spec(image="a", engine=Engine.QEMU, deny_outgoing=True, egress_allowlist=("x:443",))
    assert denied.needs == {Capability.DENY_OUTGOING, Capability.EGRESS_ALLOWLIST}


@pytest.mark.parametrize("size", [{"cpu": 0}, {"mem_mib": 0}, {"disk_mib": 0}, {"cpu": -1}, {"cpu": 2**31}])
def test_a_size_of_nothing_is_refused(size: dict[str, int]) -> None:
    with pytest.raises(Invalid) as refused:
        vm_spec(image="a", engine=Engine.QEMU, **size)  # type: ignore[arg-type]  # sizes only
    assert refused.value.code == "invalid_size"


def test_only_containers_are_named_with_tags() -> None:
    assert vm_spec(image="nginx:alpine", engine=Engine.DOCKER).image == "nginx:alpine"
    with pytest.raises(Invalid):
        vm_spec(image="nginx:alpine", engine=Engine.QEMU)


R, S, P, C, F, D, U = (
    VmState.RUNNING,
    VmState.STOPPED,
    VmState.PAUSED,
    VmState.CREATING,
    VmState.FAILED,
    VmState.DELETING,
    VmState.UNKNOWN,
)


@pytest.mark.parametrize(
    ("machines", "state"),
    [
        ([], EnvState.ACTIVE),
        ([R, R], EnvState.ACTIVE),
        ([R, C, F], EnvState.CREATING),
        ([R, F], EnvState.FAILED),
        ([R, U], EnvState.FAILED),
        ([R, D], EnvState.FAILED),
        ([S, S], EnvState.STOPPED),
        ([S, P], EnvState.STOPPED),
        ([R, S], EnvState.FAILED),
        ([R, P], EnvState.ACTIVE),
    ],
)
def test_an_environment_is_what_its_machines_are(machines: list[VmState], state: EnvState) -> None:
    assert state_of(ENVIRONMENT, machines) is state
    assert state_of(replace(ENVIRONMENT, deleting=True), machines) is EnvState.DELETING


def test_the_reference_knows_two_states_of_environments() -> None:
    assert {reference_state(state) for state in EnvState} == {"active", "stopped"}


@pytest.mark.parametrize(
    ("wanted", "seconds", "warned"),
    [(None, 21_600, False), (0, 21_600, True), (1, 1, False), (21_600, 21_600, False), (21_601, 21_600, True)],
)
def test_lifetimes(wanted: int | None, seconds: int, *, warned: bool) -> None:
    lifetime = lifetime_of(wanted)
    assert (lifetime.seconds, bool(lifetime.warnings)) == (seconds, warned)


def test_a_longer_lifetime_may_be_configured_and_a_negative_one_is_none() -> None:
    assert lifetime_of(86_400, most=timedelta(days=2)).seconds == 86_400
    assert lifetime_of(None, most=timedelta(hours=1)).seconds == 3_600
    for wrong in (-1, 10**12):
        with pytest.raises(Invalid) as refused:
            lifetime_of(wrong)
        assert refused.value.code == "invalid_lifetime"


@pytest.mark.parametrize(
    ("minutes", "warned", "asks"),
    [(0, False, Due.NOTHING), (344, False, Due.NOTHING), (345, False, Due.WARN), (345, True, Due.NOTHING),
     (360, True, Due.EXPIRE), (999, False, Due.EXPIRE)],
)  # fmt: skip
def test_the_clock_asks_for_a_warning_and_then_for_the_end(minutes: int, asks: Due, *, warned: bool) -> None:
    at = NOON + timedelta(minutes=minutes)
    assert due(ENVIRONMENT, at=at, warned=warned) is asks
    assert due(replace(ENVIRONMENT, deleting=True), at=at, warned=warned) is Due.NOTHING
    assert due(replace(ENVIRONMENT, stopped_at=NOON), at=at, warned=warned) is Due.NOTHING


def test_labels_are_few_and_short() -> None:
    assert check_labels({"a": ""}) == {"a": ""}
    for wrong in ({"": "a"}, {"a": "x" * 129}, {str(number): "" for number in range(MOST_LABELS + 1)}):
        with pytest.raises(Invalid):
            check_labels(wrong)


@pytest.mark.parametrize("addr", ["10.0.0.2:9100", "host.example:1", "[::1]:65535", "localhost:9100"])
def test_a_host_is_at_an_address_and_a_port(addr: str) -> None:
    assert check_address(addr) == addr


@pytest.mark.parametrize(
    "addr", ["", "host", ":1", "host:", "host:0", "host:65536", "http://h:1", "u@h:1", "h/x:1", "h :1"]
)
def test_what_is_no_address_is_refused(addr: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_address(addr)
    assert refused.value.code == "invalid_address"


def test_some_of_a_host_is_kept_for_whoever_sits_there() -> None:
    assert (reserve_mib(4096), reserve_mib(65_536)) == (1024, 6553)
    assert strain(Pressure(), mem_total_mib=8192) is None
    assert "20.5 %" in str(strain(Pressure(memory_some_avg10=20.5), mem_total_mib=8192))
    assert "900 MiB" in str(strain(Pressure(memory_available_mib=900), mem_total_mib=8192))
    assert strain(Pressure(memory_available_mib=1024), mem_total_mib=8192) is None


def test_a_host_is_silent_after_three_heartbeats() -> None:
    host = a_host()
    assert not is_silent(host, at=NOON + timedelta(seconds=45))
    assert is_silent(host, at=NOON + timedelta(seconds=46))


@given(st.integers(0, 8), st.integers(0, 8))
def test_an_operation_is_what_its_steps_were(good: int, bad: int) -> None:
    operation = new_operation("o", OperationKind.CREATE, "e", total=good + bad)
    for number in range(good + bad):
        ok = number < good
        operation = progressed(operation, ok=ok, what=f"vm{number}", error=None if ok else "why")
    ended = concluded(operation, at=NOON)
    assert ended.done == good + bad
    assert set(ended.errors.values()) == ({"why"} if bad else set())
    expected = OperationState.PARTIAL if good and bad else OperationState.FAILED if bad else OperationState.SUCCEEDED
    assert ended.state is expected
    assert ended.ended_at == NOON

"""The system call filters, interpreted instruction by instruction for all calls and many arguments."""

import errno
import struct
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from borough.adapters.engines.bubblewrap import bpf, seccomp
from borough.adapters.engines.bubblewrap.bpf import ALLOW, ARCHITECTURES, KILL_PROCESS, Argument, Verdict, When
from borough.adapters.engines.bubblewrap.syscall_numbers import NUMBERS
from borough.governance.trust import TrustLevel

MACHINES = sorted(NUMBERS)
UNTRUSTED, SANDBOXED, TRUSTED, PRIVILEGED = TrustLevel
NO = bpf.errno(errno.EPERM)
ABSENT = bpf.errno(errno.ENOSYS)
NO_FAMILY = bpf.errno(errno.EAFNOSUPPORT)


def run(program: bytes, number: int, *arguments: int, machine: str = "x86_64", architecture: int | None = None) -> int:
    """Return what a classic BPF machine returns for one call, following the kernel's documentation of the filters."""
    padded = [argument & 0xFFFFFFFFFFFFFFFF for argument in (*arguments, 0, 0, 0, 0, 0, 0)][:6]
    chosen = ARCHITECTURES[machine] if architecture is None else architecture
    data = struct.pack("<IIQ6Q", number, chosen, 0x7F0000001000, *padded)
    code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator, at = 0, 0
    while True:
        operation, yes, no, k = code[at]
        at += 1
        if operation == 0x20:
            accumulator = int.from_bytes(data[k : k + 4], "little")
        elif operation == 0x54:
            accumulator &= k
        elif operation == 0x15:
            at += yes if accumulator == k else no
        elif operation == 0x35:
            at += yes if accumulator >= k else no
        elif operation == 0x05:
            at += k
        elif operation == 0x06:
            return int(k)
        else:
            raise AssertionError(f"unknown instruction {operation:#x}")


@dataclass(frozen=True)
class Filter:
    """One filter, asked by the names of calls."""

    machine: str
    program: bytes

    def on(self, name: str, *arguments: int) -> int:
        return run(self.program, NUMBERS[self.machine][name], *arguments, machine=self.machine)


def filtered(machine: str, trust: TrustLevel, *, processes: bool = False, inet: bool = True) -> Filter:
    return Filter(machine, seccomp.program(machine, trust, processes=processes, inet=inet))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("trust", TrustLevel)
def test_what_changes_the_machine_is_denied_at_every_level(machine: str, trust: TrustLevel) -> None:
    tested = filtered(machine, trust)
    denied = [name for name in seccomp.DENIED if name in NUMBERS[machine]]
    assert len(denied) > 50
    assert {tested.on(name) for name in denied} == {NO}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("trust", [UNTRUSTED, SANDBOXED])
def test_lower_levels_have_a_list_and_nothing_else(machine: str, trust: TrustLevel) -> None:
    tested = filtered(machine, trust)
    numbers = NUMBERS[machine]
    named = {numbers[name] for name in seccomp.ALLOWED if name in numbers}
    looked_at = {
        numbers[name]
        for name in ("clone", "fork", "vfork", "socket", "socketpair", "ioctl", "personality", "mknod", "mknodat")
        if name in numbers
    }
    denied = {numbers[name] for name in seccomp.DENIED if name in numbers}
    for number in range(600):
        verdict = run(tested.program, number, machine=machine)
        if number in named:
            assert verdict == ALLOW, number
        elif number not in looked_at | denied:
            assert verdict == ABSENT, number
    assert not seccomp.ALLOWED & seccomp.DENIED


@pytest.mark.parametrize("machine", MACHINES)
def test_higher_levels_may_make_all_other_calls(machine: str) -> None:
    for trust in (TRUSTED, PRIVILEGED):
        tested = filtered(machine, trust)
        assert (
            tested.on("mbind")
            == tested.on("sched_setscheduler")
            == tested.on("fork" if machine == "x86_64" else "clone")
            == ALLOW
        )
        assert run(tested.program, 590, machine=machine) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
@given(flags=st.integers(0, 2**64 - 1), trust=st.sampled_from(TrustLevel), processes=st.booleans())
def test_no_clone_makes_a_namespace(machine: str, flags: int, trust: TrustLevel, *, processes: bool) -> None:
    verdict = filtered(machine, trust, processes=processes).on("clone", flags)
    if flags & 0x7E020000:
        assert verdict == NO
    elif flags & 0x10000 or processes or trust is not UNTRUSTED:
        assert verdict == ALLOW
    else:
        assert verdict == NO


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("trust", TrustLevel)
def test_clone3_is_as_if_it_were_not_there(machine: str, trust: TrustLevel) -> None:
    assert filtered(machine, trust).on("clone3") == ABSENT


@given(
    family=st.integers(0, 60), kind=st.integers(0, 11), protocol=st.integers(0, 300),
    close=st.sampled_from([0, 0o2000000]), inet=st.booleans(), trust=st.sampled_from(TrustLevel),
    machine=st.sampled_from(MACHINES),
)  # fmt: skip
def test_sockets_are_unix_inet_and_routes_and_never_raw(
    *, family: int, kind: int, protocol: int, close: int, inet: bool, trust: TrustLevel, machine: str
) -> None:
    verdict = filtered(machine, trust, inet=inet).on("socket", family, kind | close, protocol)
    usual = family in (2, 10) and kind not in (3, 10)
    routes = family == 16 and protocol == 0
    if family == 1 or (inet and (usual or routes)):
        assert verdict == ALLOW
    else:
        assert verdict in (NO, NO_FAMILY)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("trust", TrustLevel)
def test_arguments_that_matter_are_looked_at(machine: str, trust: TrustLevel) -> None:
    tested = filtered(machine, trust)
    for high in (0, 0xFFFF << 32):  # the kernel takes the low half of these
        assert tested.on("ioctl", 0, 0x5412 | high) == tested.on("ioctl", 0, 0x541C | high) == NO
    assert tested.on("ioctl", 0, 0x5401) == ALLOW
    assert tested.on("personality", 0) == tested.on("personality", 0xFFFFFFFF) == ALLOW
    assert tested.on("personality", 0x0040000) == NO
    for kind, expected in ((0o020666, NO), (0o060666, NO), (0o010666, ALLOW), (0o100666, ALLOW), (0o140666, ALLOW)):
        assert tested.on("mknodat", 0, 0, kind) == expected
    assert tested.on("socketpair", 1) == ALLOW
    assert tested.on("socketpair", 2) == NO_FAMILY


def test_only_untrusted_agents_need_leave_for_processes() -> None:
    assert filtered("x86_64", UNTRUSTED).on("fork") == filtered("x86_64", UNTRUSTED).on("vfork") == NO
    assert filtered("x86_64", UNTRUSTED, processes=True).on("fork") == ALLOW
    assert filtered("x86_64", SANDBOXED).on("fork") == ALLOW
    assert filtered("x86_64", UNTRUSTED).on("execve") == ALLOW


@given(number=st.integers(0, 2**32 - 1), architecture=st.integers(0, 2**32 - 1), trust=st.sampled_from(TrustLevel))
def test_another_convention_kills(number: int, architecture: int, trust: TrustLevel) -> None:
    for machine in MACHINES:
        tested = filtered(machine, trust)
        if architecture != ARCHITECTURES[machine]:
            assert run(tested.program, number, architecture=architecture) == KILL_PROCESS
    x32 = number | 0x40000000
    assert run(filtered("x86_64", trust).program, x32) == KILL_PROCESS


@given(st.data())
def test_every_filter_ends_and_fits(data: st.DataObject) -> None:
    machine = data.draw(st.sampled_from(MACHINES))
    trust, processes, inet = data.draw(st.tuples(st.sampled_from(TrustLevel), st.booleans(), st.booleans()))
    program = filtered(machine, trust, processes=processes, inet=inet).program  # fmt: skip
    assert len(program) % 8 == 0
    assert len(program) // 8 <= 4096
    arguments = data.draw(st.lists(st.integers(0, 2**64 - 1), max_size=6))
    assert run(program, data.draw(st.integers(0, 2**32 - 1)), *arguments, machine=machine) in (
        ALLOW, NO, ABSENT, NO_FAMILY, KILL_PROCESS,
    )  # fmt: skip


def test_a_filter_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        bpf.compile_filter("x86_64", [Verdict(2 * n, NO) for n in range(3000)], otherwise=ALLOW)
    with pytest.raises(ValueError, match="two verdicts"):
        bpf.compile_filter("x86_64", [Verdict(7, NO), Verdict(7, ALLOW)], otherwise=ALLOW)


@given(
    verdicts=st.dictionaries(st.integers(0, 700), st.integers(0, 5), max_size=400),
    others=st.lists(st.integers(0, 2**30 - 1), max_size=20),
)
def test_a_search_finds_what_a_list_would(verdicts: dict[int, int], others: list[int]) -> None:
    actions = (ALLOW, NO, ABSENT)
    case = [When([Argument(0, 9)], KILL_PROCESS)]
    program = bpf.compile_filter(
        "x86_64",
        [Verdict(number, actions[kind % 3], case if kind > 2 else []) for number, kind in verdicts.items()],
        otherwise=NO_FAMILY,
    )
    for number in {*verdicts, *(number + 1 for number in verdicts), *others, 0}:
        kind = verdicts.get(number)
        assert run(program, number) == (NO_FAMILY if kind is None else actions[kind % 3])
        if kind is not None and kind > 2:
            assert run(program, number, 9) == KILL_PROCESS


def test_cases_hold_together_or_not_at_all() -> None:
    both = When([Argument(0, 1), Argument(2, 4, 0xC)], NO)
    program = bpf.compile_filter("x86_64", [Verdict(7, ALLOW, [both])], otherwise=ABSENT)
    assert run(program, 7, 1, 0, 0b0111) == NO
    assert run(program, 7, 1, 0, 0b1100) == run(program, 7, 2, 0, 0b0100) == ALLOW
    assert run(program, 8, 1, 0, 4) == ABSENT


def test_numbers_are_those_of_the_kernels_tables() -> None:
    x86, arm = NUMBERS["x86_64"], NUMBERS["aarch64"]
    assert (x86["read"], x86["clone"], x86["execve"], x86["ptrace"], x86["keyctl"]) == (0, 56, 59, 101, 250)
    assert (arm["read"], arm["clone"], arm["execve"], arm["ptrace"], arm["keyctl"]) == (63, 220, 221, 117, 219)
    assert "fork" not in arm
    shared = {name for name in x86.keys() & arm.keys() if x86[name] >= 424 or arm[name] >= 424}
    assert len(shared) > 20
    assert all(x86[name] == arm[name] for name in shared)  # since Linux 5.1 numbers are given for all architectures
    for numbers in (x86, arm):
        assert len(set(numbers.values())) == len(numbers)

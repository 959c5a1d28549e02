"""Classic BPF, as seccomp(2) takes it: a filter is a set of verdicts on system calls, and one for all others."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

KILL_PROCESS = 0x80000000
ALLOW = 0x7FFF0000
_ERRNO = 0x00050000

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_GREATER_EQUAL = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_JUMP = 0x05  # BPF_JMP | BPF_JA
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # struct seccomp_data
_X32 = 0x40000000
_FARTHEST = 255
"""Of a conditional jump, in instructions."""

ARCHITECTURES: Mapping[str, int] = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_… of linux/audit.h."""


def errno(number: int) -> int:
    """Return the action that makes the call fail with ``number``."""
    return _ERRNO | number


@dataclass(frozen=True, slots=True)
class Argument:
    """Whether the low 32 bits of one argument, under ``mask``, are ``value``."""

    place: int
    value: int
    mask: int = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class When:
    """If all these hold: ``action``."""

    holds: Sequence[Argument]
    action: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens on one system call: the first of ``cases`` that holds, else ``action``."""

    number: int
    action: int
    cases: Sequence[When] = ()


def compile_filter(machine: str, verdicts: Sequence[Verdict], *, otherwise: int) -> bytes:
    """Return the program. Calls in another architecture's convention kill the process: their numbers mean other calls.

    Numbers are searched for by halving, since every call of the process goes through here, and neighbours with the same
    verdict are one step: that also makes the program short, and loading it quick.

    Raises:
        ValueError: the program is longer than the kernel takes, or two verdicts speak of one call.
    """
    code = [
        _op(_LOAD, _ARCHITECTURE_AT),
        _op(_JUMP_EQUAL, ARCHITECTURES[machine], yes=1),
        _op(_RETURN, KILL_PROCESS),
        _op(_LOAD, _NUMBER_AT),
    ]
    if machine == "x86_64":
        code += [_op(_JUMP_GREATER_EQUAL, _X32, no=1), _op(_RETURN, KILL_PROCESS)]
    code += _search(_ranges(verdicts, _op(_RETURN, otherwise)))
    if len(code) > 4096:  # noqa: PLR2004 - BPF_MAXINSNS
        raise ValueError(f"a filter of {len(code)} instructions is too long")
    return b"".join(code)


def _ranges(verdicts: Sequence[Verdict], otherwise: bytes) -> list[tuple[int, list[bytes]]]:
    """Return what to do from which number on, in rising order, until the next."""
    bodies = {verdict.number: _body(verdict) for verdict in verdicts}
    if len(bodies) != len(verdicts):
        raise ValueError("two verdicts speak of the same call")
    found: list[tuple[int, list[bytes]]] = [(0, [otherwise])]
    for number in sorted({*bodies, *(number + 1 for number in bodies)}):
        body = bodies.get(number, [otherwise])
        if number == 0:
            found = [(0, body)]
        elif body != found[-1][1]:
            found.append((number, body))
    return found


def _search(ranges: Sequence[tuple[int, list[bytes]]]) -> list[bytes]:
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    lower, upper = _search(ranges[:middle]), _search(ranges[middle:])
    from_here = ranges[middle][0]
    if len(lower) <= _FARTHEST:
        return [_op(_JUMP_GREATER_EQUAL, from_here, yes=len(lower)), *lower, *upper]
    return [_op(_JUMP_GREATER_EQUAL, from_here, no=1), _op(_JUMP, len(lower)), *lower, *upper]


def _body(verdict: Verdict) -> list[bytes]:
    code = []
    for case in verdict.cases:
        for place, argument in enumerate(case.holds):
            left = 3 * (len(case.holds) - place - 1)
            code += [
                _op(_LOAD, _ARGUMENTS_AT + 8 * argument.place),  # both architectures have the low half first
                _op(_AND, argument.mask),
                _op(_JUMP_EQUAL, argument.value, no=left + 1),
            ]
        code.append(_op(_RETURN, case.action))
    return [*code, _op(_RETURN, verdict.action)]


def _op(code: int, k: int, *, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("<HBBI", code, yes, no, k)

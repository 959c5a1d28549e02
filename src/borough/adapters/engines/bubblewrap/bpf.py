"""Classic BPF, as seccomp(2) takes it: a filter is a list of verdicts on system calls, in order, and a last word."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

KILL_PROCESS = 0x80000000
ALLOW = 0x7FFF0000
_ERRNO = 0x00050000

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_GREATER_EQUAL = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # struct seccomp_data
_X32 = 0x40000000

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

    Raises:
        ValueError: the program is longer than the kernel takes.
    """
    code = [
        _op(_LOAD, _ARCHITECTURE_AT),
        _op(_JUMP_EQUAL, ARCHITECTURES[machine], yes=1),
        _op(_RETURN, KILL_PROCESS),
        _op(_LOAD, _NUMBER_AT),
    ]
    if machine == "x86_64":
        code += [_op(_JUMP_GREATER_EQUAL, _X32, no=1), _op(_RETURN, KILL_PROCESS)]
    for verdict in verdicts:
        body = _body(verdict)
        code += [_op(_JUMP_EQUAL, verdict.number, no=len(body)), *body]
    code.append(_op(_RETURN, otherwise))
    if len(code) > 4096:  # noqa: PLR2004 - BPF_MAXINSNS
        raise ValueError(f"a filter of {len(code)} instructions is too long")
    return b"".join(code)


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

"""How a run of an agent CLI ended, and the words for it. Values and pure functions."""

import signal
from dataclasses import dataclass

MAX_RESULT_BYTES = 1_048_576
MAX_TAIL_BYTES = 4_096
_CUT = "[the first {dropped} bytes of the output are left out here; the task's log has them]\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """The CLI ended by itself, or by a signal that we did not send (``status`` is then negative)."""

    status: int
    tail: bytes
    """The end of what it printed, at least ``MAX_RESULT_BYTES`` of it if there is so much."""
    printed: int
    """How many bytes it printed in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut:
    """It took longer than the task allows and was ended."""

    after_s: float
    tail: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NotStarted:
    """It could not be started."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """It was ended since the worker ends or the task is no longer ours."""

    reason: str


Outcome = Exited | TimedOut | NotStarted | Interrupted


def failure(outcome: Exited | TimedOut) -> str:
    """Return why the attempt failed, with the end of what the CLI printed."""
    if isinstance(outcome, TimedOut):
        what = f"timeout: the agent CLI was ended after {outcome.after_s:g} s"
    elif outcome.status < 0:
        what = f"the agent CLI was ended by signal {_signal_name(-outcome.status)}"
    else:
        what = f"exit code {outcome.status}"
    tail = _text(_last(outcome.tail, MAX_TAIL_BYTES)).strip()
    return f"{what}\n{tail}" if tail else what


def result(outcome: Exited, *, limit_bytes: int = MAX_RESULT_BYTES) -> str:
    """Return what the CLI printed, as the task's result: at most ``limit_bytes`` of UTF-8, cut at the front."""
    whole = _text(outcome.tail)
    size = len(whole.encode())
    if outcome.printed <= len(outcome.tail) and size <= limit_bytes:
        return whole if whole.strip() else "Completed"
    room = limit_bytes - len(_CUT) - 20
    kept = _text(_last(whole.encode(), room))
    return _CUT.format(dropped=max(outcome.printed - len(kept.encode()), 0)) + kept


def _last(data: bytes, limit: int) -> bytes:
    """Return at most ``limit`` bytes of the end, beginning at a whole character."""
    if len(data) <= limit:
        return data
    start = len(data) - limit
    while start < len(data) and data[start] & 0xC0 == 0x80:  # noqa: PLR2004 - UTF-8: 10xxxxxx continues a character
        start += 1
    return data[start:]


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)

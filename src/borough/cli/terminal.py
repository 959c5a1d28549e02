"""The terminal at which ``tt`` was called, lent to a machine: every key goes there, what comes from there is shown.

However it ends, by an error or a signal too, the terminal is afterwards as it was.
"""

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from borough.cli.errors import Usage
from borough.client.websocket import WebSocket

LEAVE: Final = b"\x1d"
"""Ctrl-]: ends a conversation that takes every other key."""
_PART_BYTES: Final = 65_536
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)
_SIGNALLED: Final = 128


def size() -> tuple[int, int]:
    """Return the rows and columns of the terminal."""
    columns, rows = os.get_terminal_size(sys.stdout.fileno())
    return rows or 24, columns or 80


def check_is_one() -> None:
    """Raise ``Usage`` where standard input or output is no terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Usage(
            "standard input and output are not a terminal",
            code="no_terminal",
            reason="a terminal was asked for, and there is none to show it at",
            resolution="leave -t out: tt exec -i passes standard input on without one",
        )


def lend(
    conversation: WebSocket, *, typed: bool = True, leave: bytes | None = None, resize: Callable[[int, int], str]
) -> str | None:
    """Pass keys and output on until the other end closes or ``leave`` is typed; return the last text that came.

    ``resize`` makes the message for a new size; without ``typed`` no key is passed on.
    """
    last: str | None = None
    with _raw(sys.stdin.fileno()), _changes() as changed:
        while True:
            sources: list[Any] = [conversation, changed, *([sys.stdin.fileno()] if typed else [])]
            ready = [conversation] if conversation.waits else select.select(sources, [], [])[0]
            if changed in ready:
                os.read(changed, _PART_BYTES)
                conversation.send(resize(*size()))
            if sys.stdin.fileno() in ready:
                keys = os.read(sys.stdin.fileno(), _PART_BYTES)
                if not keys:
                    typed = False
                elif leave is not None and leave in keys:
                    return last
                else:
                    conversation.send(keys)
            if conversation in ready:
                messages = conversation.take()
                if messages is None:
                    return last
                for message in messages:
                    if isinstance(message, str):
                        last = message
                    else:
                        _show(message)


def _show(content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(sys.stdout.fileno(), view) :]


@contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Let no key mean anything here, and put everything back at the end."""
    before = termios.tcgetattr(descriptor)
    handlers = {number: signal.signal(number, _end) for number in _ENDING}
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> None:
    sys.exit(_SIGNALLED + number)


@contextmanager
def _changes() -> Iterator[int]:
    """Yield what becomes readable when the terminal's size changes."""
    heard, told = os.pipe()
    os.set_blocking(told, False)

    def tell(_number: int, _frame: FrameType | None) -> None:
        try:
            os.write(told, b"\0")
        except BlockingIOError:
            return  # enough was told that is not yet read

    before = signal.signal(signal.SIGWINCH, tell)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGWINCH, before)
        os.close(heard)
        os.close(told)

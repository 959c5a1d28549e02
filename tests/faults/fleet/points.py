"""Points at which a program can be killed. They are found by the program itself as it comes by, so none is forgotten.

A point is a commit to a store (before and after it), a call to another program (before it, and with its answer), each
step of a port, and each change that Python makes to files and processes. Nobody lists them: the n-th that is reached
ends the program, and n rises until a run comes through.
"""

import functools
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import aiohttp

from borough.adapters.sql.engine import Database

_CHANGES: Final = frozenset(
    {
        "os.chmod",
        "os.chown",
        "os.kill",
        "os.link",
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.symlink",
        "os.truncate",
        "os.utime",
        "shutil.rmtree",
        "signal.pidfd_send_signal",
        "subprocess.Popen",
    }
)
"""Audit events of Python (``sys.addaudithook``) that are raised before something is changed."""
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Points:
    """Counts what is reached once it is armed, writes it down, and kills this process at the one that is wanted."""

    def __init__(self, told: Path, die_at: int) -> None:
        """``told`` is where the names are written; ``die_at`` counts from 1, 0 is never."""
        self._told = os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._die_at = die_at
        self._count = 0
        self._lock = threading.Lock()
        self._armed = False

    def arm(self) -> None:
        """Count from now on."""
        self._armed = True

    def reach(self, name: str) -> None:
        """Be at a point: perhaps for ever."""
        if not self._armed:
            return
        with self._lock:
            self._count += 1
            os.write(self._told, f"{name}\n".encode())
            if self._count == self._die_at:
                self._armed = False  # this is a change too
                os.kill(os.getpid(), signal.SIGKILL)
                signal.pause()

    def at_commits(self) -> None:
        """Be at a point before and after every group of writes that reaches the disk."""
        commit = Database._run_and_commit

        @functools.wraps(commit)
        def watched(database: Database, group: Any) -> Any:
            self.reach(f"before a commit to {database.path.name}")
            done = commit(database, group)
            self.reach(f"after a commit to {database.path.name}")
            return done

        Database._run_and_commit = watched  # type: ignore[method-assign]  # of this program only

    def at_calls(self) -> None:
        """Be at a point before every call to a host and with its answer."""

        async def begun(_session: object, _context: object, call: aiohttp.TraceRequestStartParams) -> None:
            self.reach(f"before {call.method} {call.url.path}")

        async def answered(_session: object, _context: object, call: aiohttp.TraceRequestEndParams) -> None:
            self.reach(f"answered {call.method} {call.url.path}")

        tracing = aiohttp.TraceConfig()
        tracing.on_request_start.append(begun)
        tracing.on_request_end.append(answered)
        traced = functools.partial(aiohttp.ClientSession, trace_configs=[tracing])
        aiohttp.ClientSession = traced  # type: ignore[assignment,misc]  # of this program only

    def at_changes(self) -> None:
        """Be at a point before every change to files and processes."""

        def hear(event: str, arguments: tuple[Any, ...]) -> None:
            if event in _CHANGES or (event == "open" and _writes(arguments)):
                self.reach(f"before {event}")

        sys.addaudithook(hear)

    def watched(self, port: Any) -> Any:
        """Return ``port`` with a point before and after each of its steps."""
        return _Watched(port, self)


class _Watched:
    """A port whose steps are points."""

    def __init__(self, port: Any, points: Points) -> None:
        self._port = port
        self._points = points

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        return self._step(name, found) if inspect.iscoroutinefunction(found) else found

    def _step(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        called = f"{type(self._port).__name__}.{name}"

        @functools.wraps(step)
        async def watched(*arguments: Any, **named: Any) -> Any:
            self._points.reach(f"before {called}")
            answer = await step(*arguments, **named)
            self._points.reach(f"after {called}")
            return answer

        return watched


def _writes(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2] if len(arguments) > 2 else 0
    return isinstance(flags, int) and bool(flags & _WRITING)

"""One run of an agent CLI: start it, feed it, take its output, freeze it, end it, and say how it ended.

One thread waits on everything at once: the CLI's end, its output, room in its input, the deadline, and news from the
heartbeat. When the CLI's first process has ended, the run is over: what it left running is ended too.
"""

import logging
import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from borough.adapters import process, procfs
from borough.adapters.process import ATTEMPT, Child, Marker, ProcessRef
from borough.core.errors import Unavailable
from borough.town.agents import Directive
from borough.worker.control import Control
from borough.worker.logs import Spool
from borough.worker.outcome import Exited, Interrupted, NotStarted, Outcome, TimedOut

log = logging.getLogger(__name__)

END_GRACE_S = 5.0
"""How long a CLI may take to end after TERM."""
READ_BYTES = 65_536
_REST_S = 2.0
"""How long to wait for the end of the output once every process is gone: forever only if a stranger holds the pipe."""


class Run:
    """One run; use it once."""

    def __init__(
        self,
        *,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: Path | None,
        stdin: bytes | None,
        timeout_s: float,
        left_s: float,
        control: Control,
        spool: Spool,
        on_output: Callable[[], None],
        last_words_s: Callable[[], float],
        also_ours: Callable[[], list[ProcessRef]] = list,
        end_grace_s: float = END_GRACE_S,
    ) -> None:
        self._argv, self._env, self._cwd = argv, env, cwd
        self._to_write = memoryview(stdin) if stdin is not None else None
        self._timeout_s = timeout_s
        """What the whole attempt was given; only for words."""
        self.left_s = left_s
        """How long it may still run; less than that after a run."""
        self._control = control
        self._spool = spool
        self._on_output = on_output
        self._last_words_s = last_words_s
        self._also_ours = also_ours
        self._end_grace_s = end_grace_s
        self._marker = Marker(ATTEMPT, env[ATTEMPT])
        self._poller = select.poll()
        self._frozen = False
        self._input: IO[bytes] | None = None
        self._output: IO[bytes] | None = None
        self._deadline = 0.0
        self._drop_deadline: float | None = None

    def outcome(self) -> Outcome:
        """Run the CLI to its end and return how it ended. Nothing of it runs any more then."""
        try:
            child = process.start(
                self._argv,
                env=self._env,
                cwd=self._cwd,
                stdin=process.NOTHING if self._to_write is None else process.PIPE,
                stdout=process.PIPE,
            )
        except Unavailable as refusal:
            return NotStarted(reason=f"{refusal.message}; {refusal.resolution}")
        handle = os.pidfd_open(child.pid)
        try:
            self._open(child, handle)
            ended_by_us = self._until_over(handle)
        finally:
            if not self._frozen:
                self.left_s = max(self._deadline - time.monotonic(), 0.0)
            self._end_processes()
            status = child.wait()
            self._close()
            os.close(handle)
        return ended_by_us or Exited(status=status, tail=self._spool.tail(), printed=self._spool.printed)

    def _open(self, child: Child, handle: int) -> None:
        self._deadline = time.monotonic() + self.left_s
        self._output, self._input = child.popen.stdout, child.popen.stdin
        for file, event in ((self._output, select.POLLIN), (self._input, select.POLLOUT)):
            if file is not None:
                os.set_blocking(file.fileno(), False)
                self._poller.register(file, event)
        self._poller.register(handle, select.POLLIN)
        self._poller.register(self._control.wake, select.POLLIN)

    def _until_over(self, handle: int) -> Outcome | None:
        """Return ``None`` when the CLI ended by itself, else how we are about to end it."""
        while True:
            if (decided := self._decision()) is not None:
                return decided
            for file, _ in self._poller.poll(self._patience_ms()):
                if file == handle:
                    return None
                if file == self._control.wake:
                    os.eventfd_read(self._control.wake)
                elif self._output is not None and file == self._output.fileno():
                    self._read()
                else:
                    self._feed()

    def _decision(self) -> Outcome | None:
        if self._control.end is not None:
            return Interrupted(reason=self._control.end_detail)
        if self._control.dropped:
            if self._drop_deadline is None:
                # The CLI may have reported by itself and be about to end: then it may say its last words.
                self._drop_deadline = time.monotonic() + self._last_words_s()
            if time.monotonic() >= self._drop_deadline:
                return Interrupted(reason="the task is no longer this worker's")
        self._freeze(self._control.directive is Directive.PAUSE)
        if not self._frozen and time.monotonic() >= self._deadline:
            return TimedOut(after_s=self._timeout_s, tail=self._spool.tail())
        return None

    def _freeze(self, wanted: bool) -> None:  # noqa: FBT001 - a plain state, not an option
        """Stop or continue every process of the attempt; time does not count while it is frozen."""
        if wanted == self._frozen:
            return
        self._frozen = wanted
        if wanted:
            self.left_s = self._deadline - time.monotonic()
        else:
            self._deadline = time.monotonic() + self.left_s
        number = signal.SIGSTOP if wanted else signal.SIGCONT
        told: set[ProcessRef] = set()
        while fresh := set(process.owned(self._marker)) - told:  # again, for what was being forked meanwhile
            procfs.tell(fresh, number)
            told |= fresh
        log.info("%s %d processes", "froze" if wanted else "continued", len(told))

    def _patience_ms(self) -> float | None:
        deadlines = [] if self._frozen else [self._deadline]
        if self._drop_deadline is not None:
            deadlines.append(self._drop_deadline)
        return max(0.0, min(deadlines) - time.monotonic()) * 1000 + 1 if deadlines else None

    def _read(self) -> bool:
        """Take in some output; return whether there may be more."""
        if self._output is None:
            return False
        try:
            data = os.read(self._output.fileno(), READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            self._spool.write(data)
            self._on_output()
            return True
        self._poller.unregister(self._output)
        self._output.close()
        self._output = None
        return False

    def _feed(self) -> None:
        if self._input is None or self._to_write is None:
            return
        try:
            self._to_write = self._to_write[self._input.write(self._to_write[:READ_BYTES]) or 0 :]
        except BrokenPipeError:
            log.info("the agent CLI did not read its whole input")
            self._to_write = memoryview(b"")
        if not self._to_write:
            self._poller.unregister(self._input)
            self._input.close()
            self._input = None

    def _end_processes(self) -> None:
        """End all that is left of the run, and go on taking in its output meanwhile: a full pipe would block it."""
        with ThreadPoolExecutor(1, thread_name_prefix="reaper") as pool:
            reaping = pool.submit(process.reap, self._marker, grace_s=self._end_grace_s, also=self._also_ours)
            reaping.add_done_callback(lambda _: os.eventfd_write(self._control.wake, 1))
            while not reaping.done():
                self._wait_for_output(None)
        reaping.result()
        give_up = time.monotonic() + _REST_S
        while self._output is not None and time.monotonic() < give_up:
            self._wait_for_output(give_up - time.monotonic())

    def _wait_for_output(self, within_s: float | None) -> None:
        waiting = select.poll()
        waiting.register(self._control.wake, select.POLLIN)
        if self._output is not None:
            waiting.register(self._output, select.POLLIN)
        for file, _ in waiting.poll(None if within_s is None else within_s * 1000):
            if file == self._control.wake:
                os.eventfd_read(self._control.wake)
            else:
                self._read()

    def _close(self) -> None:
        for file in (self._output, self._input):
            if file is not None:
                file.close()

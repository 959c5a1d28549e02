"""The worker's life: start, claim, attempt, and at last leave.

The server decides; the worker holds no state that it could not lose. Whatever happens in between, the lease ends on
the server and the task goes on.
"""

import logging
import os
import shutil
import socket
import threading
import time

from borough.adapters import process
from borough.adapters.process import Child
from borough.http.town.worker_wire import DrainView, LeaseView, LeaveRequest, StartRequest, WorkerSettings
from borough.town.agents import Directive
from borough.worker.attempt import Attempt, Bench, ProgramMissing
from borough.worker.connection import Away, BrokenOff, Connection, Refused
from borough.worker.control import Control, End, Hand
from borough.worker.heartbeat import Heartbeat, end_of
from borough.worker.options import GOODBYE_S, WorkerOptions

log = logging.getLogger(__name__)

CLAIM_WAIT_S = 30.0
_EARLY_S = 1.0
_EXIT_CODES = {End.TERMINATED: 0, End.FENCED: 0, End.AWAY: 3, End.REFUSED: 4}
_FAILED = 1


class Worker:
    """Serves one agent until it idles out, drains, is stopped or loses its server."""

    def __init__(self, options: WorkerOptions, control: Control, *, guard: Child | None = None) -> None:
        self._options = options
        self._control = control
        self._guard = guard
        self._server = self._connect()
        self._agent = f"/v1/agents/{options.identity.agent_id}"
        # Re-entrant, since the signal handler that wants the wait ended runs in the waiting thread.
        self._waiting_lock = threading.RLock()
        self._waiting = False
        control.on_urgent(self._end_wait)

    def serve(self) -> int:
        """Live; return the exit status."""
        try:
            settings = self._server.post(self._agent + "/start", self._who_i_am()).read(WorkerSettings)
        except Refused as refusal:
            log.error("the server refuses this worker: %s", refusal)  # noqa: TRY400 - the sentence says all
            return _EXIT_CODES[end_of(refusal)[0]] or _FAILED
        except Away as away:
            self._control.finish(End.AWAY, str(away))
            return self._say_goodbye()
        heartbeat = Heartbeat(
            self._connect(),
            self._control,
            agent_id=self._options.identity.agent_id,
            interval_s=settings.heartbeat_ms / 1000,
        )
        heartbeat.start()
        log.info("serving agent %s of town %s with %s", settings.name, settings.town, settings.cli.name)
        try:
            return self._live(settings, heartbeat)
        finally:
            heartbeat.stop()
            self._server.close()

    def _live(self, settings: WorkerSettings, heartbeat: Heartbeat) -> int:
        bench = Bench(
            options=self._options,
            settings=settings,
            control=self._control,
            server=self._server,
            connect=self._connect,
            guard=self._guard,
        )
        try:
            self._check_program(settings)
            if self._work(bench, heartbeat):
                return 0
        except ProgramMissing as missing:
            log.error("%s", missing)  # noqa: TRY400 - the sentence says all; a stack trace adds nothing
            self._leave_anyway(str(missing), failed=True)
            return _FAILED
        except Refused as refusal:
            self._control.finish(*end_of(refusal))
        except Away as away:
            self._control.finish(End.AWAY, str(away))
        return self._say_goodbye()

    def _work(self, bench: Bench, heartbeat: Heartbeat) -> bool:
        """Work until we have left (true) or are to end (false)."""
        idle_since = time.monotonic()
        while self._control.end is None:
            if self._control.directive is Directive.PAUSE:
                self._control.wait_while_paused()
                idle_since = time.monotonic()
                continue
            if self._control.directive is Directive.DRAIN and self._leave("drained"):
                return True
            idle_left_s = CLAIM_WAIT_S if self._options.stay else _idle_left_s(bench.settings, idle_since)
            if idle_left_s <= 0:
                if self._drained() and self._leave("idle timeout"):
                    return True
                idle_since = time.monotonic()
                continue
            lease = self._claim(min(CLAIM_WAIT_S, idle_left_s))
            if lease is not None:
                self._attempt(bench, lease, heartbeat)
                idle_since = time.monotonic()
        return False

    def _claim(self, wait_s: float) -> LeaseView | None:
        began = time.monotonic()
        with self._waiting_lock:
            # Looked at under the lock: what comes later finds us waiting and breaks the wait off.
            self._waiting = self._control.end is None and self._control.directive is not Directive.DRAIN
        if not self._waiting:
            return None
        try:
            answer = self._server.post(f"{self._agent}/claim?wait={wait_s:.3f}", wait_s=wait_s)
        except BrokenOff:
            return None  # a lease that was granted meanwhile is given back when we leave
        finally:
            with self._waiting_lock:
                self._waiting = False
                self._server.mend()
        if answer.body:
            return answer.read(LeaseView)
        if time.monotonic() - began < min(_EARLY_S, wait_s):
            self._control.wait(_EARLY_S)  # nothing for us, and the server did not wait: so we do
        return None

    def _end_wait(self) -> None:
        """End a wait for work, since there is something else to do; and be brief if that is the end."""
        if self._control.end is not None:
            self._server.be_brief(GOODBYE_S)
        with self._waiting_lock:
            if self._waiting:
                self._server.break_off()

    def _attempt(self, bench: Bench, lease: LeaseView, heartbeat: Heartbeat) -> None:
        hand = Hand(task_id=lease.task.task_id, epoch=lease.task.epoch)
        self._control.take(hand)
        try:
            heartbeat.beat_now()
            self._control.wait_while_paused()
            log.info("task %s: attempt %d, epoch %d", hand.task_id, lease.task.attempts, hand.epoch)
            with Attempt(bench, lease) as attempt:
                attempt.perform()
        finally:
            self._control.let_go()

    def _drained(self) -> bool:
        return self._server.post(f"{self._agent}/drain").read(DrainView).draining

    def _leave(self, reason: str, *, failed: bool = False) -> bool:
        """Say goodbye; return false when work is waiting and we are to go on."""
        try:
            self._server.post(f"{self._agent}/leave", LeaveRequest(reason=reason, failed=failed))
        except Refused as refusal:
            if refusal.code != "work_waiting":
                raise
            log.info("work is waiting; going on")
            return False
        log.info("left: %s", reason)
        return True

    def _leave_anyway(self, reason: str, *, failed: bool) -> None:
        """Say goodbye and go, whatever the answer: if it was not heard, our lease ends by itself.

        Who goes although work waits has failed it: said so, that work is moved on at once and not after our lease.
        """
        try:
            if not self._leave(reason, failed=failed) and not failed:
                self._leave(reason, failed=True)
        except (Refused, Away) as failure:
            log.warning("could not say goodbye: %s", failure)

    def _say_goodbye(self) -> int:
        end = self._control.end or End.FENCED
        log.info("ending: %s", self._control.end_detail)
        if end is End.TERMINATED:
            self._leave_anyway(self._control.end_detail, failed=False)
        return _EXIT_CODES[end]

    def _connect(self, token: str | None = None) -> Connection:
        options = self._options
        return Connection(options.address, token or options.identity.token, give_up_s=options.give_up_s)

    def _who_i_am(self) -> StartRequest:
        me = self._options.identity.process or process.myself()
        return StartRequest(host=socket.gethostname(), pid=me.pid, started_ticks=me.started_ticks)

    def _check_program(self, settings: WorkerSettings) -> None:
        """Raise ``ProgramMissing`` before any task is taken and its attempts are used up."""
        program = settings.cli.argv[0]
        path = settings.cli.env.get("PATH", os.environ.get("PATH"))
        if shutil.which(program, path=path) is None:
            raise ProgramMissing(
                f"there is no program {program!r} (agent CLI {settings.cli.name!r}) on {socket.gethostname()};"
                " install it there, or choose another agent CLI"
            )


def _idle_left_s(settings: WorkerSettings, idle_since: float) -> float:
    if not settings.idle_timeout_secs:
        return CLAIM_WAIT_S
    return idle_since + settings.idle_timeout_secs - time.monotonic()

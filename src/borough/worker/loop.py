"""The worker's life: start, claim, run, report, and at last leave.

The server decides; the worker holds no state that it could not lose. Whatever happens in between, the lease ends on
the server and the task goes on.
"""

import logging
import os
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from borough.adapters import process
from borough.adapters.process import ATTEMPT, OWNER, Child, ProcessRef
from borough.http.town.wire import (
    CompleteRequest,
    DrainView,
    FailRequest,
    LeaseView,
    LeaveRequest,
    ReleaseRequest,
    StartRequest,
    TaskView,
    WorkerSettings,
)
from borough.town.agents import Directive
from borough.town.tasks import TaskState
from borough.worker import command, outcome, prompt
from borough.worker.connection import Away, BrokenOff, Connection, Refused, ServerAddress
from borough.worker.control import Control, End, Hand
from borough.worker.heartbeat import Heartbeat, end_of
from borough.worker.logs import Shipper, Spool
from borough.worker.outcome import Exited, Interrupted, NotStarted, Outcome, TimedOut
from borough.worker.run import END_GRACE_S, Run

log = logging.getLogger(__name__)

CLAIM_WAIT_S = 30.0
GOODBYE_S = 10.0
"""How long a worker that was told to end tries to give its work back."""
LAST_WORDS_S = 30.0
"""How long a CLI that has reported by itself may take to end."""
_EARLY_S = 1.0
_TOO_LARGE = 413
_SHORTER = (outcome.MAX_RESULT_BYTES, 262_144, 16_384)
_EXIT_CODES = {End.TERMINATED: 0, End.FENCED: 0, End.AWAY: 3, End.REFUSED: 4}


class ProgramMissing(Exception):
    """The agent CLI cannot be started here, so no task should be tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whom this worker serves."""

    agent_id: str
    incarnation: int
    token: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """How this worker behaves on its machine."""

    address: ServerAddress
    identity: Identity
    state_dir: Path
    """A private folder of its own, for prompts, tokens and spooled output."""
    give_up_s: float = 300.0
    end_grace_s: float = END_GRACE_S


class Worker:
    """Serves one agent until it idles out, drains, is stopped or loses its server."""

    def __init__(self, options: WorkerOptions, control: Control, *, guard: Child | None = None) -> None:
        self._options = options
        self._identity = options.identity
        self._control = control
        self._guard = guard
        self._server = self._connect()
        self._agent = f"/v1/agents/{options.identity.agent_id}"
        self._env = process.without_secrets(os.environ)

    def serve(self) -> int:
        """Live; return the exit status."""
        try:
            settings = self._server.post(self._agent + "/start", self._who_i_am()).read(WorkerSettings)
        except (Refused, Away, BrokenOff) as failure:
            return self._not_started(failure)
        heartbeat = Heartbeat(
            self._connect(),
            self._control,
            agent_id=self._identity.agent_id,
            interval_s=settings.heartbeat_ms / 1000,
        )
        heartbeat.start()
        # Listening only now: the end of a start that was broken off is handled above.
        self._control.on_urgent(self._server.break_off)
        log.info("serving agent %s of town %s with %s", settings.name, settings.town, settings.cli.name)
        try:
            return self._live(settings, heartbeat)
        finally:
            heartbeat.stop()
            self._server.close()

    def _live(self, settings: WorkerSettings, heartbeat: Heartbeat) -> int:
        try:
            self._check_program(settings)
            return self._work(settings, heartbeat)
        except ProgramMissing as missing:
            log.error("%s", missing)  # noqa: TRY400 - the sentence says all; a stack trace adds nothing
            self._leave(str(missing), failed=True)
            return 1
        except Refused as refusal:
            self._control.finish(*end_of(refusal))
        except Away as away:
            self._control.finish(End.AWAY, str(away))
        except BrokenOff:
            log.info("the wait for work was broken off")
        return self._say_goodbye()

    def _work(self, settings: WorkerSettings, heartbeat: Heartbeat) -> int:
        idle_since = time.monotonic()
        while self._control.end is None:
            if self._control.directive is Directive.PAUSE:
                self._control.wait_while_paused()
                idle_since = time.monotonic()
                continue
            if self._control.directive is Directive.DRAIN and self._leave("drained"):
                return 0
            idle_left_s = self._idle_left_s(settings, idle_since)
            if idle_left_s <= 0:
                if self._drained() and self._leave("idle timeout"):
                    return 0
                idle_since = time.monotonic()
                continue
            lease = self._claim(min(CLAIM_WAIT_S, idle_left_s))
            if lease is not None:
                self._attempt(lease, settings, heartbeat)
                idle_since = time.monotonic()
        return self._say_goodbye()

    def _idle_left_s(self, settings: WorkerSettings, idle_since: float) -> float:
        if not settings.idle_timeout_secs:
            return CLAIM_WAIT_S
        return idle_since + settings.idle_timeout_secs - time.monotonic()

    def _claim(self, wait_s: float) -> LeaseView | None:
        began = time.monotonic()
        try:
            answer = self._server.post(f"{self._agent}/claim?wait={wait_s:.3f}", wait_s=wait_s)
        except BrokenOff:
            return None
        if answer.body:
            return answer.read(LeaseView)
        if time.monotonic() - began < min(_EARLY_S, wait_s):
            self._control.wait(_EARLY_S)  # nothing for us, and the server did not wait: so we do
        return None

    def _drained(self) -> bool:
        return self._server.post(f"{self._agent}/drain").read(DrainView).draining

    def _leave(self, reason: str, *, failed: bool = False, give_up_s: float | None = None) -> bool:
        """Say goodbye; return false when work is waiting and we are to go on."""
        try:
            self._server.post(f"{self._agent}/leave", LeaveRequest(reason=reason, failed=failed), give_up_s=give_up_s)
        except Refused as refusal:
            if refusal.code == "work_waiting":
                return False
            raise
        except BrokenOff:
            return False
        log.info("left: %s", reason)
        return True

    def _say_goodbye(self) -> int:
        end = self._control.end or End.FENCED
        log.info("ending: %s", self._control.end_detail)
        if end is End.TERMINATED:
            try:
                # A worker that is told to end goes, whatever waits: its inbox is reclaimed by the server's rules.
                self._leave_for_good()
            except (Refused, Away) as failure:
                log.warning("could not say goodbye: %s; the lease will end by itself", failure)
        return _EXIT_CODES[end]

    def _leave_for_good(self) -> None:
        for _ in range(2):  # the first try may be broken off by the very signal that brought us here
            if self._leave(self._control.end_detail, give_up_s=GOODBYE_S):
                return

    # -- one attempt ---------------------------------------------------------------------------------------------------

    def _attempt(self, lease: LeaseView, settings: WorkerSettings, heartbeat: Heartbeat) -> None:
        hand = Hand(task_id=lease.task.task_id, epoch=lease.task.epoch)
        self._control.take(hand)
        heartbeat.beat_now()
        self._control.wait_while_paused()
        log.info("task %s: attempt %d, epoch %d", hand.task_id, lease.task.attempts, hand.epoch)
        folder = self._options.state_dir / f"{hand.task_id}-{hand.epoch}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        spool = Spool(folder / "output")
        shipper = Shipper(
            self._connect(),
            spool,
            task_id=hand.task_id,
            epoch=hand.epoch,
            resumes=lease.task.epoch != lease.task.attempts,
        )
        shipper.start()
        try:
            ended = self._runs(lease, settings, folder, spool, shipper)
            shipper.finish(within_s=GOODBYE_S if self._control.end is not None else None)
            self._report(lease, settings, ended)
        finally:
            shipper.finish(within_s=0)
            spool.close()
            shutil.rmtree(folder)
            self._control.let_go()

    def _runs(
        self, lease: LeaseView, settings: WorkerSettings, folder: Path, spool: Spool, shipper: Shipper
    ) -> Outcome:
        """Run the CLI, and again with a reminder where it is to report by itself and did not."""
        left_s = float(_timeout_s(lease, settings))
        text = prompt.prompt(lease, settings)
        number = 0
        while True:
            ended, left_s = self._run(lease, settings, folder, spool, shipper, text=text, left_s=left_s)
            number += 1
            if not self._is_to_go_on(lease, settings, ended) or number > prompt.MAX_REPROMPTS:
                return ended
            spool.note(f"ended with exit code 0 without a report, {number} of {prompt.MAX_REPROMPTS + 1}")
            text = prompt.reminder(lease, settings, number=number)

    def _is_to_go_on(self, lease: LeaseView, settings: WorkerSettings, ended: Outcome) -> bool:
        return settings.cli.on_exit_zero == "reprompt" and _ended_well(ended) and not self._reported(lease)

    def _run(
        self,
        lease: LeaseView,
        settings: WorkerSettings,
        folder: Path,
        spool: Spool,
        shipper: Shipper,
        *,
        text: str,
        left_s: float,
    ) -> tuple[Outcome, float]:
        cli = settings.cli
        mode = command.Input(cli.input)
        around = command.Surroundings(
            agent_id=self._identity.agent_id,
            agent_name=settings.name,
            incarnation=self._identity.incarnation,
            task_id=lease.task.task_id,
            epoch=lease.task.epoch,
            server_url=self._options.address.url,
            token_file=_private(folder / "token", lease.attempt_token),
        )
        file = _private(folder / "prompt.md", text)
        run = Run(
            argv=command.arguments(cli.argv, mode, text=text, file=file),
            env=command.environment(self._env, cli.env, around, owner=OWNER, attempt=ATTEMPT),
            cwd=Path(cli.workdir) if cli.workdir else None,
            stdin=text.encode() if mode is command.Input.STDIN else None,
            timeout_s=_timeout_s(lease, settings),
            left_s=left_s,
            control=self._control,
            spool=spool,
            on_output=shipper.notify,
            last_words_s=lambda: LAST_WORDS_S if self._reported(lease) else 0.0,
            also_ours=self._below_me if self._guard else list,
            end_grace_s=self._options.end_grace_s,
        )
        try:
            return run.outcome(), run.left_s
        finally:
            if self._guard:
                process.collect_orphans(but={self._guard.pid})

    def _below_me(self) -> list[ProcessRef]:
        """Return our descendants, also those that dropped their environment; the guard is not to be ended."""
        guard = self._guard.ref if self._guard else None
        return [ref for ref in process.descendants(os.getpid()) if ref != guard]

    def _reported(self, lease: LeaseView) -> bool:
        """Tell whether the CLI itself ended this very attempt."""
        try:
            task = self._server.get(f"/v1/tasks/{lease.task.task_id}", give_up_s=GOODBYE_S).read(TaskView)
        except (Refused, Away, BrokenOff) as failure:
            log.info("whether task %s was reported is not known: %s", lease.task.task_id, failure)
            return False
        over = task.state in (TaskState.COMPLETED, TaskState.FAILED, TaskState.DELAYED)
        return over and task.epoch == lease.task.epoch

    def _report(self, lease: LeaseView, settings: WorkerSettings, ended: Outcome) -> None:
        """Tell the server how the attempt ended. A refusal means that it has ended already: then nothing is due."""
        log.info("task %s: %s", lease.task.task_id, _in_a_word(ended))
        path, epoch = f"/v1/tasks/{lease.task.task_id}", lease.task.epoch
        try:
            if isinstance(ended, Interrupted):
                if self._control.end is End.TERMINATED:
                    self._say(f"{path}/release", ReleaseRequest(epoch=epoch, reason=ended.reason), give_up_s=GOODBYE_S)
            elif isinstance(ended, NotStarted):
                self._say(f"{path}/release", ReleaseRequest(epoch=epoch, reason=ended.reason))
            elif isinstance(ended, Exited) and _ended_well(ended):
                self._complete(path, epoch, ended, settings)
            else:
                self._say(f"{path}/fail", FailRequest(reason=outcome.failure(ended), epoch=epoch))
        except Refused as refusal:
            log.info("task %s: nothing more to report (%s)", lease.task.task_id, refusal)
        if isinstance(ended, NotStarted):
            raise ProgramMissing(ended.reason)

    def _complete(self, path: str, epoch: int, ended: Exited, settings: WorkerSettings) -> None:
        if settings.cli.on_exit_zero == "reprompt":
            reason = f"the agent CLI ended {prompt.MAX_REPROMPTS + 1} times with exit code 0 without reporting"
            self._say(f"{path}/fail", FailRequest(reason=reason, epoch=epoch))
            return
        for limit in _SHORTER:
            try:
                self._say(
                    f"{path}/complete", CompleteRequest(result=outcome.result(ended, limit_bytes=limit), epoch=epoch)
                )
            except Refused as refusal:
                if refusal.status != _TOO_LARGE or limit == _SHORTER[-1]:
                    raise
            else:
                return

    def _say(
        self, path: str, body: CompleteRequest | FailRequest | ReleaseRequest, *, give_up_s: float | None = None
    ) -> None:
        """Post what must be heard, once more when news of the heartbeat broke off the first try."""
        try:
            self._server.post(path, body, give_up_s=give_up_s)
        except BrokenOff:
            self._server.post(path, body, give_up_s=give_up_s)

    # -- beginnings ----------------------------------------------------------------------------------------------------

    def _connect(self) -> Connection:
        return Connection(self._options.address, self._identity.token, give_up_s=self._options.give_up_s)

    def _who_i_am(self) -> StartRequest:
        me = process.myself()
        return StartRequest(host=socket.gethostname(), pid=me.pid, started_ticks=me.started_ticks)

    def _not_started(self, failure: Refused | Away | BrokenOff) -> int:
        log.error("cannot start: %s", failure)
        if isinstance(failure, Refused):
            return _EXIT_CODES[end_of(failure)[0]] or 1
        return 0 if isinstance(failure, BrokenOff) else 3

    def _check_program(self, settings: WorkerSettings) -> None:
        program = settings.cli.argv[0]
        path = settings.cli.env.get("PATH", self._env.get("PATH"))
        if shutil.which(program, path=path) is None:
            raise ProgramMissing(
                f"there is no program {program!r} (agent CLI {settings.cli.name!r}) on {socket.gethostname()}"
            )


def _timeout_s(lease: LeaseView, settings: WorkerSettings) -> int:
    return lease.task.timeout_secs or settings.cli.timeout_secs


def _ended_well(ended: Outcome) -> bool:
    return isinstance(ended, Exited) and ended.status == 0


def _in_a_word(ended: Outcome) -> str:
    match ended:
        case Exited():
            return f"ended with status {ended.status} after printing {ended.printed} bytes"
        case TimedOut():
            return f"ended after its {ended.after_s:g} s"
        case NotStarted() | Interrupted():
            return ended.reason


def _private(path: Path, text: str) -> Path:
    """Write a file that only we can read."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "wb") as writer:
        writer.write(text.encode())
    return path

"""One attempt at a task: run the agent CLI, send what it prints, report how it ended."""

import logging
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from borough.adapters import process
from borough.adapters.process import ATTEMPT, OWNER, Child, ProcessRef
from borough.http.town.views import TaskView
from borough.http.town.wire import CompleteRequest, FailRequest
from borough.http.town.worker_wire import LeaseView, ReleaseRequest, WorkerSettings
from borough.town.tasks import TaskState
from borough.worker import command, outcome, prompt
from borough.worker.connection import Away, Connection, Refused, ServerAddress
from borough.worker.control import Control, End
from borough.worker.logs import Shipper, Spool
from borough.worker.options import GOODBYE_S, WorkerOptions
from borough.worker.outcome import Exited, Interrupted, NotStarted, Outcome, TimedOut
from borough.worker.run import Run

log = logging.getLogger(__name__)

LAST_WORDS_S = 30.0
"""How long a CLI that has reported by itself may take to end."""
REPROMPT = "reprompt"
_TOO_LARGE = 413
_SHORTER = (outcome.MAX_RESULT_BYTES, 262_144, 16_384)


class ProgramMissing(Exception):
    """The agent CLI cannot be started here, so no task should be tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What every attempt of a worker is done with."""

    options: WorkerOptions
    settings: WorkerSettings
    control: Control
    server: Connection
    connect: Callable[[str], Connection]
    """A line of its own with another token."""
    guard: Child | None

    def below(self) -> list[ProcessRef]:
        """Return our descendants, also those that dropped their environment, but not the guard.

        Without a guard we are not the only owner of this process, so nothing is ours for being below it.
        """
        if self.guard is None:
            return []
        return [ref for ref in process.descendants(os.getpid()) if ref != self.guard.ref]


class Attempt:
    """One lease; ``perform`` it within ``with``, which cleans up whatever happens."""

    def __init__(self, bench: Bench, lease: LeaseView) -> None:
        self._bench = bench
        self._lease = lease
        self._task_id, self._epoch = lease.task.task_id, lease.task.epoch
        self._cli = bench.settings.cli
        self._timeout_s = lease.task.timeout_secs or bench.settings.cli.timeout_secs
        self._folder = bench.options.state_dir / f"{self._task_id}-{self._epoch}"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._spool = Spool(self._folder / "output")
        # What ends an attempt or adds to its log is said with the attempt's own token: it proves the lease.
        self._line = bench.connect(lease.attempt_token)
        self._shipper = Shipper(bench.connect(lease.attempt_token), self._spool, task_id=self._task_id)

    def __enter__(self) -> Self:
        self._shipper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._shipper.finish(in_a_hurry=lambda: True, within_s=0)
        self._line.close()
        self._spool.close()
        shutil.rmtree(self._folder)

    def perform(self) -> None:
        """Run the CLI to its end, send all it printed, report.

        Raises:
            ProgramMissing: it could not be started; the task was given back.
            Away: the server does not answer.
        """
        ended = self._run_until_reported()
        log.info("task %s: %s", self._task_id, _in_a_word(ended))
        self._shipper.finish(in_a_hurry=lambda: self._bench.control.end is not None, within_s=GOODBYE_S)
        try:
            self._report(ended)
        except Refused as refusal:
            # The attempt is over already: the CLI reported by itself, or somebody ended it.
            log.info("task %s: nothing more to report (%s)", self._task_id, refusal)
        if isinstance(ended, NotStarted):
            raise ProgramMissing(ended.reason)

    def _run_until_reported(self) -> Outcome:
        """Run the CLI, and again with a reminder where it is to report by itself and did not."""
        left_s = float(self._timeout_s)
        text = prompt.prompt(self._lease, self._bench.settings)
        number = 0
        while True:
            ended, left_s = self._run(text, left_s)
            number += 1
            if not self._is_to_go_on(ended) or number > prompt.MAX_REPROMPTS:
                return ended
            self._spool.note(f"exit code 0 without a report, {number} of {prompt.MAX_REPROMPTS + 1}")
            text = prompt.reminder(self._lease, self._bench.settings, number=number)

    def _is_to_go_on(self, ended: Outcome) -> bool:
        return self._cli.on_exit_zero == REPROMPT and _ended_well(ended) and not self._reported()

    def _run(self, text: str, left_s: float) -> tuple[Outcome, float]:
        """Run the CLI once; return how it ended and how many seconds the attempt has left."""
        mode = command.Input(self._cli.input)
        file = _private(self._folder / "prompt.md", text)
        run = Run(
            argv=command.arguments(self._cli.argv, mode, text=text, file=file),
            env=self._environment(),
            cwd=Path(self._cli.workdir) if self._cli.workdir else None,
            stdin=text.encode() if mode is command.Input.STDIN else None,
            timeout_s=self._timeout_s,
            left_s=left_s,
            control=self._bench.control,
            spool=self._spool,
            on_output=self._shipper.notify,
            last_words_s=lambda: LAST_WORDS_S if self._reported() else 0.0,
            also_ours=self._bench.below,
            end_grace_s=self._bench.options.end_grace_s,
        )
        try:
            return run.outcome(), run.left_s
        finally:
            if self._bench.guard is not None:
                process.collect_orphans(but={self._bench.guard.pid})

    def _environment(self) -> dict[str, str]:
        identity = self._bench.options.identity
        around = command.Surroundings(
            agent_id=identity.agent_id,
            agent_name=self._bench.settings.name,
            incarnation=identity.incarnation,
            task_id=self._task_id,
            epoch=self._epoch,
            server_url=self._bench.options.address.url,
            token_file=_private(self._folder / "token", self._lease.attempt_token),
            programs=Path(sys.executable).parent,
        )
        inherited = {**process.without_secrets(os.environ), **_tls_files(self._bench.options.address)}
        return command.environment(inherited, self._cli.env, around, owner=OWNER, attempt=ATTEMPT)

    def _reported(self) -> bool:
        """Tell whether the CLI itself ended this very attempt."""
        try:
            task = self._bench.server.get(f"/v1/tasks/{self._task_id}", give_up_s=GOODBYE_S).read(TaskView)
        except (Refused, Away) as failure:
            log.info("whether task %s was reported is not known: %s", self._task_id, failure)
            return False
        over = task.state in (TaskState.COMPLETED, TaskState.FAILED, TaskState.DELAYED)
        return over and task.epoch == self._epoch

    def _report(self, ended: Outcome) -> None:
        match ended:
            case Interrupted():
                if self._bench.control.end is End.TERMINATED:
                    self._say("release", ReleaseRequest(epoch=self._epoch, reason=ended.reason))
            case NotStarted():
                self._say("release", ReleaseRequest(epoch=self._epoch, reason=ended.reason))
            case Exited(status=0) if self._cli.on_exit_zero == REPROMPT:
                reason = f"the agent CLI ended {prompt.MAX_REPROMPTS + 1} times with exit code 0 without reporting"
                self._say("fail", FailRequest(reason=reason, epoch=self._epoch))
            case Exited(status=0):
                self._complete(ended)
            case Exited() | TimedOut():
                self._say("fail", FailRequest(reason=outcome.failure(ended), epoch=self._epoch))

    def _complete(self, ended: Exited) -> None:
        """Complete with what was printed, shorter where the server finds it too large in its escaped form."""
        for limit in _SHORTER:
            result = outcome.result(ended, limit_bytes=limit)
            try:
                self._say("complete", CompleteRequest(result=result, epoch=self._epoch))
            except Refused as refusal:
                if refusal.status != _TOO_LARGE or limit == _SHORTER[-1]:
                    raise
            else:
                return

    def _say(self, how: str, body: CompleteRequest | FailRequest | ReleaseRequest) -> None:
        if self._bench.control.end is not None:
            self._line.be_brief(GOODBYE_S)
        self._line.post(f"/v1/tasks/{self._task_id}/{how}", body)


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


def _tls_files(address: ServerAddress) -> dict[str, str]:
    """Return what lets the CLI's ``tt`` trust the server as we do; a town's own one it knows by the town's folder."""
    named = {
        "TINYTOWN_CA_FILE": address.ca_file,
        "TINYTOWN_CLIENT_CERT": address.certificate,
        "TINYTOWN_CLIENT_KEY": address.key,
    }
    return {name: str(path) for name, path in named.items() if path is not None}

"""A run's task in the town: its lease is the run's, and its epoch fences whatever is done for an attempt."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from borough.core.errors import Conflict, NotFound
from borough.runs.runs import Run
from borough.town.agents import TERMINAL as ENDED
from borough.town.agents import AgentState, Directive, NewAgent, WorkerProcess
from borough.town.names import SUPERVISOR_ID
from borough.town.ports.agents import Agents
from borough.town.ports.leases import Leases
from borough.town.ports.tasks import Tasks
from borough.town.tasks import TERMINAL, NewTask, RetryPolicy, Task, TaskState

ROLE: Final = "run"
MARGIN: Final = timedelta(minutes=20)
"""A lease outlives its attempt's machine: it is ended by a word, and lapses only where nobody is left to say it."""
MOST_RESULT_BYTES: Final = 1_000_000
_RESULT_LEFT_OUT: Final = "\n[cut]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Town:
    """What runs use of the town."""

    tasks: Tasks
    leases: Leases
    agents: Agents
    retry: RetryPolicy


class RunTasks:
    """The tasks of runs, and who holds them."""

    def __init__(self, town: Town) -> None:
        self._town = town

    async def give(self, run: Run) -> None:
        """See to it that the run's task is there, in the inbox of a worker that exists for it alone."""
        name = run.name if run.tries == 1 else f"{run.name}-{run.tries}"
        worker = NewAgent(id=run.worker_id, name=name, cli=ROLE, role_id=ROLE)
        await self._town.agents.add(worker, max_agents=0, at_most=False)
        task = NewTask(
            id=run.task_id,
            description=run.order.task,
            sender=SUPERVISOR_ID,
            role=ROLE,
            tags=(f"run:{run.id}",),
            max_attempts=run.order.max_attempts,
            timeout_s=run.order.timeout_s,
        )
        await self._town.tasks.assign(task, agent=run.worker_id)

    async def take(self, run: Run) -> Task | None:
        """Lease the run's task, or return the lease that is held; ``None``: its pause after a failure is not over.

        Raises:
            Conflict: it is over, or in somebody else's hand (``task_elsewhere``).
        """
        worker = await self._town.agents.get(run.worker_id)
        if worker.state in ENDED:
            worker = await self._town.agents.begin(run.worker_id, reason="its run goes on")
        if worker.state is AgentState.STARTING:
            process = WorkerProcess(host=f"run:{run.id}", pid=1, started_ticks=0)
            worker = await self._town.leases.start(
                run.worker_id, incarnation=worker.incarnation, process=process, lease=lease_of(run)
            )
        lease, _mail = await self._town.leases.take(run.worker_id, incarnation=worker.incarnation, lease=lease_of(run))
        if lease is not None:
            return lease.task
        task, _history = await self._town.tasks.get(run.task_id)
        if task.state is TaskState.PENDING:  # its worker was lost, and it went to everybody's backlog
            await self._town.tasks.claim(run.task_id, agent=run.worker_id)
        elif task.state in TERMINAL or task.assigned_to not in (None, run.worker_id):
            raise Conflict(
                f"the task of {run.name} is {task.state.value}",
                code="task_elsewhere",
                reason=task.result or task.last_error,
                resolution="ask for the run again",
            )
        return None

    async def beat(self, run: Run) -> bool:
        """Renew the lease; tell whether it still is the run's."""
        attempt = run.attempt
        if attempt is None:
            return True
        try:
            worker = await self._town.agents.get(run.worker_id)
            heartbeat = await self._town.leases.beat(
                run.worker_id, incarnation=worker.incarnation, task_id=run.task_id, epoch=attempt.epoch,
                lease=lease_of(run),
            )  # fmt: skip
        except (Conflict, NotFound):
            return False
        return heartbeat.directive not in (Directive.DROP, Directive.STOP)

    async def is_held(self, run: Run) -> bool:
        """Tell whether the run's attempt holds its lease."""
        attempt = run.attempt
        return attempt is not None and await self._town.leases.attempt_is_live(run.task_id, epoch=attempt.epoch)

    async def complete(self, run: Run, answer: str) -> None:
        """End the task well.

        Raises:
            Conflict: the attempt is not the holder any more (``stale_epoch``, ``task_finished``).
        """
        epoch = None if run.attempt is None else run.attempt.epoch
        await self._town.tasks.complete(run.task_id, epoch=epoch, result=_bounded(answer or "done"), by=run.name)

    async def fail(self, run: Run, reason: str, *, final: bool) -> bool:
        """End the attempt badly; tell whether there is another. One that is not the holder any more ends nothing."""
        if run.attempt is not None:
            try:
                task = await self._town.tasks.fail(
                    run.task_id, epoch=run.attempt.epoch, reason=_bounded(reason), retry=self._town.retry, final=final,
                    by=run.name,
                )  # fmt: skip
            except Conflict:
                task, _history = await self._town.tasks.get(run.task_id)
        else:
            task, _history = await self._town.tasks.get(run.task_id)
        return task.state not in TERMINAL

    async def end(self, run: Run, reason: str, *, by: str) -> None:
        """Take the task from whoever holds it, for good: no epoch holds from here on. One that is over stays so."""
        try:
            await self._town.tasks.cancel(run.task_id, reason=_bounded(reason), by=by)
        except (Conflict, NotFound):
            return

    async def leave(self, run: Run) -> None:
        """Let the run's worker go."""
        try:
            await self._town.agents.kill(run.worker_id, reason="its run is over")
        except NotFound:
            return


def lease_of(run: Run) -> timedelta:
    """Return how long a run's lease lasts from each heartbeat on."""
    return timedelta(seconds=run.order.timeout_s) + MARGIN


def _bounded(text: str) -> str:
    data = text.encode("utf-8", "replace")
    if len(data) <= MOST_RESULT_BYTES:
        return data.decode()
    return data[:MOST_RESULT_BYTES].decode(errors="ignore") + _RESULT_LEFT_OUT

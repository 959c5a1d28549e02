"""What the town needs from outside. One method is one atomic step, in one round trip, event included.

An agent may be named by every method that takes an ``agent`` reference: by id, name (any case), nickname, label or
short id; ``supervisor`` and ``conductor`` (any case) stand for the supervisor's mailbox. Such methods raise
``NotFound`` (code ``agent_not_found``) and ``Conflict`` (code ``agent_ambiguous``, the candidates in ``reason``).
Methods that take a task id raise ``NotFound`` (code ``task_not_found``). All raise ``Unavailable`` (code
``store_unavailable``) when the store does not answer; every method may then be repeated with the same arguments.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from borough.core.events import Event
from borough.core.ids import AgentId, MessageId, TaskId
from borough.core.paging import Page, PageRequest
from borough.town.agents import Agent, AgentState, Confinement, Directive, NewAgent, WorkerProcess
from borough.town.explain import TaskContext
from borough.town.messages import Inbox, Message, NewMessage
from borough.town.scaling import Snapshot
from borough.town.tasks import HistoryEntry, Lease, NewTask, RetryPolicy, Task, TaskState


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks; ``None`` means any."""

    state: TaskState | None = None
    agent: str | None = None
    """A reference to the agent it is assigned to."""
    role: str | None = None
    tag: str | None = None
    newest_first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A task and whom it went to."""

    task: Task
    agent_id: AgentId
    agent_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphanTask:
    """An unfinished task whose assignee is gone (``agent_missing``) or ended (``agent_terminal``)."""

    task: Task
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """What a worker learns when it reports."""

    directive: Directive
    lease_expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one pass of the lease keeper did."""

    retried: tuple[TaskId, ...]
    dead: tuple[TaskId, ...]
    promoted: int
    """Delayed tasks whose time had come."""
    lost_agents: tuple[Agent, ...]
    """Agents whose lease ended; now in state ``error``."""


class Tasks(Protocol):
    """Tasks that wait, and tasks that are over."""

    async def add_to_backlog(self, new: NewTask) -> Task:
        """Store ``new`` in state ``pending``. An id that is already there: return that task, change nothing."""

    async def assign(self, new: NewTask, *, agent: str) -> Assignment:
        """Store ``new`` in state ``assigned`` at the end of ``agent``'s inbox; idempotent by id.

        Raises:
            Conflict: the agent has ended (``agent_not_running``) or is the supervisor (``agent_is_supervisor``).
        """

    async def get(self, task_id: TaskId) -> tuple[Task, tuple[HistoryEntry, ...]]:
        """Return the task and its history, oldest first (at most the last 50 entries)."""

    async def find(self, wanted: TaskFilter, page: PageRequest) -> Page[Task]:
        """Return tasks, oldest first unless the newest are wanted first. ``agent`` as in the module's docstring."""

    async def newest(self, *, limit: int) -> tuple[Task, ...]:
        """Return the tasks that came last, the newest first."""

    async def backlog(self, page: PageRequest) -> Page[Task]:
        """Return pending tasks in the order in which they will be taken: urgent first, then oldest first."""

    async def pending(self, page: PageRequest) -> Page[Assignment]:
        """Return assigned tasks that no worker has taken yet, oldest first."""

    async def claim(self, task_id: TaskId, *, agent: str) -> Assignment:
        """Move a task from the backlog into ``agent``'s inbox (ahead of nothing: at its end).

        Raises:
            Conflict: the task is not in the backlog (``not_in_backlog``), or as for ``assign``. Nothing moved then.
        """

    async def claim_all(self, *, agent: str) -> tuple[AgentId, tuple[TaskId, ...]]:
        """Move the whole backlog into ``agent``'s inbox, in its order; return the agent and the ids."""

    async def remove_from_backlog(self, task_id: TaskId) -> None:
        """Delete a pending task and its record.

        Raises:
            NotFound: no such task, or it is not in the backlog (``not_in_backlog``).
        """

    async def complete(self, task_id: TaskId, *, epoch: int | None, result: str, by: str) -> Task:
        """End a task well. With ``epoch``: only the holder of that lease may; without: ends any lease.

        Completing what this very epoch completed returns the task unchanged.

        Raises:
            Conflict: another epoch holds it (``stale_epoch``) or it is over already (``task_finished``).
        """

    async def fail(
        self, task_id: TaskId, *, epoch: int | None, reason: str, retry: RetryPolicy, final: bool, by: str
    ) -> Task:
        """End an attempt badly: ``delayed`` until the policy's pause is over, or ``failed`` when attempts are used
        up or ``final``. Epochs and errors as for ``complete``; failing a task that nobody holds is always final.
        """

    async def release(self, task_id: TaskId, *, epoch: int, reason: str) -> Task:
        """Give a leased task back unharmed: the attempt is not counted, it stands first in its queue's order again
        as nearly as the queue allows. Errors as for ``complete``.
        """

    async def cancel(self, task_id: TaskId, *, reason: str, by: str) -> Task:
        """End a task that is not over, fencing its lease. Cancelling a cancelled task changes nothing.

        Raises:
            Conflict: it is completed or failed (``task_finished``).
        """

    async def replay(self, task_id: TaskId, *, by: str) -> Task:
        """Put a failed, cancelled or delayed task back to work at once, with attempts counted from zero if it was
        over. It returns to its agent's inbox if that agent still runs, else to the backlog.

        Raises:
            Conflict: it is not in such a state (``not_replayable``).
        """

    async def replay_dead_letters(self, *, limit: int, by: str) -> tuple[TaskId, ...]:
        """Replay the ``limit`` oldest failed tasks; return their ids."""

    async def context(self, task_id: TaskId) -> TaskContext:
        """Return what explains where the task stands."""

    async def forget(self, task_id: TaskId) -> None:
        """Delete the record of a task that is over; raises ``Conflict`` (``task_not_finished``) for any other."""

    async def forget_finished(self, *, before: datetime, limit: int) -> tuple[TaskId, ...]:
        """Delete at most ``limit`` completed and cancelled tasks that ended before ``before``; return their ids."""


class Leases(Protocol):
    """Work in hand. Every method is a worker's and names its ``incarnation``.

    All raise ``Conflict`` (code ``stale_incarnation``) when the agent has been started again or stopped since.
    An agent holds at most one lease.
    """

    async def start(self, agent_id: AgentId, *, incarnation: int, process: WorkerProcess, lease: timedelta) -> Agent:
        """The worker is up: ``starting`` becomes ``idle`` (a paused agent stays paused), its lease begins.

        Repeating it, also from a restarted worker of the same incarnation, releases what the agent still held.
        """

    async def take(
        self, agent_id: AgentId, *, incarnation: int, lease: timedelta
    ) -> tuple[Lease | None, tuple[Message, ...]]:
        """Lease the next task for the agent and return it with all unread mail, which is thereby read.

        Order: urgent of its inbox, urgent of the backlog it may take, its inbox, the backlog; each first in, first
        out, across roles too. Generalists (``names.GENERALIST_ROLES``) may take every role, others their own and
        tasks without one. An agent that already holds a lease gets the same one again, extended: so a lost answer
        is repaired by asking again. Paused, draining and ended agents get ``None``. Mail alone is no reason to wake
        an agent: without a task, no mail is returned. Also renews the agent's own lease, moves it to ``working``
        or leaves it ``idle``, and promotes delayed tasks that are due.
        """

    async def beat(
        self,
        agent_id: AgentId,
        *,
        incarnation: int,
        task_id: TaskId | None,
        epoch: int | None,
        lease: timedelta,
    ) -> Heartbeat:
        """Renew the agent's lease and, if it is still the holder, the task's; say what to do next."""

    async def leave(self, agent_id: AgentId, *, incarnation: int, state: AgentState, reason: str) -> Agent:
        """The worker goes: ``stopped`` or ``error``. A lease it still held is released. Leaving twice is fine.

        Raises:
            Conflict: unread work waits in its inbox and the agent was not told to drain or stop
                (``work_waiting``); the worker is then to go on.
        """

    async def lose(self, agent_id: AgentId, *, incarnation: int, reason: str, retry: RetryPolicy) -> Agent:
        """The worker ended without a goodbye: the agent's state is ``error``, this incarnation is over, and the
        attempt it held has failed. Losing an ended agent changes nothing.
        """

    async def drain_if_idle(self, agent_id: AgentId, *, incarnation: int) -> bool:
        """Move an idle agent with an empty inbox to ``draining``; return whether it did."""

    async def sweep(self, *, retry: RetryPolicy, limit: int, agent_grace: timedelta) -> Swept:
        """End what is overdue: task leases (failed attempt, reason ``lease expired``), agent leases (state
        ``error``, its task retried), agents that never reported within ``agent_grace`` of their start; promote due
        retries. At most ``limit`` of each.
        """

    async def attempt_is_live(self, task_id: TaskId, *, epoch: int) -> bool:
        """Tell whether the attempt that an agent CLI's token speaks for still holds its lease."""


class Agents(Protocol):
    """The register of agents."""

    async def add(self, new: NewAgent, *, max_agents: int, at_most: bool = True) -> Agent:
        """Register ``new`` in state ``starting``, incarnation 1 (or the next one when adopted); idempotent by id. One
        that is registered whatever the limit says does not count for it either.

        Raises:
            Conflict: the name is taken (``agent_exists``), or ``at_most`` and ``max_agents`` agents are not ended
                (``town_full``).
            NotFound: the parent does not exist (``parent_not_found``).
        """

    async def get(self, agent: str) -> Agent:
        """Return one agent. The supervisor has no record: ``NotFound``."""

    async def history(self, agent: str) -> tuple[HistoryEntry, ...]:
        """Return what happened to the agent, oldest first (at most the last 50 entries)."""

    async def all(self) -> tuple[Agent, ...]:
        """Return every agent, oldest first."""

    async def kill(self, agent: str, *, reason: str) -> Agent:
        """End the agent now: state ``stopped``, incarnation raised (its worker is fenced from here on), a lease it
        held released to its queue. Killing an ended agent changes nothing. Returns the agent as it was before,
        with its process.
        """

    async def begin(self, agent: str, *, reason: str) -> Agent:
        """Prepare a new incarnation: kill it if it lives, then ``starting``, counters of rounds at zero,
        ``last_active_at`` and ``last_heartbeat`` now. Returns the agent as it is after.
        """

    async def pause(self, agent: str) -> Agent:
        """``paused``; raises ``Conflict`` (``agent_not_running``) for an ended or draining agent."""

    async def resume(self, agent: str) -> Agent:
        """``paused`` becomes ``idle`` or, with a task in hand, ``working``; ``last_active_at`` is now.

        Raises:
            Conflict: it is not paused (``agent_not_paused``).
        """

    async def close(self, agent: str) -> Agent:
        """``draining``; raises ``Conflict`` (``agent_not_running``) for an ended agent."""

    async def prune(self, *, every: bool, dry_run: bool) -> tuple[Agent, ...]:
        """Forget ended agents (``every``: also live ones, which are killed first); what waited in their inboxes
        goes to the backlog, mail is dropped. Returns the agents as they were. ``dry_run`` only looks.
        """

    async def reclaim(
        self, *, of: str | None, to_backlog: bool, to: str | None, after: timedelta | None = None
    ) -> tuple[Assignment, ...]:
        """Move the unread work of ended agents (or of the one ended agent ``of``) to the backlog or to agent
        ``to``; with neither, only look. ``after``: only of agents that ended at least so long ago. Returns what
        moved (or would), with the agent whose it was.
        """

    async def orphans(self) -> tuple[OrphanTask, ...]:
        """Return unfinished tasks whose assignee is gone or ended; the supervisor is never one."""


class Mailbox(Protocol):
    """Inboxes and mail."""

    async def send(self, message: NewMessage, *, to: str, task: NewTask | None) -> Message:
        """Deliver a message; ``task`` is what it becomes when it is work for an agent (same id). To the supervisor
        everything is mail. Idempotent by id. Raises as ``Tasks.assign``; an unknown sender is ``NotFound``
        (``sender_not_found``).
        """

    async def peek(self, agent: str, *, limit: int) -> Inbox:
        """Return the unread entries without consuming any."""

    async def read(self, agent: str, message_id: MessageId) -> Message:
        """Return one message whole; raises ``NotFound`` (``message_not_found``)."""

    async def acknowledge(self, agent: str, ids: Sequence[MessageId] | None) -> int:
        """Take mail out of the inbox (``None``: all of it); return how many. Ids that are not there are fine.

        Raises:
            Conflict: one of them is work (``message_is_work``): it is completed or cancelled, not acknowledged.
        """


class Events(Protocol):
    """The town's stream of events; ids rise."""

    async def append(self, event_type: str, message: str, subjects: Mapping[str, str]) -> str:
        """Write an event that belongs to no other change (a refused login, say); return its id."""

    async def after(self, event_id: str, *, limit: int) -> tuple[Event, ...]:
        """Return events after ``event_id``, oldest first."""

    async def newest(self, *, limit: int, agent: str | None = None) -> tuple[Event, ...]:
        """Return the newest events, oldest first; of one agent's own stream if ``agent`` is given."""

    async def bounds(self) -> tuple[str, str] | None:
        """Return the ids of the first and last event that are kept, or ``None`` when there are none."""

    async def keep_until_read(self, *, keep: bool) -> None:
        """Say whether somebody has to read every event: the oldest go only by ``forget_read`` then."""

    async def forget_read(self, up_to: str) -> int:
        """Drop the oldest events beyond what is kept, none of them after ``up_to``; return how many went.

        Where many are unread, none goes: it is asked again.
        """


class EventFeed(Protocol):
    """Events as they happen, fanned out inside this process from one connection."""

    def subscribe(self, *, capacity: int = 1000) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """Yield every event from now on. A reader that falls ``capacity`` behind is cut off: its iterator ends."""

    def work_arrives(self, *, timeout_s: float) -> AbstractAsyncContextManager["Bell"]:
        """Stand in line for new work; the one who waits longest is woken first."""

    def agent_changes(self, agent_id: AgentId) -> AbstractAsyncContextManager["Bell"]:
        """Be woken when something happens to this agent or to the task in its hand."""


class Bell(Protocol):
    """Rings when there may be something to do; a spurious ring is allowed, a missed one ends by timeout."""

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a ring; return whether it came in time."""

    def pass_on(self) -> None:
        """Ring for the next in line: this waiter was rung but is gone."""


class Readings(Protocol):
    """Counts, cheap whatever the number of finished tasks."""

    async def snapshot(self) -> Snapshot:
        """Return all counts at one moment."""

    async def waiting(self) -> Mapping[str | None, int]:
        """Return how many tasks of the shared backlog wait for each role, those for anybody under ``None``."""

    async def counts(self) -> Mapping[TaskState, int]:
        """Return how many tasks are in each state, every state included."""

    async def ping(self) -> float:
        """Return the store's round trip in seconds; raises ``Unavailable``."""

    async def durability(self) -> str:
        """Return what an acknowledged write survives: ``always``, ``everysec`` or ``none``."""


class Administration(Protocol):
    """Acts on the town as a whole."""

    async def reset(self, *, agents_only: bool) -> int:
        """Delete everything of the town (or its agents and their mail only; their work returns to the backlog);
        return how many records went.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReply:
    """An answer kept for its repetition."""

    fingerprint: str
    status: int | None
    """``None`` while the first request is still under way."""
    content_type: str = ""
    body: bytes = b""


class Replies(Protocol):
    """Answers by idempotency key."""

    async def begin(self, key: str, *, fingerprint: str, ttl: timedelta) -> StoredReply | None:
        """Claim ``key``; return what is stored under it if somebody was first, else ``None``."""

    async def hold(self, key: str, *, ttl: timedelta) -> None:
        """Let a claim last ``ttl`` from now on; one that has ended stays so."""

    async def finish(self, key: str, reply: StoredReply, *, ttl: timedelta) -> None:
        """Keep the answer."""

    async def abandon(self, key: str) -> None:
        """Free ``key``: the request failed in a way that may be repeated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOrder:
    """What a launcher needs to start a worker."""

    agent_id: AgentId
    name: str
    incarnation: int
    server_url: str
    token: str
    """The worker's own credential; never an argument, never logged."""
    cli: str = ""
    """What it is to run, as its agent has it: its box shows what that needs."""


class Launcher(Protocol):
    """Starts and ends worker processes on this machine."""

    async def launch(self, order: LaunchOrder) -> WorkerProcess:
        """Start a worker; raises ``Unavailable`` (``launch_failed``)."""

    def confinement(self, agent_id: AgentId, incarnation: int, process: WorkerProcess | None) -> Confinement | None:
        """Tell whether a worker is in a box; ``None`` where it runs on another machine, or has not begun."""

    async def end(self, agent_id: AgentId, process: WorkerProcess | None, *, grace: timedelta) -> None:
        """End the worker and everything that descends from it, and prove that nothing is left. Not ours or not
        there any more: nothing happens.
        """

    async def freeze(self, agent_id: AgentId, process: WorkerProcess | None) -> bool:
        """Stop the worker and everything that descends from it where it is; tell whether there was something of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPart:
    """A piece of the log of one lease."""

    epoch: int
    offset: int
    data: bytes
    size: int
    """How long the log is now."""


class TaskLogs(Protocol):
    """What agent CLIs print, one log a lease."""

    async def append(self, task_id: TaskId, epoch: int, *, offset: int, data: bytes) -> int:
        """Write ``data`` at ``offset`` and return the new size; what is already there is not written twice.

        Raises:
            Conflict: there is a hole before ``offset`` (``log_hole``, the size in ``details``).
        """

    async def read(self, task_id: TaskId, epoch: int | None, *, offset: int, limit: int) -> LogPart:
        """Return a part of the log of one lease (``None``: the last that has one).

        Raises:
            NotFound: there is none (``log_not_found``).
        """

    async def forget(self, task_id: TaskId) -> None:
        """Delete a task's logs."""

    async def forget_all(self) -> None:
        """Delete every task's logs."""


class WorkerTokens(Protocol):
    """Credentials of workers and of the agent CLIs that they run."""

    def mint(
        self, *, agent_id: AgentId, incarnation: int, task_id: TaskId | None = None, epoch: int | None = None
    ) -> str:
        """Return a token that says exactly this and cannot be forged."""

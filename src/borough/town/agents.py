"""Agents: workers with a name, an inbox and a lease; their states and legal moves."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from borough.core.ids import SHORT_LENGTH, AgentId, TaskId
from borough.town.names import DEFAULT_ROLE


class AgentState(StrEnum):
    """The reference's words; stored as they are, shown capitalised."""

    COLD = "cold"
    """Known, without a process, to be started when somebody asks for it."""
    STARTING = "starting"
    IDLE = "idle"
    WORKING = "working"
    PAUSED = "paused"
    DRAINING = "draining"
    """Finishes what it has and takes nothing new."""
    STOPPED = "stopped"
    ERROR = "error"
    """Its process ended or fell silent without saying goodbye."""


_ENDS = frozenset({AgentState.STOPPED, AgentState.ERROR})

MOVES: dict[AgentState, frozenset[AgentState]] = {
    AgentState.COLD: frozenset({AgentState.STARTING}) | _ENDS,
    AgentState.STARTING: frozenset({AgentState.IDLE, AgentState.PAUSED, AgentState.DRAINING}) | _ENDS,
    AgentState.IDLE: frozenset({AgentState.WORKING, AgentState.PAUSED, AgentState.DRAINING}) | _ENDS,
    AgentState.WORKING: frozenset({AgentState.IDLE, AgentState.PAUSED, AgentState.DRAINING}) | _ENDS,
    AgentState.PAUSED: frozenset({AgentState.IDLE, AgentState.WORKING, AgentState.DRAINING}) | _ENDS,
    AgentState.DRAINING: _ENDS,
    AgentState.STOPPED: frozenset({AgentState.STARTING}),
    AgentState.ERROR: frozenset({AgentState.STARTING, AgentState.STOPPED}),
}

TERMINAL: frozenset[AgentState] = frozenset({AgentState.STOPPED, AgentState.ERROR, AgentState.COLD})
ACTIVE: frozenset[AgentState] = frozenset(AgentState) - TERMINAL
PRUNABLE: frozenset[AgentState] = _ENDS


class Directive(StrEnum):
    """What a worker is to do next, told with each heartbeat."""

    RUN = "run"
    PAUSE = "pause"
    """Freeze the running CLI and claim nothing."""
    DRAIN = "drain"
    """Finish the present task, then leave."""
    DROP = "drop"
    """The task that was named is no longer this worker's: end its CLI, then go on."""
    STOP = "stop"
    """This incarnation is over: end the CLI at once and leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProcess:
    """The process that serves an agent. Pid and start time together prove whose it is."""

    host: str
    pid: int
    started_ticks: int
    """Clock ticks after boot, field 22 of ``/proc/PID/stat`` (proc(5))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """Whether a worker of this machine is in a box."""

    boxed: bool
    reason: str | None = None
    """Why it is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAgent:
    """An agent that is to be registered, in state ``starting``."""

    id: AgentId
    name: str
    cli: str
    role_id: str | None = None
    nickname: str | None = None
    parent_agent_id: AgentId | None = None
    adopt: bool = False
    """Take over an ended agent of the same name instead of refusing: same id, next incarnation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An agent as stored, with the lengths of its inbox."""

    id: AgentId
    name: str
    nickname: str | None
    role_id: str | None
    parent_agent_id: AgentId | None
    spawn_mode: str
    cli: str
    state: AgentState
    state_since: datetime
    reason: str | None
    """Why it is in this state, when somebody or something else put it there."""
    current_task: TaskId | None
    current_scope: str | None
    """Description of the current task."""
    created_at: datetime
    last_heartbeat: datetime
    last_active_at: datetime
    tasks_completed: int
    rounds_completed: int
    inbox_len: int
    """Unread work and mail that is not urgent."""
    urgent_len: int
    incarnation: int
    """Rises with each start; tokens and writes of an earlier incarnation are refused."""
    lease_expires_at: datetime | None
    """Set once a worker has reported; alive means: not yet past."""
    process: WorkerProcess | None

    @property
    def role(self) -> str:
        """The effective role."""
        return self.role_id or DEFAULT_ROLE

    @property
    def label(self) -> str:
        """How people see it: ``Display [role]``, or ``Display [name]`` without a role."""
        return f"{self.nickname or self.name} [{self.role_id or self.name}]"

    @property
    def short_id(self) -> str:
        """The first characters of the id."""
        return self.id[:SHORT_LENGTH]


def is_live(
    state: AgentState,
    *,
    lease_expires_at: datetime | None,
    last_heartbeat: datetime,
    now: datetime,
    grace: timedelta = timedelta(seconds=120),
) -> bool:
    """Tell whether an agent counts as running.

    One that has held a lease lives as long as the lease; one that never reported counts by its state until its
    record is older than ``grace``.
    """
    if state not in ACTIVE:
        return False
    if lease_expires_at is not None:
        return lease_expires_at > now
    return now - last_heartbeat <= grace

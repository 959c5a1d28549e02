"""A run as it is kept: what was asked, what was decided, how far it is, what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from borough.core.ids import AgentId, TaskId
from borough.fleet.engines import Engine
from borough.fleet.vms import VmId
from borough.governance.trust import TrustLevel
from borough.runs.admission import Admission, Start
from borough.runs.orders import RunOrder
from borough.runs.states import TERMINAL, RunState, move

SHOWN_CHARACTERS = 8
"""How much of a run's id is in the names that are made from it."""


class Wish(StrEnum):
    """What somebody asked of a run that is not over; it is written before it is done."""

    CANCEL = "cancel"
    KILL = "kill"
    QUARANTINE = "quarantine"


class ChangeKind(StrEnum):
    """What became of a file."""

    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"
    BINARY = "binary"
    """It changed, and its content is no text: the patch only names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedFile:
    """A file that the run changed."""

    path: str
    kind: ChangeKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run brought back."""

    answer: str = ""
    exit_code: int | None = None
    files_changed: tuple[ChangedFile, ...] = ()
    patch_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a run used."""

    tokens: int = 0
    cost_micros: int = 0
    tool_calls: int = 0
    wall_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAgent:
    """The governed agent in whose name the run acts; it lives in the register, its program in the machine."""

    id: AgentId
    name: str
    trust_level: TrustLevel
    manifest_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where an attempt is worked."""

    env_id: str
    vm_id: VmId
    host_id: str = ""
    engine: Engine
    state: str = "creating"
    start: Start = Start.COLD
    """Whether it stood ready, or was made for the attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One lease of the run's task, with a machine of its own. ``epoch`` fences everything that is done for it."""

    number: int
    epoch: int
    machine: Machine
    token_name: str
    """Under which its credential is known; each start has another."""
    begun_at: datetime
    working_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: str | None = None
    """How it ended, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run."""

    id: str
    order: RunOrder
    manifest: str = field(repr=False)
    """The text that holds for it."""
    agent: RunAgent
    admission: Admission
    task_id: TaskId
    worker_id: AgentId
    """Who holds its task in the town."""
    created_by: str
    created_at: datetime
    since: datetime
    state: RunState = RunState.ADMITTED
    reason: str | None = None
    resolution: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    tries: int = 1
    """How often it was asked for: 1, and one more for each retry."""
    earlier_attempts: int = 0
    """How many attempts there were before the last retry."""
    attempt: Attempt | None = None
    past: tuple[Attempt, ...] = ()
    """The attempts before this one, oldest first."""
    result: Result | None = None
    spent: Spent = field(default_factory=Spent)
    has_source: bool = True
    """Whether everything that it begins with is there; else it waits for the upload."""
    wish: Wish | None = None
    wish_reason: str | None = None
    wished_by: str | None = None
    quarantined: bool = False
    is_clean: bool = False
    """Whether nothing of it is left but what is kept: no machine, no credential, no lease."""
    revision: int = 0

    @property
    def name(self) -> str:
        """Return what things are called that are made for it."""
        return f"run-{self.id[:SHOWN_CHARACTERS]}"

    @property
    def is_over(self) -> bool:
        """Tell whether it has ended."""
        return self.state in TERMINAL

    @property
    def labels(self) -> Mapping[str, str]:
        """Return what the caller marked it with."""
        return self.order.labels


def moved(
    run: Run, to: RunState, *, at: datetime, reason: str | None = None, resolution: str | None = None
) -> Run:  # fmt: skip
    """Return ``run`` in another state; raises as ``states.move``."""
    move(run.state, to)
    now = run if to is run.state else replace(run, state=to, since=at)
    now = replace(now, reason=reason, resolution=resolution)
    if to is RunState.WORKING and now.started_at is None:
        now = replace(now, started_at=at)
    return replace(now, ended_at=at) if to in TERMINAL else now


def with_attempt(run: Run, attempt: Attempt) -> Run:
    """Return ``run`` with its next attempt; what was there before goes into its past."""
    past = run.past if run.attempt is None else (*run.past, run.attempt)
    return replace(run, attempt=attempt, past=past)


def attempt_ended(run: Run, outcome: str, *, at: datetime) -> Run:
    """Return ``run`` with its attempt over; one that is over stays as it is."""
    if run.attempt is None or run.attempt.ended_at is not None:
        return run
    return replace(run, attempt=replace(run.attempt, ended_at=at, outcome=outcome))


def asked_again(
    run: Run, agent: RunAgent, admission: Admission, *, task_id: TaskId, worker_id: AgentId, at: datetime
) -> Run:
    """Return a run that is over as it begins anew: another task, agent and machine, its history kept.

    Raises:
        Conflict: it is not over (``illegal_run_state``).
    """
    again = moved(run, RunState.ADMITTED, at=at)
    number = 0 if run.attempt is None else run.attempt.number
    past = run.past if run.attempt is None else (*run.past, run.attempt)
    return replace(
        again,
        agent=agent,
        admission=admission,
        task_id=task_id,
        worker_id=worker_id,
        tries=run.tries + 1,
        earlier_attempts=number,
        attempt=None,
        past=past,
        result=None,
        ended_at=None,
        started_at=None,
        wish=None,
        wish_reason=None,
        wished_by=None,
        quarantined=False,
        is_clean=False,
    )

"""What a worker and the town say to each other."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from borough.http.town.views import MessageView, TaskView
from borough.http.town.wire import Epoch, Role, Spawned, Strict, Text, Timestamp, Uuid


class RegisterRequest(Strict, kw_only=True):
    """A worker that was started elsewhere reports for duty."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    cli: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    role_id: Role | None = None
    nickname: Annotated[str, Meta(min_length=1, max_length=63)] | None = None


class StartRequest(Strict, kw_only=True):
    host: Annotated[str, Meta(min_length=1, max_length=255)]
    pid: Annotated[int, Meta(ge=1, le=4_194_304)]
    """At most the kernel's PID_MAX_LIMIT (proc(5))."""
    started_ticks: Annotated[int, Meta(ge=0, le=9_007_199_254_740_991)]


class HeartbeatRequest(Strict, kw_only=True):
    task_id: Uuid | None = None
    epoch: Epoch | None = None
    known: Literal["run", "pause", "drain", "drop", "stop"] = "run"
    """The directive the worker follows now; the answer is held back only while it stays that one."""


class LeaveRequest(Strict, kw_only=True):
    reason: Annotated[str, Meta(min_length=1, max_length=4096)]
    failed: bool = False


class ReleaseRequest(Strict, kw_only=True):
    epoch: Epoch
    reason: Text


class Registered(Spawned, kw_only=True):
    """``token`` is shown once; it is the worker's for this incarnation."""

    incarnation: int
    token: str


class WorkerSettings(Struct, kw_only=True):
    """How a worker is to behave; told when it starts."""

    agent_id: Uuid
    name: str
    town: str
    role: str
    state: str
    lease_ms: int
    heartbeat_ms: int
    idle_timeout_secs: int
    cli: "CliSettings"


class CliSettings(Struct, kw_only=True):
    name: str
    argv: list[str]
    input: str
    """``stdin``, ``file`` or ``argument``."""
    workdir: str | None
    env: dict[str, str]
    timeout_secs: int
    on_exit_zero: str
    """``complete`` or ``reprompt``."""


class LeaseView(Struct, kw_only=True):
    """One attempt in a worker's hand."""

    task: TaskView
    attempt_token: str
    """For the agent CLI: speaks for this attempt only."""
    mail: list[MessageView]


class HeartbeatView(Struct, kw_only=True):
    directive: str
    lease_expires_at: Timestamp


class DrainView(Struct, kw_only=True):
    draining: bool


class LogSize(Struct, kw_only=True):
    size: int

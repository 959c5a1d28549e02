"""The JSON of runs: one struct per body. Unknown members are refused; ``null`` is present, never left out."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from borough.http.town.wire import Strict, Text, Timestamp, Uuid
from borough.runs.orders import (
    DEFAULT_ATTEMPTS,
    DEFAULT_CPU,
    DEFAULT_DISK_MIB,
    DEFAULT_IMAGE,
    DEFAULT_MEMORY_MIB,
    DEFAULT_TIMEOUT_S,
    MOST_ATTEMPTS,
    MOST_TIMEOUT_S,
)

Word = Annotated[str, Meta(min_length=1, max_length=256)]
Words = Annotated[list[Annotated[str, Meta(max_length=131_072)]], Meta(max_length=1024)]
Count = Annotated[int, Meta(ge=0, le=9_007_199_254_740_991)]
Amount = Annotated[int, Meta(ge=1, le=1_048_576)]
Label = Annotated[str, Meta(max_length=128)]


class SourceBody(Strict, kw_only=True):
    """What the run begins with."""

    kind: Literal["folder", "git", "upload"]
    path: Annotated[str, Meta(max_length=4096, description="of a folder on the server's machine, absolute")] | None = (
        None
    )
    url: Annotated[str, Meta(max_length=2048, description="of a git remote")] | None = None
    ref: Annotated[str, Meta(max_length=255, description="branch, tag or commit of the remote")] | None = None


class BudgetBody(Strict, kw_only=True):
    """The most that it may use; null is no limit but the manifest's."""

    tokens: Count | None = None
    cost_micros: Count | None = None
    tool_calls: Count | None = None


class RunRequest(Strict, kw_only=True):
    task: Text
    manifest: Annotated[str, Meta(max_length=1_048_576, description="the YAML text")] | None = None
    agent: Annotated[Word, Meta(description="the name of an installed manifest, instead")] | None = None
    command: Annotated[Words, Meta(description="what is run inside; empty: what the manifest says")] = msgspec.field(
        default_factory=list
    )
    image: Word = DEFAULT_IMAGE
    engine: Annotated[Word, Meta(description="null: the lightest that may be used")] | None = None
    isolation: Annotated[Literal["process", "container", "vm"], Meta(description="a floor")] = "process"
    source: SourceBody | None = None
    cpu: Annotated[int, Meta(ge=1, le=4096)] = DEFAULT_CPU
    memory_mib: Amount = DEFAULT_MEMORY_MIB
    disk_mib: Annotated[int, Meta(ge=1, le=1_073_741_824)] = DEFAULT_DISK_MIB
    timeout_s: Annotated[int, Meta(ge=1, le=MOST_TIMEOUT_S)] = DEFAULT_TIMEOUT_S
    max_attempts: Annotated[int, Meta(ge=1, le=MOST_ATTEMPTS)] = DEFAULT_ATTEMPTS
    budget: BudgetBody | None = None
    labels: dict[Label, Label] = msgspec.field(default_factory=dict)


class EndRequest(Strict, kw_only=True):
    reason: Annotated[str, Meta(max_length=4096)] = ""


class KillRequest(Strict, kw_only=True):
    target: Annotated[str, Meta(min_length=1, max_length=256, description="a run, an agent: id or name")]
    quarantine: Annotated[bool, Meta(description="freeze its machine and keep it, instead of destroying it")] = False
    reason: Annotated[str, Meta(max_length=4096)] = ""


# -- answers -----------------------------------------------------------------------------------------------------------


class ReasonView(Struct, kw_only=True):
    subject: str
    reason: str


class BudgetView(Struct, kw_only=True):
    tokens: int | None
    cost_micros: int | None
    tool_calls: int | None


class AdmissionView(Struct, kw_only=True):
    """The decision about a run."""

    ok: bool
    engine: str | None
    host_id: str | None
    image: str
    image_digest: str | None
    isolation: Annotated[str, Meta(description="the floor that holds")]
    trust_level: str
    capabilities: list[str]
    domains: Annotated[list[str], Meta(description="what may be reached from inside; *: anything")]
    budget: BudgetView
    tools: Annotated[bool, Meta(description="whether its agent's tools are reached from inside")]
    start: Literal["warm", "cold"]
    expected_start_ms: int
    reasons: list[ReasonView]


class AgentView(Struct, kw_only=True):
    id: Uuid
    name: str
    trust_level: str
    manifest_digest: str


class MachineView(Struct, kw_only=True):
    env_id: str
    vm_id: str
    host_id: str
    engine: str
    state: str
    start: Literal["warm", "cold"]


class SpentView(Struct, kw_only=True):
    tokens: int
    cost_micros: int
    tool_calls: int
    wall_s: int


class ChangedFileView(Struct, kw_only=True):
    path: str
    kind: Literal["added", "modified", "deleted", "binary"]


class ResultView(Struct, kw_only=True):
    answer: str
    exit_code: int | None
    files_changed: list[ChangedFileView]
    patch_bytes: int


class AttemptView(Struct, kw_only=True):
    number: int
    epoch: Annotated[int, Meta(description="the fencing token of its lease")]
    env_id: str
    vm_id: str
    host_id: str
    start: Annotated[Literal["warm", "cold"], Meta(description="whether its machine stood ready, or was made for it")]
    begun_at: Timestamp
    working_at: Timestamp | None
    ended_at: Timestamp | None
    outcome: str | None


class RunView(Struct, kw_only=True):
    """A run."""

    id: Uuid
    name: str
    task: str
    task_id: Uuid
    state: str
    reason: str | None
    resolution: str | None
    next: Annotated[str, Meta(description="what comes next, in words")]
    since: Timestamp
    created_at: Timestamp
    started_at: Timestamp | None
    ended_at: Timestamp | None
    created_by: str
    attempt: int
    max_attempts: int
    attempts: Annotated[list[AttemptView], Meta(description="all of them, oldest first")]
    agent: AgentView
    admission: AdmissionView
    command: list[str]
    source: dict[str, Any] | None
    machine: MachineView | None
    budget: BudgetView
    spent: SpentView
    result: ResultView | None
    labels: dict[str, str]
    quarantined: bool


class RunList(Struct, kw_only=True):
    runs: list[RunView]
    next_cursor: str | None


class Killed(Struct, kw_only=True):
    target: str
    powerless_at: Timestamp
    took_ms: Annotated[float, Meta(description="from the call until it could do nothing more")]
    done: list[str]

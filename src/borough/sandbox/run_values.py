"""What runs answer with, and the budget that they are given."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Self, TypedDict, TypeVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The most that a run may use, beyond what its manifest says; ``None`` is no limit."""

    tokens: int | None = None
    cost_micros: int | None = None
    """Millionths of a unit of cost."""
    tool_calls: int | None = None

    def told(self) -> dict[str, int]:
        """Return what of it is set, as a request says it."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Asked(TypedDict, total=False):
    """What may be asked of a run; whatever is left out, the server decides (``docs/openapi/runs-v1.yaml``)."""

    command: Sequence[str]
    """What is run inside; without it, what the manifest says."""
    manifest: str | Path
    """Its text, or the path of its file."""
    agent: str
    """The name of an installed manifest, instead."""
    image: str
    engine: str
    """Only this one; without it, the lightest that may be used."""
    isolation: str
    """The weakest wall that will do: ``process``, ``container`` or ``vm``."""
    source: str | Path
    """A folder of this machine that is copied in."""
    git: str
    """The URL of a remote that is cloned inside, instead."""
    ref: str
    """Of the remote: a branch, a tag or a commit."""
    cpu: int
    memory_mib: int
    disk_mib: int
    timeout_s: int
    """For the command."""
    max_attempts: int
    budget: Budget
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Whether, where and under what a run may be, or why not."""

    ok: bool
    engine: str | None
    host_id: str | None
    """``None`` for one that waits for room."""
    image: str
    image_digest: str | None
    isolation: str
    """The floor that holds: ``process``, ``container`` or ``vm``."""
    trust_level: str
    capabilities: tuple[str, ...]
    domains: tuple[str, ...]
    """What may be reached from inside; ``*``: anything."""
    budget: Budget
    tools: bool
    """Whether its agent's tools are reached from inside."""
    start: str
    """``warm`` or ``cold``."""
    expected_start_ms: int
    reasons: tuple[str, ...]
    """What speaks for the place, or against each: ``subject: reason``."""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """Return what an answer says."""
        return _read(
            cls,
            told,
            capabilities=tuple(told["capabilities"]),
            domains=tuple(told["domains"]),
            budget=_read(Budget, told["budget"]),
            reasons=tuple(f"{each['subject']}: {each['reason']}" for each in told["reasons"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a run used."""

    tokens: int
    cost_micros: int
    tool_calls: int
    wall_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedFile:
    """A file that a run left other than it was."""

    path: str
    kind: str
    """``added``, ``modified``, ``deleted``, or ``binary``: changed, and no text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What was brought out of a run's machine."""

    answer: str
    exit_code: int | None
    files_changed: tuple[ChangedFile, ...]
    patch_bytes: int

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """Return what an answer says."""
        return _read(cls, told, files_changed=tuple(_read(ChangedFile, each) for each in told["files_changed"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """A run as the server knew it at one moment."""

    id: str
    name: str
    task: str
    state: str
    """``admitted``, ``preparing``, ``working``, ``waiting``, ``collecting``, or how it ended: ``succeeded``,
    ``failed``, ``refused``, ``cancelled``, ``killed``.
    """
    reason: str | None
    """Why it is so."""
    next: str
    """What comes next, or can be done, in words."""
    attempt: int
    max_attempts: int
    agent_id: str
    admission: Admission
    vm_id: str | None
    """Of its machine; ``None``: it has none, or none any more."""
    spent: Spent
    result: RunResult | None
    labels: Mapping[str, str]
    quarantined: bool

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """Return what an answer says."""
        machine, result = told["machine"], told["result"]
        return _read(
            cls,
            told,
            agent_id=told["agent"]["id"],
            admission=Admission.of(told["admission"]),
            vm_id=None if machine is None or machine["state"] == _GONE else machine["vm_id"],
            spent=_read(Spent, told["spent"]),
            result=None if result is None else RunResult.of(result),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """What a kill did."""

    took_ms: float
    """From the call until it could do nothing more."""
    done: tuple[str, ...]

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """Return what an answer says."""
        return _read(cls, told, done=tuple(told["done"]))


_GONE: Final = "gone"
_Value = TypeVar("_Value")


def _read(kind: type[_Value], told: Mapping[str, Any], **made: Any) -> _Value:
    """Return a value of ``kind``: the members in ``made``, and all others as they were told; what is not known of is
    left out, so that a newer server is understood too.
    """
    names = (each.name for each in fields(kind) if each.name not in made)  # type: ignore[arg-type]  # a dataclass
    return kind(**{name: told[name] for name in names}, **made)

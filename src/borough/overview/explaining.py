"""Why something stands where it stands, since when, and what comes next; and how things are found by a word."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from borough.core.clock import rfc3339
from borough.core.errors import Conflict, NotFound
from borough.core.ids import SHORT_LENGTH
from borough.fleet.environments import Environment, EnvState
from borough.fleet.hosts import Host, HostState, strain
from borough.fleet.vms import Vm, VmState
from borough.governance.agents import GovernedAgent
from borough.governance.approvals import Approval, ApprovalState
from borough.governance.budgets import exhausted
from borough.governance.lifecycle import Status
from borough.overview.occurrences import Subject

MOST_HISTORY: Final = 20
MOST_CANDIDATES: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Related:
    """Another thing that has to do with it, and how."""

    subject: Subject
    relation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """One line of what happened to it."""

    at: datetime
    what: str
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What, why, since when, what next."""

    subject: Subject
    state: str
    why: str
    since: datetime
    next: tuple[str, ...] = ()
    related: tuple[Related, ...] = ()
    history: tuple[Happened, ...] = ()
    """Oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A thing that a word may mean."""

    subject: Subject
    state: str = ""
    exact: bool = field(default=False)
    """The word is its id or its name."""


def matched(word: str, subject: Subject, state: str) -> Match | None:
    """Return how a word meets a thing: as its id or name, as the beginning of one, or (``None``) not at all."""
    wanted = word.casefold()
    names = [name.casefold() for name in (subject.id, subject.name) if name]
    if wanted in names:
        return Match(subject=subject, state=state, exact=True)
    return Match(subject=subject, state=state) if any(name.startswith(wanted) for name in names) else None


def the_one(word: str, found: Sequence[Match]) -> Match:
    """Return what a word means: what it names exactly, else the one thing whose id or name it begins.

    Raises:
        NotFound: nothing (``thing_not_found``).
        Conflict: several things (``ambiguous``); they are named.
    """
    exact = [match for match in found if match.exact]
    left = exact or (list(found) if len(word) >= SHORT_LENGTH else [])
    if len(left) == 1:
        return left[0]
    if not left:
        raise NotFound(
            f"there is nothing by the name {word[:80]!r}",
            code="thing_not_found",
            resolution=f"give a name, an id, or at least the first {SHORT_LENGTH} characters of one; "
            "older tasks and entries are found by their whole id",
        )
    told = [f"{match.subject.kind} {match.subject.id}" for match in left[:MOST_CANDIDATES]]
    raise Conflict(
        f"{word[:80]!r} may mean several things",
        code="ambiguous",
        reason=", ".join(told),
        resolution="give one of these ids",
        details={"candidates": told},
    )


_Why = tuple[str, tuple[str, ...]]


def why_of_vm(vm: Vm) -> _Why:  # noqa: PLR0911 - one answer a state
    """Return why a machine is as it is, and what comes next."""
    wants = "" if vm.desired is vm.state else f"; it is to be {vm.desired.value}"
    told = f": {vm.error}" if vm.error else ""
    match vm.state:
        case VmState.CREATING:
            return f"{vm.host_id} makes it from {vm.spec.image}{told}", ("it runs as soon as its host has made it",)
        case VmState.RUNNING:
            return f"it runs on {vm.host_id} with {vm.spec.engine.value}{wants}", (
                f"enter it: tt exec -it {vm.id} -- sh",
            )
        case VmState.PAUSED:
            return f"somebody froze it{wants}", (f"let it go on: tt vm start {vm.id}",)
        case VmState.STOPPED:
            return f"it was stopped, and its disk is kept{wants}{told}", (f"start it: tt vm start {vm.id}",)
        case VmState.FAILED:
            return (
                f"it failed{told or ': its host has not said why'}",
                (f"read what it said: tt logs {vm.id}", f"start it again: tt vm start {vm.id}"),
            )
        case VmState.UNKNOWN:
            return (
                f"its host {vm.host_id} does not answer{told}",
                (f"see why: borough explain {vm.host_id}", "its state is known again when the host answers"),
            )
        case VmState.DELETING:
            return f"it is being deleted{told}", ("it is tried again until its host confirms that nothing is left",)


def why_of_environment(environment: Environment, state: EnvState, vms: Sequence[Vm]) -> _Why:
    """Return why an environment is as it is, and what comes next."""
    bad = [f"{vm.id} is {vm.state.value}" + (f" ({vm.error})" if vm.error else "") for vm in vms if vm.error]
    told = f": {'; '.join(bad[:3])}" if bad else ""
    ends = f"its time is over at {rfc3339(environment.expires_at)}, then it is to {environment.on_expiry.value}"
    more = (ends, f"give it more time: tt env extend {environment.id}")
    match state:
        case EnvState.WAITING:
            return "there is no room for its machines yet", ("it is placed as soon as there is room", *more)
        case EnvState.CREATING:
            return f"its {len(vms)} machines are being made{told}", more
        case EnvState.ACTIVE:
            return f"its {len(vms)} machines run{told}", more
        case EnvState.STOPPED:
            over = environment.stopped_at is not None
            why = "its time was over" if over else "somebody stopped its machines, or it has none"
            return f"{why}{told}", (f"start it: tt env start {environment.id}", *more)
        case EnvState.FAILED:
            return f"not all of its machines are as they should be{told}", more
        case EnvState.DELETING:
            return f"it is being deleted{told}", ("it stays until every host has confirmed; that is tried again",)


def why_of_host(host: Host) -> _Why:
    """Return why a host is as it is, and what comes next."""
    if host.state is HostState.OFFLINE:
        return (
            f"it does not answer: {host.error or 'nothing was heard of it for too long'}",
            ("nothing is placed there until it answers", f"if it is dead: tt host detach {host.id}"),
        )
    if host.draining:
        return "what is on it is to leave, and nothing new is placed there", (
            f"take it back: tt host uncordon {host.id}",
        )
    if host.cordoned:
        return "somebody said that nothing new is placed there", (f"take it back: tt host uncordon {host.id}",)
    strained = strain(host.report.pressure, mem_total_mib=host.report.resource.mem_total)
    if strained is not None:
        return f"it takes nothing more just now: {strained}", ("it does again when that is over",)
    resource = host.report.resource
    room = f"{resource.cpu_total - resource.cpu_used} processors, {resource.mem_total - resource.mem_used} MiB left"
    return f"it answers, and takes machines: {room}", ("nothing to do",)


def why_of_agent(agent: GovernedAgent) -> _Why:
    """Return why a governed agent is as it is, and what comes next."""
    told = f": {agent.last_error}" if agent.last_error else ""
    over = exhausted(agent.budget, agent.spent)
    if agent.status is Status.RUNNING and over is not None:
        return f"it stands still, its budget is used up: {over}", (f"see it: ash scheduler info {agent.id}",)
    match agent.status:
        case Status.RUNNING:
            return f"it runs under {agent.name}@{agent.version}, in the phase {agent.phase.value}{told}", (
                f"see what it does: borough events -f --subject {agent.id}",
            )
        case Status.PAUSED:
            return f"somebody paused it{told}", (f"let it go on: ash resume {agent.id}",)
        case Status.SUCCEEDED:
            return f"it is done{told}", (f"what it did: ash audit --agent {agent.id}",)
        case Status.FAILED:
            code = "" if agent.exit_code is None else f" with {agent.exit_code}"
            return f"it ended{code}{told or ', and has not said why'}", (f"read its log: ash logs {agent.id}",)
        case Status.KILLED:
            return f"somebody ended it{told}", (f"what it did: ash audit --agent {agent.id}",)


def why_of_approval(approval: Approval) -> _Why:
    """Return why a request for agreement stands as it does, and what comes next."""
    by = f" by {approval.decided_by}" if approval.decided_by else ""
    match approval.state:
        case ApprovalState.PENDING:
            left = approval.needed - len(approval.approved_by)
            return (
                f"{approval.rule} wants the agreement of {left} more to a call of {approval.tool}",
                (
                    f"ash approve {approval.id}",
                    f"ash deny {approval.id}",
                    f"it is refused by itself at {rfc3339(approval.expires_at)}",
                ),
            )
        case ApprovalState.APPROVED:
            return f"it was agreed to{by}, and the call is about to be made", ("nothing to do",)
        case ApprovalState.USED:
            return f"it was agreed to{by}, and the call was made", ("it cannot be made again on this agreement",)
        case ApprovalState.DENIED:
            return f"it was refused{by}", ("the agent may ask anew",)
        case ApprovalState.EXPIRED:
            return "nobody decided in time", ("the agent may ask anew",)
        case ApprovalState.CANCELLED:
            return "the agent ended, or took the call back", ("nothing to do",)

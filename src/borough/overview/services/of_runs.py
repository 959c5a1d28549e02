"""Runs: what of them needs a person, how they are found and explained, and what there is to show of one."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any, Final

from borough.core.clock import rfc3339
from borough.core.errors import Conflict, NotFound
from borough.core.ids import SHORT_LENGTH
from borough.core.paging import Page, PageRequest
from borough.overview.attention import Kind, Need, Settling, Urgency
from borough.overview.evidence import Gathered
from borough.overview.explaining import Explanation, Happened, Match, Related
from borough.overview.occurrences import Context, Subject
from borough.overview.services.evidence_of_agents import as_json
from borough.runs.ports import RunFiles, RunFilter, RunStore
from borough.runs.runs import Attempt, Run
from borough.runs.states import RunState, next_of

_TITLE: Final = 80
_PREFIX: Final = "run-"
_LOG_PART: Final = 1_048_576

GatherAgent = Callable[[Subject], Awaitable[Gathered]]
"""Returns what there is to show of the agent in whose name a run acts."""

EntriesOfMachines = Callable[[frozenset[str]], Awaitable[Sequence[str]]]
"""Returns the ids of the ledger's entries about the machines of some environments."""


class FailedRuns:
    """Runs that failed."""

    context: Final = Context.RUNS
    kind: Final = Kind.RUN

    def __init__(self, store: RunStore) -> None:
        self._store = store

    async def page(self, page: PageRequest) -> Page[Need]:
        """Return some, the newest first: what failed long ago hardly needs anybody."""
        found = await self._store.find(RunFilter(state=RunState.FAILED), page)
        return Page(items=tuple(map(_failed, found.items)), after=found.after)


class RunThings:
    """Runs, by id and by the beginning of it."""

    context: Final = Context.RUNS
    kind: Final = "run"

    def __init__(self, store: RunStore) -> None:
        self._store = store

    async def find(self, word: str, *, limit: int) -> Sequence[Match]:
        """Return the run that a word means, if it means one alone."""
        wanted = word.casefold().removeprefix(_PREFIX)
        if len(wanted) < SHORT_LENGTH or limit < 1:
            return ()
        try:
            run = await self._store.get(wanted)
        except (NotFound, Conflict):
            return ()
        exact = wanted == run.id or word.casefold() == run.name
        return (Match(subject=_run(run), state=run.state.value, exact=exact),)

    async def explain(self, subject: Subject) -> Explanation:
        """Return why a run stands where it stands."""
        run = await self._store.get(subject.id)
        return Explanation(
            subject=_run(run),
            state=run.state.value,
            why=run.reason or _why(run),
            since=run.since,
            next=tuple(filter(None, (next_of(run.state), run.resolution, f"see it: borough show {run.id}"))),
            related=tuple(_related(run)),
            history=tuple(_history(run)),
        )


class RunEvidence:
    """Run, manifest, admission, cost, digests of patch and logs, and all that there is of its agent."""

    kind: Final = "run"

    def __init__(self, store: RunStore, files: RunFiles, agent: GatherAgent, machines: EntriesOfMachines) -> None:
        self._store = store
        self._files = files
        self._agent = agent
        self._machines = machines

    async def gather(self, subject: Subject) -> Gathered:
        """Return it."""
        run = await self._store.get(subject.id)
        files = {
            "run.json": as_json(_told(run)),
            "manifest.yaml": run.manifest.encode(),
            "digests.json": as_json(await self._digests(run)),
        }
        placed = tuple(await self._machines(frozenset(each.machine.env_id for each in _attempts(run))))
        try:
            of_agent = await self._agent(Subject(kind="agent", id=run.agent.id))
        except NotFound:  # it is no longer kept; its entries are
            return Gathered(files=files, agents=frozenset({run.agent.id}), entries=placed)
        return Gathered(files={**of_agent.files, **files}, agents=of_agent.agents, entries=placed)

    async def _digests(self, run: Run) -> dict[str, Any]:
        patch = await self._files.patch(run.id)
        return {
            "patch": {"sha256": sha256(patch).hexdigest(), "bytes": len(patch)},
            "logs": [await self._log(run, attempt) for attempt in _attempts(run)],
        }

    async def _log(self, run: Run, attempt: Attempt) -> dict[str, Any]:
        digest, size = sha256(), 0
        while part := await self._files.read_log(run.id, attempt.number, offset=size, limit=_LOG_PART):
            digest.update(part)
            size += len(part)
        return {"attempt": attempt.number, "sha256": digest.hexdigest(), "bytes": size}


def _failed(run: Run) -> Need:
    return Need(
        kind=Kind.RUN,
        title=f"{_line(run.order.task)} failed",
        why=run.reason or "it has not said why",
        since=run.ended_at or run.since,
        urgency=Urgency.WHENEVER,
        subject=_run(run),
        safe_default="it stays as it is; nothing of it runs any more",
        settled_by=(
            Settling(
                label="Try again, in a fresh machine",
                method="POST",
                path=f"/v1/runs/{run.id}/retry",
                command=f"borough retry {run.id}",
            ),
        ),
    )


def _run(run: Run) -> Subject:
    return Subject(kind="run", id=run.id, name=_line(run.order.task))


def _why(run: Run) -> str:
    if run.attempt is None:
        return "it was admitted" if run.admission.ok else run.admission.why_not
    return f"attempt {run.attempt.number} of {run.order.max_attempts}, on {run.attempt.machine.host_id or 'a host'}"


def _related(run: Run) -> Sequence[Related]:
    found = [
        Related(subject=Subject(kind="task", id=run.task_id), relation="what it does"),
        Related(subject=Subject(kind="agent", id=run.agent.id, name=run.agent.name), relation="in whose name it acts"),
    ]
    if run.attempt is not None:
        machine = run.attempt.machine
        found.append(Related(subject=Subject(kind="vm", id=machine.vm_id, name=machine.env_id), relation="its machine"))
        if machine.host_id:
            found.append(Related(subject=Subject(kind="host", id=machine.host_id), relation="where that is"))
    return found


def _history(run: Run) -> Sequence[Happened]:
    found = [Happened(at=run.created_at, what="admitted", by=run.created_by)]
    for attempt in _attempts(run):
        found.append(Happened(at=attempt.begun_at, what=f"attempt {attempt.number} begun"))
        if attempt.ended_at is not None:
            found.append(Happened(at=attempt.ended_at, what=f"attempt {attempt.number}: {attempt.outcome or 'over'}"))
    if run.ended_at is not None:
        found.append(Happened(at=run.ended_at, what=run.state.value, by=run.wished_by))
    return found


def _attempts(run: Run) -> Sequence[Attempt]:
    return (*run.past, *(() if run.attempt is None else (run.attempt,)))


def _told(run: Run) -> dict[str, Any]:
    admission = run.admission
    return {
        "id": run.id,
        "task": run.order.task,
        "task_id": run.task_id,
        "command": list(run.order.command),
        "state": run.state.value,
        "reason": run.reason,
        "quarantined": run.quarantined,
        "created_by": run.created_by,
        "created_at": rfc3339(run.created_at),
        "ended_at": None if run.ended_at is None else rfc3339(run.ended_at),
        "agent_id": run.agent.id,
        "manifest_sha256": run.agent.manifest_digest,
        "trust_level": run.agent.trust_level.value,
        "image": admission.image,
        "image_digest": admission.image_digest,
        "engine": None if admission.engine is None else admission.engine.value,
        "isolation": admission.isolation.value,
        "capabilities": list(admission.capabilities),
        "domains": list(admission.domains),
        "budget": asdict(admission.budget),
        "spent": asdict(run.spent),
        "attempts": [
            {
                "number": attempt.number,
                "epoch": attempt.epoch,
                "vm_id": attempt.machine.vm_id,
                "host_id": attempt.machine.host_id,
                "begun_at": rfc3339(attempt.begun_at),
                "outcome": attempt.outcome,
            }
            for attempt in _attempts(run)
        ],
        "result": None
        if run.result is None
        else {
            "exit_code": run.result.exit_code,
            "answer_sha256": sha256(run.result.answer.encode()).hexdigest(),
            "files_changed": [{"path": each.path, "kind": each.kind.value} for each in run.result.files_changed],
        },
    }


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TITLE else f"{line[: _TITLE - 1]}…"

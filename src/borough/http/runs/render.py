"""Values of runs → their JSON."""

from typing import Any

from borough.core.clock import rfc3339
from borough.core.paging import Page, encode_cursor
from borough.http.runs import wire
from borough.http.town.render import moment
from borough.runs.admission import Admission
from borough.runs.orders import Budget, Source
from borough.runs.runs import Attempt, Result, Run
from borough.runs.services.kills import Killed
from borough.runs.states import next_of


def run_view(run: Run) -> wire.RunView:
    """Return a run as it goes over the wire."""
    attempts = (*run.past, *((run.attempt,) if run.attempt is not None else ()))
    return wire.RunView(
        id=run.id,
        name=run.name,
        task=run.order.task,
        task_id=run.task_id,
        state=run.state.value,
        reason=run.reason,
        resolution=run.resolution,
        next=next_of(run.state) if run.has_source else "it waits for its source: PUT its archive",
        since=rfc3339(run.since),
        created_at=rfc3339(run.created_at),
        started_at=moment(run.started_at),
        ended_at=moment(run.ended_at),
        created_by=run.created_by,
        attempt=attempts[-1].number if attempts else 0,
        max_attempts=run.order.max_attempts,
        attempts=[_attempt(each) for each in attempts],
        agent=wire.AgentView(
            id=run.agent.id,
            name=run.agent.name,
            trust_level=run.agent.trust_level.value,
            manifest_digest=run.agent.manifest_digest,
        ),
        admission=admission_view(run.admission),
        command=list(run.order.command),
        source=_source(run.order.source),
        machine=_machine(run),
        budget=_budget(run.admission.budget),
        spent=wire.SpentView(
            tokens=run.spent.tokens,
            cost_micros=run.spent.cost_micros,
            tool_calls=run.spent.tool_calls,
            wall_s=run.spent.wall_s,
        ),
        result=None if run.result is None else _result(run.result),
        labels=dict(run.labels),
        quarantined=run.quarantined,
    )


def run_list(page: Page[Run]) -> wire.RunList:
    """Return a page of runs."""
    following = None if page.after is None else encode_cursor(page.after)
    return wire.RunList(runs=[run_view(run) for run in page.items], next_cursor=following)


def admission_view(admission: Admission) -> wire.AdmissionView:
    """Return the decision about a run."""
    return wire.AdmissionView(
        ok=admission.ok,
        engine=None if admission.engine is None else admission.engine.value,
        host_id=admission.host_id,
        image=admission.image,
        image_digest=admission.image_digest,
        isolation=admission.isolation.value,
        trust_level=admission.trust_level.value,
        capabilities=list(admission.capabilities),
        domains=list(admission.domains),
        budget=_budget(admission.budget),
        tools=admission.tools,
        start=admission.start.value,
        expected_start_ms=admission.expected_start_ms,
        reasons=[wire.ReasonView(subject=each.subject, reason=each.reason) for each in admission.reasons],
    )


def killed(done: Killed) -> wire.Killed:
    """Return what a kill did."""
    return wire.Killed(
        target=done.target, powerless_at=rfc3339(done.powerless_at), took_ms=done.took_ms, done=list(done.done)
    )


def _attempt(attempt: Attempt) -> wire.AttemptView:
    return wire.AttemptView(
        number=attempt.number,
        epoch=attempt.epoch,
        env_id=attempt.machine.env_id,
        vm_id=attempt.machine.vm_id,
        host_id=attempt.machine.host_id,
        start=attempt.machine.start.value,
        begun_at=rfc3339(attempt.begun_at),
        working_at=moment(attempt.working_at),
        ended_at=moment(attempt.ended_at),
        outcome=attempt.outcome,
    )


def _machine(run: Run) -> wire.MachineView | None:
    if run.attempt is None:
        return None
    machine = run.attempt.machine
    gone = run.is_over and run.is_clean and not run.quarantined
    return wire.MachineView(
        env_id=machine.env_id,
        vm_id=machine.vm_id,
        host_id=machine.host_id,
        engine=machine.engine.value,
        state="gone" if gone else machine.state,
        start=machine.start.value,
    )


def _budget(budget: Budget) -> wire.BudgetView:
    return wire.BudgetView(tokens=budget.tokens, cost_micros=budget.cost_micros, tool_calls=budget.tool_calls)


def _result(result: Result) -> wire.ResultView:
    changed = [wire.ChangedFileView(path=each.path, kind=each.kind.value) for each in result.files_changed]
    return wire.ResultView(
        answer=result.answer, exit_code=result.exit_code, files_changed=changed, patch_bytes=result.patch_bytes
    )


def _source(source: Source | None) -> dict[str, Any] | None:
    if source is None:
        return None
    told = {"kind": source.kind.value, "path": source.path, "url": source.url, "ref": source.ref}
    return {name: value for name, value in told.items() if value is not None}

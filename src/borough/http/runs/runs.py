"""Runs: ``/v1/runs…`` and ``/v1/kill``."""

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from starlette.responses import Response

from borough.auth.scopes import Scope, covers
from borough.core.errors import Forbidden
from borough.core.paging import DEFAULT_LIMIT, MAX_LIMIT, PageRequest, decode_cursor
from borough.fleet.engines import parse_engine
from borough.governance.ports.ledger import EntryFilter
from borough.governance.services.asking import daemon
from borough.http import sse
from borough.http.governance.audit import AuditEntry, as_array
from borough.http.operations import Answer, Call, Operation, Reply
from borough.http.runs import render, wire
from borough.runs.orders import MOST_SOURCE_BYTES, Budget, Isolation, RunOrder, Source, SourceKind
from borough.runs.ports import RunFilter
from borough.runs.services.runs import RunService
from borough.runs.states import RunState

Flag = Annotated[str, Meta(max_length=5, description="1 or true")]
LONGEST_WAIT_S = 60
MOST_ENTRIES = 10_000


class CreateQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    dry_run: Flag | None = None


class FindQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT
    cursor: str | None = None
    state: RunState | None = None
    label: Annotated[list[str], Meta(max_length=32, description="key=value; all of them")] = []


class ShowQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    wait: Annotated[int, Meta(ge=0, le=LONGEST_WAIT_S, description="seconds to wait for a change")] = 0


class LogQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    offset: Annotated[int, Meta(ge=0, description="bytes to skip")] = 0
    attempt: Annotated[int, Meta(ge=1, description="of which attempt; the last by default")] | None = None
    follow: Flag | None = None


async def create(call: Call) -> object:
    order = _order(call, call.body)
    service: RunService = call.state.runs
    if _is_set(call.query.dry_run):
        return Reply(status=200, body=render.admission_view(await service.preview(order)))
    run = await service.create(order, run_id=call.operation_key, by=call.principal.id)
    return Reply(status=201, body=render.run_view(run), headers={"Location": f"/v1/runs/{run.id}"})


async def upload(call: Call) -> object:
    return render.run_view(await call.state.runs.upload(call.path["run_id"], call.body))


async def find(call: Call) -> object:
    query: FindQuery = call.query
    labels = dict(text.partition("=")[::2] for text in query.label)
    page = PageRequest(limit=query.limit, after=decode_cursor(query.cursor) if query.cursor else "")
    found = render.run_list(await call.state.runs.find(RunFilter(state=query.state, labels=labels), page))
    if found.next_cursor is None:
        return found
    return Reply(status=200, body=found, headers={"Link": f'</v1/runs?cursor={found.next_cursor}>; rel="next"'})


async def show(call: Call) -> object:
    service: RunService = call.state.runs
    run_id, wait_s = call.path["run_id"], call.query.wait
    return render.run_view(await (service.wait(run_id, timeout_s=wait_s) if wait_s else service.get(run_id)))


async def log(call: Call) -> object:
    query: LogQuery = call.query
    service: RunService = call.state.runs
    run = await service.get(call.path["run_id"])
    if _is_set(query.follow):
        return sse.EventStream(_log_events(service, run.id, query.offset), ends=call.disconnected)
    part = await service.log(run.id, offset=query.offset, attempt=query.attempt)
    headers = {
        "content-type": "text/plain; charset=utf-8",
        "x-log-size": str(part.size),
        "x-log-attempt": str(part.attempt),
        "x-content-type-options": "nosniff",
    }
    return Response(part.data, headers=headers)


async def _log_events(service: RunService, run_id: str, offset: int) -> AsyncIterator[bytes]:
    async for part in service.follow(run_id, offset=offset):
        told: dict[str, int | str] = {"attempt": part.attempt, "offset": part.offset}
        told |= {"end": part.offset + len(part.data), "text": part.data.decode(errors="replace")}
        yield sse.encode_event(msgspec.json.encode(told), event="log")
    yield sse.encode_event(b"{}", event="end")


async def patch(call: Call) -> object:
    headers = {"content-type": "text/x-diff; charset=utf-8", "x-content-type-options": "nosniff"}
    return Response(await call.state.runs.patch(call.path["run_id"]), headers=headers)


async def ledger(call: Call) -> object:
    run = await call.state.runs.get(call.path["run_id"])
    asker = daemon(f"runs:{call.request_id}")
    entries = await call.state.audit.trail(asker, run.agent.id, EntryFilter(), limit=MOST_ENTRIES)
    return Reply(status=200, body=as_array(entries))


async def cancel(call: Call) -> object:
    reason = call.body.reason or "cancelled"
    return render.run_view(await call.state.runs.cancel(call.path["run_id"], reason=reason, by=call.principal.id))


async def retry(call: Call) -> object:
    return render.run_view(await call.state.runs.retry(call.path["run_id"], by=call.principal.id))


async def kill(call: Call) -> object:
    body: wire.KillRequest = call.body
    done = await call.state.kills.kill(
        body.target, quarantine=body.quarantine, reason=body.reason, by=call.principal.id
    )
    return render.killed(done)


def _order(call: Call, body: wire.RunRequest) -> RunOrder:
    budget = body.budget or wire.BudgetBody()
    return RunOrder(
        task=body.task,
        manifest=body.manifest,
        agent=body.agent,
        command=tuple(body.command),
        image=body.image,
        engine=None if body.engine is None else parse_engine(body.engine),
        isolation=Isolation(body.isolation),
        source=_source(call, body.source),
        cpu=body.cpu,
        memory_mib=body.memory_mib,
        disk_mib=body.disk_mib,
        timeout_s=body.timeout_s,
        max_attempts=body.max_attempts,
        budget=Budget(tokens=budget.tokens, cost_micros=budget.cost_micros, tool_calls=budget.tool_calls),
        labels=body.labels,
    )


def _source(call: Call, body: wire.SourceBody | None) -> Source | None:
    """Return the source that a body names.

    Raises:
        Forbidden: it is a folder of the server's machine, and the caller is not who owns that (``operator_only``).
    """
    if body is None:
        return None
    kind = SourceKind(body.kind)
    if kind is SourceKind.FOLDER and not covers(call.principal.scopes, Scope.ADMIN):
        raise Forbidden(
            "folders of the server's machine are for its operator",
            code="operator_only",
            resolution="send the files as an upload, or name a git remote",
        )
    return Source(kind=kind, path=body.path, url=body.url, ref=body.ref)


def _is_set(flag: str | None) -> bool:
    return flag is not None and flag.lower() in {"1", "true", "yes"}


_FLEET_ERRORS = {"fleet_starting": 503, "fleet_not_ready": 503}
_RUN_ERRORS = {"run_not_found": 404, "run_ambiguous": 409}
_ORDER_ERRORS = {
    **_FLEET_ERRORS,
    "agent_not_installed": 404,
    "invalid_labels": 422,
    "invalid_manifest": 422,
    "invalid_name": 422,
    "invalid_size": 422,
    "invalid_source": 422,
    "operator_only": 403,
    "run_refused": 422,
    "source_not_found": 422,
    "source_too_large": 422,
    "two_manifests": 422,
    "unknown_engine": 422,
}
_RUN = (Answer(status=200, body=wire.RunView, description="the run as it is now"),)

OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/runs",
        handler=create,
        access=Scope.WRITE,
        summary="Run a task in a machine of its own, under a manifest; with `dry_run`, only say whether and where",
        tag="runs",
        query=CreateQuery,
        body=wire.RunRequest,
        answers=(
            Answer(status=201, body=wire.RunView, description="it is admitted, and begins"),
            Answer(status=200, body=wire.AdmissionView, description="what would be decided; nothing was written"),
        ),
        errors=_ORDER_ERRORS,
    ),
    Operation(
        method="GET",
        path="/v1/runs",
        handler=find,
        access=Scope.READ,
        summary="Runs, newest first",
        tag="runs",
        query=FindQuery,
        answers=(Answer(status=200, body=wire.RunList, description="a page of runs"),),
        errors={"invalid_cursor": 422},
    ),
    Operation(
        method="GET",
        path="/v1/runs/{run_id}",
        handler=show,
        access=Scope.READ,
        summary="One run; with `wait`, as soon as it changes",
        tag="runs",
        query=ShowQuery,
        streaming=True,
        answers=_RUN,
        errors=_RUN_ERRORS,
    ),
    Operation(
        method="PUT",
        path="/v1/runs/{run_id}/source",
        handler=upload,
        access=Scope.WRITE,
        summary="Send the tar archive that a run waits for; it begins then",
        tag="runs",
        body=bytes,
        body_streamed=True,
        streaming=True,
        body_limit_bytes=MOST_SOURCE_BYTES,
        answers=_RUN,
        errors={**_RUN_ERRORS, "no_source_wanted": 409, "not_a_tar": 422, "source_too_large": 422},
    ),
    Operation(
        method="GET",
        path="/v1/runs/{run_id}/log",
        handler=log,
        access=Scope.READ,
        summary="What its command printed; with `follow`, while it prints",
        description="A part is at most 256 KiB; `X-Log-Size` tells the whole. The tail has events `log`, then `end`.",
        tag="runs",
        query=LogQuery,
        streaming=True,
        answers=(
            Answer(status=200, body=str, description="a part of the log", content_type="text/plain; charset=utf-8"),
            Answer(status=200, body=str, description="a live tail", content_type="text/event-stream"),
        ),
        errors=_RUN_ERRORS,
    ),
    Operation(
        method="GET",
        path="/v1/runs/{run_id}/patch",
        handler=patch,
        access=Scope.READ,
        summary="The files that it changed, as a unified patch",
        tag="runs",
        answers=(Answer(status=200, body=str, description="a patch", content_type="text/x-diff; charset=utf-8"),),
        errors={**_RUN_ERRORS, "patch_not_found": 404},
    ),
    Operation(
        method="GET",
        path="/v1/runs/{run_id}/ledger",
        handler=ledger,
        access=Scope.READ,
        summary="What the ledger tells of it, oldest first",
        tag="runs",
        answers=(Answer(status=200, body=list[AuditEntry], description="the entries, as they were hashed"),),
        errors={**_RUN_ERRORS, "agent_not_found": 404},
    ),
    Operation(
        method="POST",
        path="/v1/runs/{run_id}/cancel",
        handler=cancel,
        access=Scope.WRITE,
        summary="End a run that is no longer wanted",
        tag="runs",
        body=wire.EndRequest,
        body_optional=True,
        ends=True,
        answers=_RUN,
        errors={**_RUN_ERRORS, "run_over": 409},
    ),
    Operation(
        method="POST",
        path="/v1/runs/{run_id}/retry",
        handler=retry,
        access=Scope.WRITE,
        summary="Begin a run that is over once more, in a fresh machine",
        tag="runs",
        answers=_RUN,
        errors={
            **_RUN_ERRORS, **_FLEET_ERRORS, "illegal_run_state": 409, "not_clean": 409, "run_refused": 422,
        },
    ),
    Operation(
        method="POST",
        path="/v1/kill",
        handler=kill,
        access=Scope.MANAGE,
        summary="Take all power from a run or an agent: its key, its machine, its lease",
        description="With `quarantine` its machine is frozen and kept for whoever looks into it.",
        tag="runs",
        body=wire.KillRequest,
        ends=True,
        answers=(Answer(status=200, body=wire.Killed, description="it can do nothing any more"),),
        errors={**_RUN_ERRORS, "run_over": 409, "target_not_found": 404, "agent_ambiguous": 409},
    ),
)  # fmt: skip

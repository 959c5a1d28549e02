"""The routes of workers: report, take work, stay alive, leave; and registration of workers that run elsewhere."""

from typing import Annotated

from msgspec import Meta, Struct

from borough.auth.scopes import Scope
from borough.core.clock import rfc3339
from borough.core.ids import AgentId, TaskId
from borough.http.operations import Access, Answer, Call, Operation, Reply
from borough.http.town import callers, render, wire, worker_wire
from borough.http.town.agents import SPAWN_ERRORS, candidate
from borough.http.town.common import LEASE_ERRORS, agent_status_answer
from borough.town.agents import Directive, WorkerProcess


class ClaimQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    wait: Annotated[float, Meta(ge=0, le=60, description="seconds to wait for work")] = 0


class HeartbeatQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    wait: Annotated[float, Meta(ge=0, le=60, description="seconds to hold the answer while nothing changes")] = 0


async def register(call: Call) -> object:
    made = await call.state.agents.register(candidate(call), agent_id=AgentId(call.operation_key))
    agent = made.agent
    return worker_wire.Registered(
        agent_id=agent.id,
        name=agent.name,
        cli=agent.cli,
        role_id=agent.role_id,
        nickname=agent.nickname,
        parent_agent_id=agent.parent_agent_id,
        incarnation=agent.incarnation,
        token=made.token,
    )


async def start(call: Call) -> object:
    body: worker_wire.StartRequest = call.body
    process = WorkerProcess(host=body.host, pid=body.pid, started_ticks=body.started_ticks)
    agent = await call.state.workers.start(callers.the_worker(call), process)
    facts, cli = call.state.facts, call.state.resolve_cli(agent.cli)
    return worker_wire.WorkerSettings(
        agent_id=agent.id,
        name=agent.name,
        town=facts.name,
        role=agent.role,
        state=agent.state.value.capitalize(),
        lease_ms=facts.lease_ms,
        heartbeat_ms=facts.lease_ms // 3,
        idle_timeout_secs=facts.idle_timeout_s,
        cli=worker_wire.CliSettings(
            name=cli.name,
            argv=list(cli.argv),
            input=cli.input.value,
            workdir=cli.workdir,
            env=dict(cli.env),
            timeout_secs=cli.timeout_s,
            on_exit_zero=cli.on_exit_zero.value,
        ),
    )


async def claim(call: Call) -> object:
    attempt = await call.state.workers.take(
        callers.the_worker(call), wait_s=call.query.wait, disconnected=call.disconnected
    )
    if attempt is None:
        return Reply(status=204)
    return worker_wire.LeaseView(
        task=render.task_view(attempt.lease.task),
        attempt_token=attempt.token,
        mail=[render.message_view(message) for message in attempt.mail],
    )


async def heartbeat(call: Call) -> object:
    body: worker_wire.HeartbeatRequest = call.body
    beat = await call.state.workers.beat(
        callers.the_worker(call),
        task_id=TaskId(body.task_id) if body.task_id is not None else None,
        epoch=body.epoch,
        known=Directive(body.known),
        wait_s=call.query.wait,
        disconnected=call.disconnected,
    )
    return worker_wire.HeartbeatView(directive=beat.directive.value, lease_expires_at=rfc3339(beat.lease_expires_at))


async def drain(call: Call) -> object:
    return worker_wire.DrainView(draining=await call.state.workers.drain_if_idle(callers.the_worker(call)))


async def leave(call: Call) -> object:
    body: worker_wire.LeaveRequest = call.body
    agent = await call.state.workers.leave(callers.the_worker(call), reason=body.reason, failed=body.failed)
    return wire.AgentStatus(status=agent.state.value, agent=agent.name)


def _lease_route(word: str, **members: object) -> Operation:
    defaults = {"errors": LEASE_ERRORS, "metered": False, "tag": "workers", "access": Access.WORKER}
    return Operation(method="POST", path=f"/v1/agents/{{agent}}/{word}", **{**defaults, **members})  # type: ignore[arg-type]  # rows of one table


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/workers",
        handler=register,
        access=Scope.MANAGE,
        summary="Register a worker that runs elsewhere",
        description="An ended agent of the same name is adopted: same id, next incarnation.",
        tag="workers",
        body=worker_wire.RegisterRequest,
        secret_answer=True,
        answers=(Answer(status=201, body=worker_wire.Registered, description="its token is shown once"),),
        errors=SPAWN_ERRORS,
    ),
    _lease_route(
        "start",
        handler=start,
        summary="The worker is up",
        body=worker_wire.StartRequest,
        answers=(Answer(status=200, body=worker_wire.WorkerSettings, description="how to behave"),),
        errors={**LEASE_ERRORS, "unknown_cli": 422},
    ),
    _lease_route(
        "claim",
        handler=claim,
        summary="Lease the next task, waiting for one",
        description="Asking again while holding a lease returns the same lease: a lost answer costs nothing.",
        query=ClaimQuery,
        streaming=True,
        secret_answer=True,
        answers=(
            Answer(status=200, body=worker_wire.LeaseView, description="an attempt"),
            Answer(status=204, body=None, description="no work came in time"),
        ),
    ),
    _lease_route(
        "heartbeat",
        handler=heartbeat,
        ends=True,
        summary="Renew the leases; learn what to do",
        query=HeartbeatQuery,
        body=worker_wire.HeartbeatRequest,
        streaming=True,
        answers=(Answer(status=200, body=worker_wire.HeartbeatView, description="what to do next"),),
    ),
    _lease_route(
        "drain",
        handler=drain,
        ends=True,
        summary="An idle worker asks to leave",
        answers=(Answer(status=200, body=worker_wire.DrainView, description="whether it may"),),
    ),
    _lease_route(
        "leave",
        handler=leave,
        ends=True,
        summary="The worker goes",
        body=worker_wire.LeaveRequest,
        answers=agent_status_answer(),
        errors={**LEASE_ERRORS, "work_waiting": 409},
    ),
)

"""Agents: ``/agents`` and what is done to one."""

from typing import Annotated, Any

from msgspec import Meta, Struct
from starlette.responses import Response

from borough.governance.lifecycle import parse_phase
from borough.governance.services.agents import SpawnOrder
from borough.governance.services.patience import LONGEST_WAIT_S
from borough.governance.services.results import LONGEST_RESULT_BYTES, MOST_LOG_BYTES
from borough.http.governance.agent_wire import AgentInfo, AgentSummary, info, summary
from borough.http.governance.common import AGENT_ERRORS, LEDGER_ERRORS, REFUSALS, agent_id, asker, moment
from borough.http.operations import Access, Answer, Call, Operation, Reply

Wait = Annotated[int, Meta(ge=0, le=LONGEST_WAIT_S, description="seconds to wait for something to answer with")]

MANIFEST_ERRORS = {
    "invalid_request": 400,
    "invalid_manifest": 422,
    "invalid_yaml": 422,
    "document_too_long": 422,
    "unsupported_api_version": 422,
    "invalid_timeout": 422,
    "workspace_base": 422,
    "not_available": 501,
}
SPAWN_ERRORS = {
    **REFUSALS,
    **MANIFEST_ERRORS,
    **LEDGER_ERRORS,
    "agent_not_installed": 404,
    "agent_not_running": 409,
    "over_ceiling": 403,
    "capability_escalation_denied": 403,
    "network_escalation_denied": 403,
    "workspace_escalation_denied": 403,
    "hierarchy_depth_exceeded": 403,
    "enforcement_missing": 503,
    "start_failed": 500,
}
MOVE_ERRORS = {**AGENT_ERRORS, **LEDGER_ERRORS, "agent_not_running": 409, "stale_agent": 409}


class ListQuery(Struct, kw_only=True):
    ended: Annotated[bool, Meta(description="also those that have ended and are still kept")] = False


class SpawnRequest(Struct, kw_only=True):
    """Either a manifest, or the name of an installed agent."""

    manifest_yaml: str | None = None
    name: str | None = None
    task_override: str | None = None
    folder: Annotated[str, Meta(description="the manifest's own folder, where its relative paths begin")] | None = None


class ChildRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """Either a manifest, or the name of an installed agent."""

    manifest_yaml: str | None = None
    name: str | None = None
    task_override: str | None = None
    cap_override: (
        Annotated[list[str], Meta(max_length=1000, description="instead of the manifest's capabilities")] | None
    ) = None


class Spawned(Struct, kw_only=True):
    id: str


class TransitionRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    state: Annotated[str, Meta(description="Plan, Act, Observe or Terminate, in any case")]


class LogQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    offset: Annotated[int, Meta(ge=0, description="bytes to skip; a line is never cut in its middle")] = 0
    limit: Annotated[int, Meta(ge=1, le=MOST_LOG_BYTES, description="about how many bytes")] = MOST_LOG_BYTES
    run_id: Annotated[str, Meta(max_length=64, description="of which run; the present one by default")] | None = None
    wait: Wait = 0


class ResultQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    wait: Wait = 0


class AgentResult(Struct, kw_only=True):
    agent_id: str
    run_id: str
    state: str
    status: str
    ready: bool
    """Whether there is a result."""
    result: Any
    """What the run handed back."""
    exit_code: int | None
    last_error: str | None
    ended_at: str | None


async def listing(call: Call) -> object:
    agents = await call.state.agents.listing(asker(call), ended=call.query.ended)
    return [summary(agent) for agent in agents]


async def spawn(call: Call) -> object:
    body: SpawnRequest = call.body
    order = SpawnOrder(
        manifest_yaml=body.manifest_yaml, name=body.name, task_override=body.task_override, folder=body.folder
    )
    return _spawned((await call.state.agents.spawn(asker(call), order)).id)


async def spawn_child(call: Call) -> object:
    body: ChildRequest = call.body
    order = SpawnOrder(
        manifest_yaml=body.manifest_yaml,
        name=body.name,
        task_override=body.task_override,
        cap_override=None if body.cap_override is None else tuple(body.cap_override),
        parent_id=agent_id(call),
    )
    return _spawned((await call.state.agents.spawn(asker(call), order)).id)


async def show(call: Call) -> object:
    return info(await call.state.agents.details(asker(call), agent_id(call)))


async def kill(call: Call) -> object:
    await call.state.agents.kill(asker(call), agent_id(call))
    return Reply(status=204)


async def transition(call: Call) -> object:
    to = parse_phase(call.body.state)
    return summary(await call.state.agents.transition(asker(call), agent_id(call), to))


async def pause(call: Call) -> object:
    return summary(await call.state.agents.pause(asker(call), agent_id(call)))


async def resume(call: Call) -> object:
    return summary(await call.state.agents.resume(asker(call), agent_id(call)))


async def logs(call: Call) -> object:
    query: LogQuery = call.query
    part = await call.state.results.logs(
        asker(call),
        agent_id(call),
        run_id=query.run_id,
        offset=query.offset,
        limit=query.limit,
        wait_s=query.wait,
        gone=call.disconnected,
    )
    headers = {
        "content-type": "text/plain; charset=utf-8",
        "x-log-run-id": part.run_id,
        "x-log-offset": str(part.offset),
        "x-log-next-offset": str(part.next_offset),
        "x-log-over": "true" if part.is_over else "false",
        "x-content-type-options": "nosniff",
    }
    return Response(part.text, headers=headers)


async def set_result(call: Call) -> object:
    await call.state.results.set_result(asker(call), agent_id(call), call.body)
    return Reply(status=204)


async def result(call: Call) -> object:
    agent, value = await call.state.results.result(
        asker(call), agent_id(call), wait_s=call.query.wait, gone=call.disconnected
    )
    return AgentResult(
        agent_id=agent.id,
        run_id=agent.run_id,
        state=agent.phase.value,
        status=agent.status.value,
        ready=agent.result is not None,
        result=value,
        exit_code=agent.exit_code,
        last_error=agent.last_error,
        ended_at=moment(agent.ended_at),
    )


def _spawned(agent: str) -> Reply:
    return Reply(status=201, body=Spawned(id=agent), headers={"location": f"/agents/{agent}"})


_SPAWNED = (Answer(status=201, body=Spawned, description="it is in Plan"),)
_MOVED = (Answer(status=200, body=AgentSummary, description="how it is now"),)

OPERATIONS = (
    Operation(
        method="GET",
        path="/agents",
        handler=listing,
        access=Access.CALLER,
        summary="The agents that run",
        tag="agents",
        query=ListQuery,
        answers=(Answer(status=200, body=list[AgentSummary], description="oldest first"),),
        errors=REFUSALS,
    ),
    Operation(
        method="POST",
        path="/agents",
        handler=spawn,
        access=Access.CALLER,
        summary="Start an agent, by its manifest or by the name under which it is installed",
        description="An agent that starts another stands above it: what it starts can do no more than itself.",
        tag="agents",
        body=SpawnRequest,
        answers=_SPAWNED,
        errors=SPAWN_ERRORS,
    ),
    Operation(
        method="POST",
        path="/agents/{id}/children",
        handler=spawn_child,
        access=Access.CALLER,
        summary="Start an agent below this one",
        tag="agents",
        body=ChildRequest,
        answers=_SPAWNED,
        errors={**SPAWN_ERRORS, "agent_not_found": 404},
    ),
    Operation(
        method="GET",
        path="/agents/{id}",
        handler=show,
        access=Access.CALLER,
        summary="All that is known of an agent, for a day also of one that has ended",
        tag="agents",
        answers=(Answer(status=200, body=AgentInfo, description="the agent"),),
        errors=AGENT_ERRORS,
    ),
    Operation(
        method="DELETE",
        path="/agents/{id}",
        handler=kill,
        access=Access.CALLER,
        summary="End an agent and all that descend from it",
        description="Answered once it is in Terminate. Its processes are told to end, and ended by force after at "
        "most ten seconds. One that has ended stays so and is not started again.",
        tag="agents",
        answers=(Answer(status=204, body=None, description="it is in Terminate"),),
        errors=MOVE_ERRORS,
    ),
    Operation(
        method="POST",
        path="/agents/{id}/transitions",
        handler=transition,
        access=Access.CALLER,
        summary="Move an agent to another state",
        tag="agents",
        body=TransitionRequest,
        answers=_MOVED,
        errors={**MOVE_ERRORS, "unknown_phase": 400, "illegal_transition": 409},
    ),
    *(
        Operation(
            method="POST",
            path=f"/agents/{{id}}/{word}",
            handler=handler,
            access=Access.CALLER,
            summary=told,
            tag="agents",
            answers=_MOVED,
            errors=MOVE_ERRORS,
        )
        for word, handler, told in (
            ("pause", pause, "Stop an agent where it is"),
            ("resume", resume, "Let a paused agent go on"),
        )
    ),
    Operation(
        method="GET",
        path="/agents/{id}/logs",
        handler=logs,
        access=Access.CALLER,
        summary="What a run of the agent printed, whole lines of it",
        description="`X-Log-Next-Offset` says where to read on, `X-Log-Over` whether nothing more will come.",
        tag="agents",
        query=LogQuery,
        streaming=True,
        answers=(
            Answer(
                status=200, body=str, description="a part of what it printed", content_type="text/plain; charset=utf-8"
            ),
        ),
        errors={**AGENT_ERRORS, "log_not_found": 404},
    ),
    Operation(
        method="GET",
        path="/agents/{id}/result",
        handler=result,
        access=Access.CALLER,
        summary="What the agent handed back, once it has",
        tag="agents",
        query=ResultQuery,
        streaming=True,
        answers=(Answer(status=200, body=AgentResult, description="the result, or that there is none (yet)"),),
        errors=AGENT_ERRORS,
    ),
    Operation(
        method="PUT",
        path="/agents/{id}/result",
        handler=set_result,
        access=Access.CALLER,
        summary="Hand back a result; once for each run",
        tag="agents",
        body=Any,
        body_limit_bytes=2 * LONGEST_RESULT_BYTES,
        answers=(Answer(status=204, body=None, description="it is kept"),),
        errors={**MOVE_ERRORS, "result_exists": 409, "result_too_large": 413},
    ),
)

"""Agents: ``/v1/agents…``."""

from borough.auth.scopes import Scope
from borough.core.clock import utc_now
from borough.core.ids import AgentId
from borough.http.operations import Answer, Call, Handler, Operation
from borough.http.town import callers, render, views, wire
from borough.http.town.common import AGENT_ERRORS, agent_status_answer
from borough.town.services.agents import Candidate

SPAWN_ERRORS = {
    "invalid_name": 422,
    "reserved_name": 422,
    "invalid_role": 422,
    "invalid_agent_id": 400,
    "unknown_cli": 422,
    "parent_not_found": 404,
    "agent_exists": 409,
    "town_full": 409,
}


def candidate(call: Call) -> Candidate:
    """Return the agent that a body describes, its CLI looked up first so that a wrong one starts nothing."""
    body = call.body
    if body.cli is not None:
        call.state.resolve_cli(body.cli)
    return Candidate(
        name=body.name,
        cli=body.cli,
        role_id=body.role_id,
        nickname=body.nickname,
        parent_agent_id=callers.optional_agent_id(getattr(body, "parent_agent_id", None), "/parent_agent_id"),
    )


async def listing(call: Call) -> object:
    agents = await call.state.agents.all()
    return wire.AgentList(agents=[render.agent_summary(agent) for agent in agents], count=len(agents))


async def show(call: Call) -> object:
    agent = await call.state.agents.get(call.path["agent"])
    history = await call.state.agents.history(agent.id)
    return render.agent_detail(agent, call.state.agents.confinement(agent), history, now=utc_now())


async def explain(call: Call) -> object:
    return render.explanation(await call.state.agents.explain(call.path["agent"]))


async def spawn(call: Call) -> object:
    agent = await call.state.agents.spawn(candidate(call), agent_id=AgentId(call.operation_key))
    return wire.Spawned(
        agent_id=agent.id,
        name=agent.name,
        cli=agent.cli,
        role_id=agent.role_id,
        nickname=agent.nickname,
        parent_agent_id=agent.parent_agent_id,
    )


async def kill(call: Call) -> object:
    agent = await call.state.agents.kill(call.path["agent"], by=callers.name_of(call))
    return wire.AgentStatus(status="stopped", agent=agent.name)


async def restart(call: Call) -> object:
    agent = await call.state.agents.restart(call.path["agent"], by=callers.name_of(call))
    return wire.AgentStatus(status="restarted", agent=agent.name)


async def interrupt(call: Call) -> object:
    agent = await call.state.agents.pause(call.path["agent"])
    return wire.AgentStatus(status="paused", agent=agent.name)


async def resume(call: Call) -> object:
    agent = await call.state.agents.resume(call.path["agent"])
    return wire.AgentStatus(status="resumed", agent=agent.name)


async def close(call: Call) -> object:
    agent = await call.state.agents.close(call.path["agent"])
    return wire.AgentStatus(status="draining", agent=agent.name)


async def prune(call: Call) -> object:
    body: wire.PruneRequest = call.body
    agents = await call.state.agents.prune(every=body.all, dry_run=body.dry_run)
    return wire.Pruned(removed=len(agents), agents=[agent.name for agent in agents], dry_run=body.dry_run)


_MOVES: tuple[tuple[str, Handler, str, dict[str, int]], ...] = (
    ("kill", kill, "End an agent now; its task returns to its queue", {}),
    ("restart", restart, "Start an agent again", {"launch_failed": 503}),
    ("interrupt", interrupt, "Freeze an agent where it is", {"agent_not_running": 409}),
    ("resume", resume, "Let a paused agent go on", {"agent_not_paused": 409}),
    ("close", close, "Let an agent finish what it has and leave", {"agent_not_running": 409}),
)

OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/agents",
        handler=listing,
        access=Scope.READ,
        summary="All agents",
        tag="agents",
        answers=(Answer(status=200, body=wire.AgentList, description="oldest first"),),
    ),
    Operation(
        method="POST",
        path="/v1/agents",
        handler=spawn,
        access=Scope.MANAGE,
        summary="Register an agent and start its process",
        tag="agents",
        body=wire.SpawnRequest,
        answers=(Answer(status=201, body=wire.Spawned, description="its process was started"),),
        errors={**SPAWN_ERRORS, "launch_failed": 503},
    ),
    Operation(
        method="GET",
        path="/v1/agents/{agent}",
        handler=show,
        access=Scope.READ,
        summary="One agent and what happened to it",
        tag="agents",
        answers=(Answer(status=200, body=wire.AgentDetail, description="the agent"),),
        errors=AGENT_ERRORS,
    ),
    Operation(
        method="GET",
        path="/v1/agents/{agent}/explain",
        handler=explain,
        access=Scope.READ,
        summary="Why an agent stands where it stands, since when, what next",
        tag="agents",
        answers=(Answer(status=200, body=views.Explanation, description="the reason"),),
        errors=AGENT_ERRORS,
    ),
    *(
        Operation(
            method="POST",
            path=f"/v1/agents/{{agent}}/{word}",
            handler=handler,
            access=Scope.MANAGE,
            ends=word in {"kill", "stop", "close", "pause"},
            summary=summary,
            tag="agents",
            answers=agent_status_answer(),
            errors={**AGENT_ERRORS, **errors},
        )
        for word, handler, summary, errors in _MOVES
    ),
    Operation(
        method="POST",
        path="/v1/agents/prune",
        handler=prune,
        access=Scope.MANAGE,
        summary="Forget ended agents, or all",
        description="What waits in their inboxes returns to the backlog. `dry_run` only looks.",
        tag="agents",
        body=wire.PruneRequest,
        answers=(Answer(status=200, body=wire.Pruned, description="who is forgotten"),),
    ),
)

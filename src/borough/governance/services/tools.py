"""Tools: which an agent can call, and the way of a call: known, judged, agreed to, recorded, made, recorded."""

import asyncio
from collections.abc import Mapping

from borough.core.errors import BoroughError, Conflict, Forbidden, Invalid, NotFound
from borough.core.ids import AgentId
from borough.governance.access import Standing, Verb
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.capabilities import Act
from borough.governance.decisions import DEFAULT_RULE, Allowed, Denied, NeedsApproval
from borough.governance.ledger import Outcome
from borough.governance.lifecycle import Phase, Status
from borough.governance.policy import REGISTRY_RULE, SCHEMA_RULE, could_call
from borough.governance.secrets import handles_in
from borough.governance.services.approvals import ApprovalService
from borough.governance.services.asking import Asker
from borough.governance.services.calls import Calls, Invocation, difference_of, recorded, rule_of, trial_data
from borough.governance.services.gate import Gate
from borough.governance.services.judging import Judged, Judging
from borough.governance.services.recording import Recorder
from borough.governance.services.registry import Registry
from borough.governance.services.scrubbing import Scrubber
from borough.governance.services.secret_use import lacks
from borough.governance.services.standing import Standings
from borough.governance.services.statistics import Statistics, ToolStatistics
from borough.governance.services.trials import Trials
from borough.governance.tools import Tool

_LIMITS = frozenset({"budget_exceeded", "rate_exceeded"})
_LIMIT_RETRY_S = 60


class ToolService:
    """Lists and calls tools."""

    def __init__(
        self,
        *,
        gate: Gate,
        standings: Standings,
        registry: Registry,
        judging: Judging,
        calls: Calls,
        approvals: ApprovalService,
        recorder: Recorder,
        scrubber: Scrubber,
        statistics: Statistics,
        trials: Trials,
    ) -> None:
        self._gate = gate
        self._standings = standings
        self._toolbox = registry
        self._judging = judging
        self._calls = calls
        self._approvals = approvals
        self._recorder = recorder
        self._scrubber = scrubber
        self._statistics = statistics
        self._trials = trials
        self._under_way: set[asyncio.Task[Invocation]] = set()
        approvals.finish_with(self._finish)

    async def list(self, asker: Asker, agent_id: AgentId) -> tuple[Tool, ...]:
        """Return the tools that an agent may call, and those of its attached servers whether it may or not."""
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.LIST_TOOLS, agent)
        rules = await self._standings.rules_of(agent)
        return tuple(tool for tool in await self._toolbox.tools(agent_id) if could_call(rules, tool))

    async def all(self, asker: Asker, agent_id: AgentId | None = None) -> tuple[Tool, ...]:
        """Return every tool that there is, for an agent or for all; whether it may be called is another question."""
        agent = None if agent_id is None else await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.LIST_TOOLS, agent)
        return await self._toolbox.tools(agent_id or asker.caller.agent_id)

    async def describe(self, asker: Asker, name: str, agent_id: AgentId | None = None) -> Tool:
        """Return one tool; raises ``NotFound`` (``tool_not_found``)."""
        tool = next((tool for tool in await self.all(asker, agent_id) if tool.name == name), None)
        if tool is None:
            raise _unknown(name)
        return tool

    async def invoke(
        self, asker: Asker, agent_id: AgentId, name: str, arguments: Mapping[str, object], *, wait: bool = True
    ) -> Invocation:
        """Call a tool for an agent. Whoever stops waiting does not stop the call: its outcome is recorded.

        With ``wait``, a call that people have to agree to is answered once they have decided; without, at once.

        Raises:
            NotFound: there is no such agent or tool (``agent_not_found``, ``tool_not_found``).
            Conflict: the agent has ended, or is paused (``agent_ended``, ``agent_paused``).
            Forbidden: it is not allowed; the code and the reason say why.
            Invalid: the arguments do not fit (``invalid_request``).
            Unavailable: the ledger cannot be written (``ledger_unavailable``): the tool did not run.
        """
        agent = await self._gate.agent(agent_id)
        _check_runs(agent)
        standing = await self._gate.admit(asker, Verb.INVOKE, agent)
        task = asyncio.ensure_future(self._judged(asker, agent, name, arguments, standing=standing, wait=wait))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_unheard)
            raise

    async def _judged(
        self,
        asker: Asker,
        agent: GovernedAgent,
        name: str,
        arguments: Mapping[str, object],
        *,
        standing: Standing,
        wait: bool,
    ) -> Invocation:
        judged = await self._judging.judge(asker, standing, agent, name, arguments)
        if isinstance(judged.decision, Allowed):
            return await self._calls.make(asker, judged, self._calls.reserve(judged))
        if isinstance(judged.decision, NeedsApproval):
            return await self._approvals.ask(asker, judged, wait=wait)
        raise await self._refused(asker, judged, judged.decision)

    async def _finish(
        self, asker: Asker, agent: GovernedAgent, name: str, arguments: Mapping[str, object], approval_id: str
    ) -> Invocation:
        """Make a call that was agreed to, if it still is allowed otherwise."""
        _check_runs(agent)
        standing = await self._standings.of(asker.caller)
        judged = await self._judging.judge(asker, standing, agent, name, arguments)
        if isinstance(judged.decision, Denied):
            raise await self._refused(asker, judged, judged.decision, approval_id=approval_id)
        self._judging.agreed(judged)
        return await self._calls.make(asker, judged, self._calls.reserve(judged), approval_id=approval_id)

    async def _refused(
        self, asker: Asker, judged: Judged, decision: Denied, *, approval_id: str | None = None
    ) -> BoroughError:
        """Record a refusal and return what the caller is told."""
        told = recorded(judged, self._scrubber)
        self._trials.note(judged.agent.id, difference_of(judged))
        await self._recorder.event(
            asker,
            Action.ACCESS_DENIED if decision.code == "denied" else Action.TOOL_INVOKE,
            outcome=Outcome.DENIED,
            detail=told.detail,
            agent_name=judged.caller_name,
            target=judged.agent,
            decision_rule=rule_of(decision),
            policy_id=approval_id,
            input_sha256=told.input_sha256,
            data={**told.data, **trial_data(judged), "code": decision.code, "reason": decision.reason},
        )
        return refusal_of(judged, decision)

    def stats(self) -> tuple[ToolStatistics, ...]:
        """Return what was called since the daemon started: how often, at what cost, how fast."""
        return self._statistics.all()

    async def drain(self, *, within_s: float) -> None:
        """Wait for calls under way; those that are not done in time are broken off, and recorded as unknown."""
        if not self._under_way:
            return
        _, late = await asyncio.wait(self._under_way, timeout=within_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


def refusal_of(judged: Judged, decision: Denied) -> BoroughError:
    """Return what a call is told that was denied."""
    if decision.rule == REGISTRY_RULE:
        return _unknown(judged.name)
    if decision.rule == SCHEMA_RULE:
        return Invalid(_prefixed(decision.reason), code="invalid_request", resolution=decision.resolution)
    for name in handles_in(judged.arguments):
        if decision.rule == DEFAULT_RULE and decision.reason.endswith(
            f" {Act(domain='secret', action='use', subject=name)}"
        ):
            return lacks(name)
    details = {"rule": decision.rule}
    if decision.retry_after_s is not None or decision.code in _LIMITS:
        return Forbidden(
            decision.reason,
            code=decision.code,
            resolution=decision.resolution,
            details={**details, "retry_after_s": decision.retry_after_s or _LIMIT_RETRY_S},
        )
    return Forbidden(decision.reason, code=decision.code, resolution=decision.resolution, details=details)


def _unheard(task: "asyncio.Task[Invocation]") -> None:
    """Hear how a call ended that nobody waits for any more: refusals are recorded, anything else is a fault."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, BoroughError):
        task.get_loop().call_exception_handler(
            {"message": "a call failed that nobody waits for", "exception": error, "task": task}
        )


def _check_runs(agent: GovernedAgent) -> None:
    if agent.phase is Phase.TERMINATE:
        raise Conflict(
            f"agent not found: {agent.id} has ended",
            code="agent_ended",
            resolution="start it again: ash agent run, or ash spawn",
        )
    if agent.status is Status.PAUSED:
        raise Conflict(
            f"the agent {agent.name} is paused", code="agent_paused", resolution="resume it, then repeat the call"
        )


def _prefixed(reason: str) -> str:
    return reason if reason.startswith("invalid request") else f"invalid request: {reason}"


def _unknown(name: str) -> NotFound:
    return NotFound(f"there is no tool {name[:80]!r}", code="tool_not_found", resolution="list them: ash tools list")

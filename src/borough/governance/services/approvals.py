"""Approvals: calls that wait for people, and what happens once they have decided."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from borough.core.clock import utc_now
from borough.core.errors import BoroughError, Conflict, Forbidden, NotFound
from borough.core.ids import AgentId
from borough.governance.access import Verb
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.approvals import Approval, ApprovalState, Call, approve, cancel, deny, expire, use
from borough.governance.decisions import NeedsApproval
from borough.governance.ledger import Outcome
from borough.governance.ports.register import Agents
from borough.governance.ports.tools import Approvals
from borough.governance.services.asking import Asker, daemon
from borough.governance.services.calls import Invocation, difference_of, recorded, rule_of, trial_data
from borough.governance.services.gate import Gate
from borough.governance.services.judging import Judged
from borough.governance.services.recording import Recorder
from borough.governance.services.scrubbing import Scrubber
from borough.governance.services.trials import Trials

MOST_RESULTS = 1000
MOST_RESULT_BYTES = 33_554_432
"""What is kept of results of calls that people agreed to, to be fetched; the oldest are forgotten first."""

Finish = Callable[[Asker, GovernedAgent, str, Mapping[str, object], str], Awaitable[Invocation]]
"""Judges a call anew and makes it: for whom it was asked, its agent, tool, arguments, and the approval's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How a call went that somebody agreed to: what it gave, or why it was not made."""

    invocation: Invocation | None = None
    refusal: BoroughError | None = None
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    """A call that waits: who made it, with what, and where its end is awaited."""

    asker: Asker
    arguments: Mapping[str, object]
    done: "asyncio.Future[Kept]"


class ApprovalService:
    """Asks people, and has calls made that they agree to. Requests outlive the daemon; results do not."""

    def __init__(
        self,
        *,
        approvals: Approvals,
        agents: Agents,
        gate: Gate,
        recorder: Recorder,
        scrubber: Scrubber,
        trials: Trials,
    ) -> None:
        self._approvals = approvals
        self._agents = agents
        self._gate = gate
        self._recorder = recorder
        self._scrubber = scrubber
        self._trials = trials
        self._waiting: dict[str, _Waiting] = {}
        self._results: OrderedDict[str, Kept] = OrderedDict()
        self._result_bytes = 0
        self._finish: Finish | None = None

    def finish_with(self, finish: Finish) -> None:
        """Say what makes the calls that were agreed to."""
        self._finish = finish

    async def ask(self, asker: Asker, judged: Judged, *, wait: bool) -> Invocation:
        """Ask for agreement to a call; with ``wait``, return how it went once it was decided.

        Raises:
            Forbidden: somebody refused (``human_denied``), nobody agreed in time (``approval_timeout``), or what was
                agreed to is not allowed any more.
            Conflict: the agent ended meanwhile (``approval_cancelled``).
        """
        approval = self._request(asker, judged)
        told = recorded(judged, self._scrubber)
        self._trials.note(judged.agent.id, difference_of(judged))
        await self._recorder.event(
            asker,
            Action.APPROVAL_REQUESTED,
            outcome=Outcome.PENDING,
            detail=told.detail,
            agent_name=judged.caller_name,
            target=judged.agent,
            decision_rule=rule_of(judged.decision),
            policy_id=approval.id,
            input_sha256=told.input_sha256,
            data={**told.data, **trial_data(judged), "approvers": approval.needed},
        )
        done: asyncio.Future[Kept] = asyncio.get_running_loop().create_future()
        self._waiting[approval.id] = _Waiting(asker=asker, arguments=judged.arguments, done=done)
        await self._approvals.add(approval)
        if not wait:
            return Invocation(status="pending", request_id=approval.id, approval_id=approval.id)
        return await self._end_of(approval, done)

    def _request(self, asker: Asker, judged: Judged) -> Approval:
        now = utc_now()
        decision = cast("NeedsApproval", judged.decision)
        timeout = timedelta(seconds=judged.registered.tool.approval_timeout_s)
        return Approval(
            id=asker.derived("approval", judged.agent.id, judged.name),
            agent_id=judged.agent.id,
            tool=judged.name,
            call_digest=_call(judged.agent, judged.name, judged.arguments).digest,
            shown=self._scrubber.value(judged.arguments),
            rule=decision.rule,
            submitted_at=now,
            expires_at=now + timeout,
            needed=decision.approvers,
        )

    async def _end_of(self, approval: Approval, done: "asyncio.Future[Kept]") -> Invocation:
        left = (approval.expires_at - utc_now()).total_seconds()
        await asyncio.wait([done], timeout=max(0.0, left))
        if not done.done():
            await self.sweep()
            # Somebody may have agreed in the last moment, and the call be under way: it ends in its own time.
            await done
        return _handed_out(done.result())

    async def get(self, asker: Asker, approval_id: str) -> tuple[Approval, Kept | None]:
        """Return a request, and how its call went if that is known here."""
        approval = await self._approvals.get(approval_id)
        await self._gate.admit(asker, Verb.READ_APPROVALS, await self._gate.agent(approval.agent_id))
        return expire(approval, at=utc_now()), self._results.get(approval_id)

    async def waiting(self, asker: Asker) -> tuple[Approval, ...]:
        """Return what waits for a decision, of agents that the caller reaches by right, oldest first."""
        await self._gate.admit(asker, Verb.READ_APPROVALS)
        now = utc_now()
        found = [one for one in await self._approvals.waiting() if expire(one, at=now) is one]
        if not self._gate.is_narrow(asker):
            return tuple(found)
        me = asker.caller.agent_id
        return tuple([one for one in found if one.agent_id == me or me in await self._agents.ancestors(one.agent_id)])

    async def approve(self, asker: Asker, approval_id: str, *, operator: str | None = None) -> Approval:
        """Agree to a call; the last agreement that is needed has it made at once.

        Raises:
            Forbidden: the caller may not (``scope_missing``, ``not_related``).
            Conflict: it was decided already (``already_decided``).
        """
        before = await self._decidable(asker, approval_id)
        after = approve(before, by=_decider(asker, before, operator), at=utc_now())
        if after is not before:
            after = await self._decide(asker, before, after, operator)
        # Agreed to before a crash, and not made yet: agreeing again has it made.
        if after.state is ApprovalState.APPROVED:
            await self._make(after)
            after = await self._approvals.get(approval_id)
        return after

    async def deny(self, asker: Asker, approval_id: str, *, operator: str | None = None) -> Approval:
        """Refuse a call; raises as ``approve`` does."""
        before = await self._decidable(asker, approval_id)
        after = deny(before, by=_decider(asker, before, operator), at=utc_now())
        if after is before:
            return before
        after = await self._decide(asker, before, after, operator)
        refusal = Forbidden("denied by operator", code="human_denied", reason=f"{after.decided_by} refused it")
        self._end(approval_id, Kept(refusal=refusal))
        return after

    async def _decidable(self, asker: Asker, approval_id: str) -> Approval:
        approval = await self._approvals.get(approval_id)
        await self._gate.admit(asker, Verb.DECIDE_APPROVAL, await self._gate.agent(approval.agent_id))
        if self._gate.is_narrow(asker):
            raise Forbidden(
                "permission denied",
                code="not_related",
                reason="agents do not agree to calls of agents",
                resolution="have an operator decide: ash pending",
            )
        if expire(approval, at=utc_now()) is not approval:
            await self.sweep()
            raise Conflict("the request has expired", code="already_decided", resolution="have the call made again")
        return approval

    async def _decide(self, asker: Asker, before: Approval, after: Approval, operator: str | None) -> Approval:
        agreed = after.state is not ApprovalState.DENIED
        async with self._recorder.act(
            asker,
            Action.HUMAN_APPROVAL,
            detail=f"{'approve' if agreed else 'deny'} {after.tool}",
            target=await self._agents.get(after.agent_id),
            data={
                "tool": after.tool,
                "by": after.decided_by or after.approved_by[-1],
                "operator": operator,
                "approved_by": list(after.approved_by),
                "needed": after.needed,
            },
        ) as act:
            act.policy_id = after.id
            act.outcome = Outcome.SUCCESS if agreed else Outcome.DENIED
            await self._approvals.replace(after, was=before.state)
        return after

    async def _make(self, approval: Approval) -> None:
        """Make an approved call, once, and keep how it went for whoever waits and whoever asks."""
        waiting = self._waiting.get(approval.id)
        # After a restart what was shown is all there is; the digest tells whether it is the whole call.
        arguments = waiting.arguments if waiting is not None else cast("Mapping[str, object]", approval.shown)
        who = waiting.asker if waiting is not None else daemon(f"approval {approval.id}")
        if self._finish is None:
            raise RuntimeError("nothing was said to make calls with")
        try:
            agent = await self._agents.get(approval.agent_id)
            used = use(approval, _call(agent, approval.tool, arguments), at=utc_now())
            if not await self._claimed(used):
                return
            made = await self._finish(who, agent, approval.tool, arguments, approval.id)
            kept = Kept(invocation=made, size_bytes=len(repr(made.output)))
        except BoroughError as error:
            kept = Kept(refusal=error)
        except BaseException:
            self._abandon(approval.id)
            raise
        self._end(approval.id, kept)

    async def _claimed(self, used: Approval) -> bool:
        """Tell whether the call is this one's to make: of several who agree at the same moment, one makes it."""
        try:
            await self._approvals.replace(used, was=ApprovalState.APPROVED)
        except Conflict:
            return False
        return True

    def _end(self, approval_id: str, kept: Kept) -> None:
        earlier = self._results.pop(approval_id, None)
        self._result_bytes -= 0 if earlier is None else earlier.size_bytes
        self._results[approval_id] = kept
        self._result_bytes += kept.size_bytes
        while len(self._results) > MOST_RESULTS or self._result_bytes > MOST_RESULT_BYTES:
            self._result_bytes -= self._results.popitem(last=False)[1].size_bytes
        waiting = self._waiting.pop(approval_id, None)
        if waiting is not None and not waiting.done.done():
            waiting.done.set_result(kept)

    def _abandon(self, approval_id: str) -> None:
        waiting = self._waiting.pop(approval_id, None)
        if waiting is not None:
            waiting.done.cancel()

    async def sweep(self, *, at: datetime | None = None) -> int:
        """End requests whose time is over and return how many; for a loop, and for whoever finds one."""
        now = at or utc_now()
        ended = 0
        for approval in await self._approvals.waiting():
            expired = expire(approval, at=now)
            if expired is not approval and await self._over(approval, expired, Outcome.TIMEOUT, "expired"):
                refusal = Forbidden(
                    "approval timed out", code="approval_timeout", resolution="make the call again, which asks anew"
                )
                self._end(approval.id, Kept(refusal=refusal))
                ended += 1
        return ended

    async def on_end(self, agent_id: AgentId) -> None:
        """Take back what an agent that has ended was waiting for."""
        for approval in await self._approvals.waiting():
            if approval.agent_id != agent_id:
                continue
            if await self._over(approval, cancel(approval, at=utc_now()), Outcome.FAILURE, "cancelled"):
                refusal = Conflict("the agent ended", code="approval_cancelled", resolution="start the agent again")
                self._end(approval.id, Kept(refusal=refusal))

    async def _over(self, before: Approval, after: Approval, outcome: Outcome, word: str) -> bool:
        """Record the end of a request that nobody decided; tell whether it was not decided meanwhile after all."""
        try:
            target = await self._agents.get(before.agent_id)
        except NotFound:
            target = None
        try:
            async with self._recorder.act(
                daemon(f"{word} {before.id}"),
                Action.HUMAN_APPROVAL,
                detail=f"{word} {before.tool}",
                target=target,
                data={"tool": before.tool, "state": after.state.value},
            ) as act:
                act.policy_id, act.outcome = before.id, outcome
                await self._approvals.replace(after, was=before.state)
        except Conflict:
            return False
        return True


def _call(agent: GovernedAgent, tool: str, arguments: Mapping[str, object]) -> Call:
    return Call(
        agent_id=agent.id,
        run_id=agent.run_id,
        tool=tool,
        arguments=arguments,
        manifest_digest=agent.manifest_digest,
    )


def _decider(asker: Asker, approval: Approval, operator: str | None) -> str:
    """Return who decides. Where several people have to agree, only what was proven tells them apart."""
    if operator and approval.needed == 1:
        return operator
    return asker.caller.token_name


def _handed_out(kept: Kept) -> Invocation:
    if kept.refusal is not None:
        raise kept.refusal
    if kept.invocation is None:
        raise LookupError("a call that ended has either an end or a refusal")
    return kept.invocation

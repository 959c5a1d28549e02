"""Making calls that everything agreed to: recorded before and after, with secrets put in for just as long."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from time import perf_counter
from typing import cast

from borough.core.errors import BoroughError, Forbidden
from borough.governance.actions import Action
from borough.governance.canonical import Json, plain_text
from borough.governance.decisions import Allowed, Decision
from borough.governance.escalations import EscalationKind
from borough.governance.ledger import Outcome
from borough.governance.outputs import MOST_TEXT_CHARACTERS, capped
from borough.governance.ports.register import Agents
from borough.governance.ports.tools import ToolCall, ToolReply
from borough.governance.secrets import Redactor, handles_in, substitute
from borough.governance.services.asking import Asker
from borough.governance.services.escalations import EscalationService
from borough.governance.services.judging import Judged
from borough.governance.services.recording import Act, Recorder
from borough.governance.services.scrubbing import Scrubber
from borough.governance.services.secret_use import CANARY, SecretUses
from borough.governance.services.spending import Reservation, Spending
from borough.governance.services.statistics import Statistics
from borough.governance.services.trials import Difference, Trials
from borough.governance.tool_needs import needs_of
from borough.governance.tools import Category, Tool, category_of, tainted_after

MOST_RECORDED_CHARACTERS = 16_384
"""Longer arguments are recorded by their digest only."""
_MOST_SHOWN_CHARACTERS = 1024
DEFAULT_TIMEOUT_S = 60.0
_GRACE_S = 10.0
TIMEOUTS_S: Mapping[str, float] = {"lm.complete": 180.0, "lm.chat": 180.0, "lm.embed": 60.0, "web.fetch": 30.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """How a call of a tool stands."""

    status: str
    """``success``, ``error`` (the tool ran and failed) or ``pending`` (somebody has to agree first)."""
    output: object = None
    cost_micros: int = 0
    duration_ms: int = 0
    request_id: str
    """The request's, or that of the request for agreement."""
    approval_id: str | None = None
    """Where to ask how a pending call went."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A call as the ledger tells of it."""

    detail: str
    input_sha256: str
    data: Mapping[str, Json]


@dataclass(slots=True)
class _Made:
    """What a call that reached its provider came to."""

    reply: ToolReply
    output: object
    duration_ms: float
    found: tuple[str, ...] = field(default=())


def recorded(judged: Judged, scrubber: Scrubber) -> Recorded:
    """Return how a call is recorded: whole where it is short, so that it can be judged again later; free of secrets."""
    text = plain_text(judged.arguments)
    digest = sha256(text.encode()).hexdigest()
    clean = scrubber.text(text)
    shown = clean if len(clean) <= _MOST_SHOWN_CHARACTERS else f"{clean[:_MOST_SHOWN_CHARACTERS]}…"
    spent = judged.facts.spent
    data: dict[str, Json] = {
        "tool": judged.name,
        "verdict": judged.decision.verdict,
        "tainted": judged.agent.tainted,
        "spent": [spent.calls, spent.tokens, spent.cost_micros, spent.wall_time_s],
    }
    if len(clean) <= MOST_RECORDED_CHARACTERS:
        data["arguments"] = clean
    return Recorded(detail=f"{judged.name}({shown})", input_sha256=digest, data=data)


def rule_of(decision: Decision) -> str:
    """Return the rule that the ledger names for a decision."""
    return ", ".join(dict.fromkeys(decision.rules)) if isinstance(decision, Allowed) else decision.rule


def difference_of(judged: Judged) -> Difference | None:
    """Return how a law on trial would have decided otherwise, if there is one and it would."""
    trial = judged.trial
    if trial is None or trial.verdict == judged.decision.verdict:
        return None
    return Difference(
        at=judged.facts.at,
        tool=judged.name,
        enforced=judged.decision.verdict,
        trial=trial.verdict,
        rule=rule_of(trial),
    )


def trial_data(judged: Judged) -> dict[str, Json]:
    """Return what the ledger keeps of a law on trial; nothing where there is none."""
    if judged.trial is None:
        return {}
    return {"trial": {"verdict": judged.trial.verdict, "rule": rule_of(judged.trial)}}


class Calls:
    """Makes calls."""

    def __init__(
        self,
        *,
        agents: Agents,
        recorder: Recorder,
        scrubber: Scrubber,
        secrets: SecretUses,
        spending: Spending,
        statistics: Statistics,
        trials: Trials,
        escalations: EscalationService,
    ) -> None:
        self._agents = agents
        self._escalations = escalations
        self._recorder = recorder
        self._scrubber = scrubber
        self._secrets = secrets
        self._spending = spending
        self._statistics = statistics
        self._trials = trials

    def reserve(self, judged: Judged) -> Reservation:
        """Set aside what the call may cost; has to follow the decision at once."""
        return self._spending.reserve(judged.agent.id, cost_micros=judged.registered.tool.estimated_cost_micros)

    async def make(
        self, asker: Asker, judged: Judged, reservation: Reservation, *, approval_id: str | None = None
    ) -> Invocation:
        """Make a call that may be made, and return how it went.

        Raises:
            Unavailable: the ledger cannot be written (``ledger_unavailable``): the tool did not run, or, where
                ``details`` say so, what it gave is not handed out.
        """
        told = recorded(judged, self._scrubber)
        self._trials.note(judged.agent.id, difference_of(judged))
        charging: asyncio.Future[None] | None = None
        announced = False
        try:
            async with self._recorder.act(
                asker,
                Action.TOOL_INVOKE,
                detail=told.detail,
                agent_name=judged.caller_name,
                target=judged.agent,
                input_sha256=told.input_sha256,
                data=told.data,
            ) as act:
                announced = True
                act.data = {"tool": judged.name, "verdict": judged.decision.verdict, **trial_data(judged)}
                act.decision_rule = rule_of(judged.decision)
                act.policy_id = approval_id
                made = await self._perform(asker, judged, act)
                cost = _cost(judged, made.reply)
                # Beside the outcome's way to disk, not after it.
                charging = asyncio.ensure_future(
                    self._spending.charge(asker, judged.agent, cost_micros=cost, tokens=made.reply.tokens)
                )
                _conclude(act, made, cost, self._scrubber)
        except BoroughError:
            # It cost nothing, but it was a call: probing is not free.
            if announced and charging is None:
                await self._spending.charge(asker, judged.agent, cost_micros=0, tokens=0)
            raise
        finally:
            if charging is not None:
                await charging
            self._spending.release(reservation)
        self._statistics.note(judged.name, cost_micros=cost, duration_ms=made.duration_ms)
        return Invocation(
            status=made.reply.status,
            output=made.output,
            cost_micros=cost,
            duration_ms=round(made.duration_ms),
            request_id=approval_id or asker.request_id,
            approval_id=approval_id,
        )

    async def _perform(self, asker: Asker, judged: Judged, act: Act) -> _Made:
        found = judged.registered
        values: Mapping[str, str] = {}
        arguments = judged.arguments
        names = handles_in(arguments)
        if names:
            values = await self._secrets.resolve(asker, judged.agent, names, tool=judged.name, host=_host(judged))
            arguments = cast("Mapping[str, object]", substitute(arguments, values))
        await self._check_bait(asker, judged, arguments)
        call = ToolCall(
            id=act.intent_id,
            agent_id=judged.agent.id,
            tool=judged.name,
            arguments=arguments,
            timeout_s=timeout_of(judged.name, judged.arguments),
            manifest=judged.manifest,
        )
        began = perf_counter()
        try:
            async with asyncio.timeout(call.timeout_s):
                reply = await found.provider.call(call)
        except TimeoutError:
            act.outcome = Outcome.TIMEOUT
            reply = ToolReply(status="error", output={"error": "timeout"})
        finally:
            await self._taint(judged, found.tool)
        made = _Made(reply, None, (perf_counter() - began) * 1000)
        await self._clean(asker, judged, made, values)
        return made

    async def _taint(self, judged: Judged, tool: Tool) -> None:
        category = category_of(tool, judged.manifest.network.policy)
        if tainted_after(category, tainted=judged.agent.tainted) and not judged.agent.tainted:
            await self._agents.taint(judged.agent.id, tainted=True)

    async def _clean(self, asker: Asker, judged: Judged, made: _Made, values: Mapping[str, str]) -> None:
        """Take every secret out of what the tool gave, and tell of bait that was taken."""
        given = made.reply.output
        output = self._scrubber.value(given)
        if output != given:
            made.found = self._scrubber.finds(given)
            await self._tell_of_bait(asker, judged, made.found, where="output")
        if values:
            # The store may have been locked meanwhile, and the scrubber have forgotten them.
            output = Redactor(values).value(output)
        made.output = capped(output, limit=MOST_TEXT_CHARACTERS)

    async def _check_bait(self, asker: Asker, judged: Judged, arguments: Mapping[str, object]) -> None:
        if category_of(judged.registered.tool, judged.manifest.network.policy) is not Category.OUTPUT:
            return
        bait = [name for name in self._scrubber.finds(arguments) if name.startswith(CANARY)]
        if bait:
            await self._tell_of_bait(asker, judged, tuple(bait), where="input")
            raise Forbidden(
                "the call would send out a secret that is bait",
                code="canary_leak",
                resolution="look into what the agent has read: ash audit",
            )

    async def _tell_of_bait(self, asker: Asker, judged: Judged, names: tuple[str, ...], *, where: str) -> None:
        bait = [name for name in names if name.startswith(CANARY)]
        if not bait:
            return
        told = f"canary_leak: {', '.join(bait)} in the {where} of {judged.name}"
        await self._recorder.event(
            asker,
            Action.ANOMALY_DETECTED,
            outcome=Outcome.DENIED,
            detail=told,
            target=judged.agent,
            data={"rule": "canary_leak", "severity": "critical", "tool": judged.name},
        )
        await self._escalations.raise_(
            asker, judged.agent, EscalationKind.ANOMALY, told, escalation_id=asker.derived("canary", where)
        )


def timeout_of(tool: str, arguments: Mapping[str, object]) -> float:
    """Return how long a call may take: code says so itself, and has a little more for its beginning and end."""
    asked = arguments.get("timeout_ms", 5000)
    if tool == "sandbox.exec" and isinstance(asked, int):
        return asked / 1000 + _GRACE_S
    return TIMEOUTS_S.get(tool, DEFAULT_TIMEOUT_S)


def _host(judged: Judged) -> str | None:
    endpoints = needs_of(judged.name, judged.arguments).endpoints
    return endpoints[0][0] if endpoints else None


def _cost(judged: Judged, reply: ToolReply) -> int:
    return judged.registered.tool.estimated_cost_micros if reply.cost_micros is None else reply.cost_micros


def _conclude(act: Act, made: _Made, cost_micros: int, scrubber: Scrubber) -> None:
    act.data["cost_micros"] = cost_micros
    act.data["duration_ms"] = round(made.duration_ms)
    if made.reply.tokens:
        act.data["tokens"] = made.reply.tokens
    if made.found:
        act.data["redacted"] = list(made.found)
    if made.reply.status != "success":
        act.outcome = Outcome.TIMEOUT if act.outcome is Outcome.TIMEOUT else Outcome.FAILURE
        act.data["code"] = "tool_error"
        act.data["reason"] = scrubber.text(error_text(made.output))[:500]


def error_text(output: object) -> str:
    """Return what a failed call says went wrong."""
    if isinstance(output, Mapping) and isinstance(output.get("error"), str):
        return str(output["error"])
    return output if isinstance(output, str) else "the tool failed"

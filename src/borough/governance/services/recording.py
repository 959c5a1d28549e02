"""Writing to the ledger: what happened, and for acts first what is about to happen, then how it went."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

from borough.core.clock import utc_now
from borough.core.errors import BoroughError, Forbidden, NotFound, Unavailable
from borough.core.ids import derived_id, new_id
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.canonical import Json
from borough.governance.ledger import Draft, Kind, Outcome, Sealed, fit_detail
from borough.governance.ports.ledger import Ledger
from borough.governance.ports.register import Agents
from borough.governance.services.asking import Asker
from borough.governance.services.scrubbing import Scrubber
from borough.governance.tokens import Role

_TIMEOUTS = frozenset({"approval_timeout", "timeout", "tool_timeout"})
NO_DATA: Mapping[str, Json] = {}


@dataclass(slots=True, kw_only=True)
class Act:
    """Something under way: what its outcome will say is filled in meanwhile."""

    intent_id: str
    outcome: Outcome = Outcome.SUCCESS
    detail: str | None = None
    """``None``: the intent's."""
    decision_rule: str | None = None
    policy_id: str | None = None
    data: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What all entries about one thing say alike."""

    asker: Asker
    action: Action
    agent_name: str
    target: GovernedAgent | None
    input_sha256: str | None


class Recorder:
    """Drafts entries out of requests, free of secrets, and appends them."""

    def __init__(self, ledger: Ledger, scrubber: Scrubber, agents: Agents) -> None:
        self._ledger = ledger
        self._scrubber = scrubber
        self._agents = agents

    async def event(
        self,
        asker: Asker,
        action: Action,
        *,
        outcome: Outcome = Outcome.SUCCESS,
        detail: str = "",
        agent_name: str = "",
        target: GovernedAgent | None = None,
        decision_rule: str | None = None,
        policy_id: str | None = None,
        input_sha256: str | None = None,
        data: Mapping[str, Json] = NO_DATA,
    ) -> Sealed:
        """Record that something happened; returns once it is on disk.

        Raises:
            Unavailable: the ledger cannot be written (``ledger_unavailable``).
        """
        act = Act(intent_id="", outcome=outcome, decision_rule=decision_rule, policy_id=policy_id, data=dict(data))
        told = await self._told(asker, action, agent_name, target, input_sha256)
        return (await self._ledger.append([self._draft(told, act, id_=new_id(), detail=detail)]))[0]

    async def denied(self, asker: Asker, what: str, refusal: Forbidden, *, target: GovernedAgent | None = None) -> None:
        """Append that the caller was refused ``what``; the caller of this raises ``refusal`` itself.

        Raises:
            Unavailable: the ledger cannot be written (``ledger_unavailable``).
        """
        data = {"code": refusal.code, "reason": refusal.reason or refusal.message}
        await self.event(asker, Action.ACCESS_DENIED, outcome=Outcome.DENIED, detail=what, target=target, data=data)

    @asynccontextmanager
    async def act(
        self,
        asker: Asker,
        action: Action,
        *,
        detail: str = "",
        agent_name: str = "",
        target: GovernedAgent | None = None,
        input_sha256: str | None = None,
        data: Mapping[str, Json] = NO_DATA,
    ) -> AsyncIterator[Act]:
        """Record the intent, let the body act, and record how it went; what is raised goes on.

        Raises:
            Unavailable: the intent cannot be recorded (``ledger_unavailable``); then the body does not run. When only
                the outcome cannot be recorded, the act was done and the entry's outcome is found unknown later.
        """
        intent = Act(intent_id=new_id(), outcome=Outcome.PENDING, data=dict(data))
        told = await self._told(asker, action, agent_name, target, input_sha256)
        await self._ledger.append([self._draft(told, intent, id_=intent.intent_id, kind=Kind.INTENT, detail=detail)])
        running = Act(intent_id=intent.intent_id, data=dict(data))
        try:
            yield running
        except BoroughError as error:
            running.outcome = outcome_of(error)
            running.data["code"] = error.code
            running.data["reason"] = error.reason or error.message
            await self._conclude(told, running, detail)
            raise
        except asyncio.CancelledError:
            running.outcome = Outcome.UNKNOWN
            await asyncio.shield(self._conclude(told, running, detail))
            raise
        except Exception:
            running.outcome = Outcome.FAILURE
            running.data["code"] = "internal_error"
            await self._conclude(told, running, detail)
            raise
        else:
            await self._conclude(told, running, detail)

    async def _conclude(self, told: _Told, act: Act, detail: str) -> None:
        detail = detail if act.detail is None else act.detail
        # Derived, so that an intent has one outcome however often it is told.
        id_ = derived_id("outcome", act.intent_id)
        await self._ledger.append([self._draft(told, act, id_=id_, kind=Kind.OUTCOME, detail=detail)])

    async def _told(
        self,
        asker: Asker,
        action: Action,
        agent_name: str,
        target: GovernedAgent | None,
        input_sha256: str | None,
    ) -> _Told:
        name = agent_name or await self._name_of(asker, target)
        return _Told(asker=asker, action=action, agent_name=name, target=target, input_sha256=input_sha256)

    async def _name_of(self, asker: Asker, target: GovernedAgent | None) -> str:
        """Return what the caller is called; one who never was an agent, or is long forgotten, has no name."""
        caller = asker.caller
        if caller.is_unbound:
            return "operator" if caller.role is Role.OPERATOR else ""
        if target is not None and target.id == caller.agent_id:
            return target.name
        try:
            return (await self._agents.get(caller.agent_id)).name
        except NotFound:
            return ""

    def _draft(self, told: _Told, act: Act, *, id_: str, detail: str, kind: Kind = Kind.EVENT) -> Draft:
        asker, target, caller = told.asker, told.target, told.asker.caller
        return Draft(
            id=id_,
            at=utc_now(),
            agent_id=caller.agent_id,
            agent_name=told.agent_name,
            action=told.action.value,
            outcome=act.outcome,
            kind=kind,
            via=asker.via,
            detail=fit_detail(self._scrubber.text(detail)),
            on_behalf_of=target.id if target is not None and target.id != caller.agent_id else None,
            intent_id=act.intent_id or None if kind is Kind.OUTCOME else None,
            run_id=target.run_id if target is not None else None,
            token_name=caller.token_name,
            request_id=asker.request_id,
            trace_id=asker.trace_id,
            decision_rule=act.decision_rule,
            policy_id=act.policy_id,
            input_sha256=told.input_sha256,
            data=cast("Mapping[str, Json]", self._scrubber.value(act.data)),
        )


def outcome_of(error: BoroughError) -> Outcome:
    """Return what the ledger calls the end of an act that raised ``error``."""
    if error.code in _TIMEOUTS:
        return Outcome.TIMEOUT
    if isinstance(error, Forbidden):
        return Outcome.DENIED
    if isinstance(error, Unavailable) and error.details.get("unknown"):
        return Outcome.UNKNOWN
    return Outcome.FAILURE

"""Governed agents, requests for agreement and decisions, found and explained."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson

from borough.core.errors import NotFound
from borough.core.ids import AgentId, canonical_id, is_id
from borough.governance.agents import GovernedAgent
from borough.governance.approvals import Approval
from borough.governance.ledger import Sealed
from borough.governance.ports.ledger import EntryFilter, Ledger
from borough.governance.ports.register import Agents
from borough.governance.ports.tools import Approvals
from borough.governance.tokens import NOBODY
from borough.overview.explaining import (
    MOST_HISTORY,
    Explanation,
    Happened,
    Match,
    Related,
    matched,
    why_of_agent,
    why_of_approval,
)
from borough.overview.occurrences import Context, Subject

_NUMBER: Final = 15
"""Digits that a number of an entry has at the most."""


class GovernedAgentThings:
    """Governed agents, also those that have ended and are still kept: by id, short id and name."""

    context: Final = Context.GOVERNANCE
    kind: Final = "agent"

    def __init__(self, agents: Agents, approvals: Approvals, ledger: Ledger) -> None:
        self._agents = agents
        self._approvals = approvals
        self._ledger = ledger

    async def find(self, word: str, *, limit: int) -> Sequence[Match]:
        """Return agents that a word may mean; of several with one name, the one that runs."""
        agents = await self._agents.all(ended=True)
        found = [match for agent in agents if (match := matched(word, _agent(agent), agent.status.value)) is not None]
        running = {agent.id for agent in agents if agent.ended_at is None}
        exact = [match for match in found if match.exact]
        alive = [match for match in exact if match.subject.id in running]
        if len(exact) > 1 and alive:
            found = [match for match in found if not match.exact or match in alive]
        return sorted(found, key=lambda match: not match.exact)[:limit]

    async def explain(self, subject: Subject) -> Explanation:
        """Return why an agent is as it is."""
        agent = await self._agents.get(AgentId(subject.id))
        why, steps = why_of_agent(agent)
        entries = await self._ledger.newest(EntryFilter(agents=frozenset({agent.id})), limit=MOST_HISTORY)
        waiting = [one for one in await self._approvals.waiting() if one.agent_id == agent.id]
        parent = () if agent.parent_id is None else (Subject(kind="agent", id=agent.parent_id),)
        return Explanation(
            subject=_agent(agent),
            state=agent.status.value,
            why=f"{why}; {len(waiting)} calls of it wait for agreement" if waiting else why,
            since=agent.ended_at or agent.run_started_at,
            next=steps,
            related=(
                *(Related(subject=each, relation="started it") for each in parent),
                *(Related(subject=_approval(one), relation="waits for agreement") for one in waiting[:MOST_HISTORY]),
            ),
            history=tuple(_happened(_fields(entry)) for entry in entries),
        )


class ApprovalThings:
    """Requests for agreement: by id, and those that wait by its beginning."""

    context: Final = Context.GOVERNANCE
    kind: Final = "approval"

    def __init__(self, approvals: Approvals, agents: Agents) -> None:
        self._approvals = approvals
        self._agents = agents

    async def find(self, word: str, *, limit: int) -> Sequence[Match]:
        """Return requests that a word may mean."""
        if is_id(word):
            try:
                found = await self._approvals.get(canonical_id(word))
            except NotFound:
                return ()
            return (Match(subject=_approval(found), state=found.state.value, exact=True),)
        waiting = [one for one in await self._approvals.waiting() if one.id.startswith(word.casefold())]
        return [Match(subject=_approval(one), state=one.state.value) for one in waiting[:limit]]

    async def explain(self, subject: Subject) -> Explanation:
        """Return why a request stands as it does."""
        approval = await self._approvals.get(subject.id)
        why, steps = why_of_approval(approval)
        agreed = [Happened(at=approval.submitted_at, what="agreed", by=who) for who in approval.approved_by]
        decided = approval.decided_at
        end = [] if decided is None else [Happened(at=decided, what=approval.state.value, by=approval.decided_by)]
        return Explanation(
            subject=_approval(approval),
            state=approval.state.value,
            why=why,
            since=approval.decided_at or approval.submitted_at,
            next=steps,
            related=(Related(subject=Subject(kind="agent", id=approval.agent_id), relation="it asked"),),
            history=(Happened(at=approval.submitted_at, what=f"asked to call {approval.tool}"), *agreed, *end),
        )


class DecisionThings:
    """Decisions and all other entries of the ledger: by their numbers and ids."""

    context: Final = Context.GOVERNANCE
    kind: Final = "decision"

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def find(self, word: str, *, limit: int) -> Sequence[Match]:
        """Return the entry of a number or an id; no two have the same."""
        entry = await self._entry(word)
        if entry is None or limit < 1:
            return ()
        fields = _fields(entry)
        return (Match(subject=_entry(fields), state=fields["outcome"], exact=True),)

    async def explain(self, subject: Subject) -> Explanation:
        """Return what was decided and why, from what the ledger says."""
        fields = _fields(await self._ledger.named(subject.id))
        rule, policy = fields.get("decision_rule"), fields.get("policy_id")
        by_rule = f"; the rule was {rule}" if rule else ""
        intent = fields.get("intent_id")
        about = None if fields["agent_id"] == NOBODY else fields["agent_id"]
        return Explanation(
            subject=_entry(fields),
            state=fields["outcome"],
            why=f"{fields['detail'] or fields['action']}{by_rule}",
            since=datetime.fromisoformat(fields["timestamp"]),
            next=(f"its proof: GET /audit/proof?seq={fields['seq']}",),
            related=tuple(
                Related(subject=each, relation=how)
                for each, how in (
                    (about and Subject(kind="agent", id=about, name=fields["agent_name"] or None), "it was its act"),
                    (intent and Subject(kind="decision", id=intent), "it was announced there"),
                    (policy and is_id(policy) and Subject(kind="approval", id=policy), "it was agreed to there"),
                )
                if isinstance(each, Subject)
            ),
            history=(_happened(fields),),
        )

    async def _entry(self, word: str) -> Sealed | None:
        mark, number = word[:1], word[1:]
        try:
            if mark == "#" and number.isascii() and number.isdigit() and len(number) <= _NUMBER:
                return await self._ledger.get(int(number))
            return await self._ledger.named(canonical_id(word)) if is_id(word) else None
        except NotFound:
            return None


def _fields(entry: Sealed) -> Mapping[str, Any]:
    found: Mapping[str, Any] = orjson.loads(entry.canonical)
    return found


def _happened(fields: Mapping[str, Any]) -> Happened:
    told = f"{fields['action']}, {fields['outcome']}" + (f": {fields['detail']}" if fields["detail"] else "")
    return Happened(
        at=datetime.fromisoformat(fields["timestamp"]), what=told, by=fields.get("token_name") or fields["agent_name"]
    )


def _agent(agent: GovernedAgent) -> Subject:
    return Subject(kind="agent", id=agent.id, name=agent.name)


def _approval(approval: Approval) -> Subject:
    return Subject(kind="approval", id=approval.id, name=approval.tool)


def _entry(fields: Mapping[str, Any]) -> Subject:
    return Subject(kind="decision", id=fields["id"], name=f"#{fields['seq']}")

"""What there is to show of a governed agent."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import orjson

from borough.core.clock import rfc3339
from borough.core.errors import NotFound
from borough.core.ids import AgentId
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.approvals import Approval
from borough.governance.ports.ledger import EntryFilter, Ledger
from borough.governance.ports.register import Agents
from borough.governance.ports.tools import Approvals
from borough.overview.evidence import Gathered
from borough.overview.occurrences import Subject

MOST_APPROVALS: Final = 1_000


class AgentEvidence:
    """Manifest, identity, cost, result and approvals of one agent."""

    kind: Final = "agent"

    def __init__(self, agents: Agents, approvals: Approvals, ledger: Ledger) -> None:
        self._agents = agents
        self._approvals = approvals
        self._ledger = ledger

    async def gather(self, subject: Subject) -> Gathered:
        """Return it."""
        agent = await self._agents.get(AgentId(subject.id))
        files = {
            "manifest.yaml": (await self._agents.manifest_text(agent.id)).encode(),
            "agent.json": as_json(_agent(agent)),
            "approvals.json": as_json([_approval(each) for each in await self._asked(agent.id)]),
        }
        if agent.result is not None:
            files["result.json"] = agent.result.encode()
        return Gathered(files=files, agents=frozenset({agent.id}))

    async def _asked(self, agent_id: AgentId) -> Sequence[Approval]:
        """Return the requests for agreement that the ledger knows of and that are still kept."""
        wanted = EntryFilter(agents=frozenset({agent_id}), actions=frozenset({Action.APPROVAL_REQUESTED.value}))
        found: list[Approval] = []
        for entry in await self._ledger.newest(wanted, limit=MOST_APPROVALS):
            try:
                found.append(await self._approvals.get(str(orjson.loads(entry.canonical).get("policy_id"))))
            except NotFound:
                continue  # it was kept long enough; the entries tell how it ended
        return found


def as_json(value: object) -> bytes:
    """Return a value as a file that people read too."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _agent(agent: GovernedAgent) -> dict[str, Any]:
    return {
        "id": agent.id,
        "run_id": agent.run_id,
        "name": agent.name,
        "version": agent.version,
        "manifest_sha256": agent.manifest_digest,
        "trust_level": agent.trust_level.value,
        "status": agent.status.value,
        "spawned_at": rfc3339(agent.spawned_at),
        "ended_at": None if agent.ended_at is None else rfc3339(agent.ended_at),
        "exit_code": agent.exit_code,
        "last_error": agent.last_error,
        "parent_id": agent.parent_id,
        "budget": asdict(agent.budget),
        "spent": asdict(agent.spent),
    }


def _approval(approval: Approval) -> dict[str, Any]:
    return {
        "id": approval.id,
        "tool": approval.tool,
        "arguments": approval.shown,
        "rule": approval.rule,
        "submitted_at": rfc3339(approval.submitted_at),
        "state": approval.state.value,
        "approved_by": list(approval.approved_by),
        "decided_by": approval.decided_by,
        "decided_at": None if approval.decided_at is None else rfc3339(approval.decided_at),
    }

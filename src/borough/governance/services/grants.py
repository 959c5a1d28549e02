"""Grants: capabilities given to agents for a time, by people or by those above them."""

from datetime import datetime, timedelta

from borough.core.clock import utc_now
from borough.core.errors import BoroughError, Forbidden, Invalid, NotFound
from borough.core.ids import AgentId
from borough.governance.access import Verb
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.canonical import Json
from borough.governance.capabilities import parse_capability
from borough.governance.grants import Grant, check_grant, is_active, revoke
from borough.governance.ledger import Outcome
from borough.governance.lifecycle import Phase
from borough.governance.ports.register import Agents, Grants
from borough.governance.services.asking import Asker, daemon
from borough.governance.services.gate import Gate
from borough.governance.services.recording import Recorder

LONGEST_GRANT_S = 10 * 365 * 86_400


class GrantService:
    """Gives capabilities and takes them back."""

    def __init__(self, *, grants: Grants, agents: Agents, gate: Gate, recorder: Recorder) -> None:
        self._grants = grants
        self._agents = agents
        self._gate = gate
        self._recorder = recorder

    async def issue(
        self,
        asker: Asker,
        agent_id: AgentId,
        capability: str,
        *,
        ttl_s: int | None = None,
        expires_at: datetime | None = None,
    ) -> Grant:
        """Give a capability. An agent gives no more than it holds by its manifest, and to what descends from it only.

        Raises:
            Invalid: it is no capability (``invalid_capability``), or over at once (``invalid_expiry``).
            Forbidden: the caller may not (``not_related``, ``denied``), it is above the agent's trust
                (``over_ceiling``), or more than the caller holds (``capability_escalation_denied``).
        """
        agent = await self._gate.agent(agent_id)
        await self._admit(asker, agent)
        now = utc_now()
        grant = Grant(
            id=asker.derived("grant", agent_id, capability),
            agent_id=agent_id,
            capability=parse_capability(capability),
            granted_by=giver(asker),
            granted_at=now,
            expires_at=_expiry(now, ttl_s, expires_at),
        )
        try:
            if agent.phase is Phase.TERMINATE:
                raise Forbidden("the agent has ended", code="agent_ended", resolution="start it again first")
            held = None
            if self._gate.is_narrow(asker):
                held = (await self._agents.manifest(asker.caller.agent_id)).held()
            check_grant(grant, trust=agent.trust_level, grantor_holds=held)
        except BoroughError as refusal:
            await self._refused(asker, agent, grant, refusal)
            raise
        async with self._recorder.act(
            asker, Action.CAPABILITY_GRANT, detail=str(grant.capability), target=agent, data=_told(grant)
        ):
            await self._grants.add(grant)
        return grant

    async def of(self, asker: Asker, agent_id: AgentId) -> tuple[Grant, ...]:
        """Return an agent's grants that hold."""
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.INSPECT, agent)
        now = utc_now()
        return tuple(grant for grant in await self._grants.of(agent_id) if is_active(grant, at=now))

    async def revoke(self, asker: Asker, agent_id: AgentId, grant_id: str) -> Grant:
        """Take a capability back; it holds no more when this returns. Raises ``NotFound`` (``grant_not_found``)."""
        agent = await self._gate.agent(agent_id)
        await self._admit(asker, agent)
        grant = next((one for one in await self._grants.of(agent_id) if one.id == grant_id), None)
        if grant is None:
            raise NotFound(
                f"{agent.name} has no grant {grant_id}",
                code="grant_not_found",
                resolution=f"list them: ash grants list {agent_id}",
            )
        return await self._take_back(asker, agent, grant, by=giver(asker))

    async def sweep(self, *, at: datetime | None = None) -> int:
        """Take back what has expired, and return how many that were; they do not hold meanwhile anyhow."""
        now = at or utc_now()
        taken = 0
        for agent in await self._agents.all(ended=False):
            for grant in await self._grants.of(agent.id):
                if not is_active(grant, at=now):
                    await self._take_back(daemon(f"expiry {grant.id}"), agent, grant, by="expiry")
                    taken += 1
        return taken

    async def on_end(self, agent_id: AgentId) -> None:
        """Take back everything that an agent was given that has ended."""
        agent = await self._agents.get(agent_id)
        for grant in await self._grants.of(agent_id):
            await self._take_back(daemon(f"end {grant.id}"), agent, grant, by="the agent's end")

    async def _take_back(self, asker: Asker, agent: GovernedAgent, grant: Grant, *, by: str) -> Grant:
        taken = revoke(grant, by=by, at=utc_now())
        async with self._recorder.act(
            asker,
            Action.CAPABILITY_REVOKE,
            detail=str(grant.capability),
            target=agent,
            data={**_told(grant), "revoked_by": by},
        ):
            await self._grants.replace(taken)
        return taken

    async def _admit(self, asker: Asker, agent: GovernedAgent) -> None:
        await self._gate.admit(asker, Verb.GRANT, agent)
        if self._gate.is_narrow(asker) and asker.caller.agent_id == agent.id:
            refusal = Forbidden(
                "permission denied",
                code="not_related",
                reason="an agent gives nothing to itself",
                resolution="ask for it: POST /agents/{id}/capability-requests",
            )
            await self._recorder.denied(asker, "grant to itself", refusal, target=agent)
            raise refusal

    async def _refused(self, asker: Asker, agent: GovernedAgent, grant: Grant, refusal: BoroughError) -> None:
        await self._recorder.event(
            asker,
            Action.CAPABILITY_GRANT,
            outcome=Outcome.DENIED,
            detail=str(grant.capability),
            target=agent,
            data={**_told(grant), "code": refusal.code, "reason": refusal.reason or refusal.message},
        )


def giver(asker: Asker) -> str:
    """Return what a grant says of who gave it: a person's key, or an agent's id."""
    caller = asker.caller
    return caller.token_name if caller.is_unbound else f"{caller.token_name} ({caller.agent_id})"


def _expiry(now: datetime, ttl_s: int | None, expires_at: datetime | None) -> datetime | None:
    if ttl_s is not None and expires_at is not None:
        raise Invalid(
            "the grant has two ends", code="invalid_expiry", resolution="give either a time to live or a moment"
        )
    if ttl_s is None:
        return expires_at
    if not 1 <= ttl_s <= LONGEST_GRANT_S:
        raise Invalid(
            f"{ttl_s} s is no time for a grant", code="invalid_expiry", resolution=f"give 1 to {LONGEST_GRANT_S} s"
        )
    return now + timedelta(seconds=ttl_s)


def _told(grant: Grant) -> dict[str, Json]:
    return {
        "grant_id": grant.id,
        "capability": str(grant.capability),
        "granted_by": grant.granted_by,
        "expires_at": None if grant.expires_at is None else grant.expires_at.isoformat(),
    }

"""What is known of agents when something is decided: their rules with grants, how often they called, what they used."""

from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta

from borough.core.clock import utc_now
from borough.core.errors import NotFound
from borough.core.ids import AgentId
from borough.governance.access import Standing, Target
from borough.governance.agents import GovernedAgent, inherited_rules
from borough.governance.conditions import RATE_WINDOW_S, Facts
from borough.governance.grants import Grant, rules_with
from borough.governance.lifecycle import Phase
from borough.governance.ports.register import Agents, Grants
from borough.governance.rules import RuleBook
from borough.governance.tokens import Caller
from borough.governance.trust import TrustLevel

NO_RULES = RuleBook(())


class Rates:
    """How many calls each rule of each agent let pass within the last minute."""

    def __init__(self) -> None:
        self._times: dict[AgentId, dict[str, deque[datetime]]] = {}

    def at(self, agent_id: AgentId, now: datetime) -> dict[str, int]:
        """Return the counts by rule."""
        oldest = now - timedelta(seconds=RATE_WINDOW_S)
        by_rule = self._times.get(agent_id, {})
        for times in by_rule.values():
            while times and times[0] <= oldest:
                times.popleft()
        return {rule: len(times) for rule, times in by_rule.items()}

    def note(self, agent_id: AgentId, rules: Iterable[str], at: datetime) -> None:
        """Count one more call for each of ``rules``."""
        by_rule = self._times.setdefault(agent_id, {})
        for rule in set(rules):
            by_rule.setdefault(rule, deque()).append(at)

    def forget(self, agent_id: AgentId) -> None:
        """Drop what is known of an agent that has ended."""
        self._times.pop(agent_id, None)


class Standings:
    """Agents as those decide on them who judge. Rule books are made once for each manifest with its grants."""

    def __init__(self, agents: Agents, grants: Grants, rates: Rates) -> None:
        self._agents = agents
        self._grants = grants
        self._rates = rates
        self._books: dict[AgentId, tuple[str, tuple[Grant, ...], RuleBook]] = {}

    async def rules_of(self, agent: GovernedAgent) -> RuleBook:
        """Return the rules that hold for an agent now: its ancestors' prohibitions, its manifest's, its grants."""
        grants = await self._grants.of(agent.id)
        known = self._books.get(agent.id)
        if known is not None and known[0] == agent.manifest_digest and known[1] == grants:
            return known[2]
        manifest = await self._agents.manifest(agent.id)
        above = [await self._agents.manifest(ancestor) for ancestor in await self._agents.ancestors(agent.id)]
        inherited = [rule for each in reversed(above) for rule in inherited_rules(each.rules())]
        book = RuleBook(rules_with((*inherited, *manifest.rules()), grants, trust=agent.trust_level))
        self._books[agent.id] = (agent.manifest_digest, grants, book)
        return book

    async def of(self, caller: Caller) -> Standing:
        """Return what a caller is as an agent; one that does not run holds nothing."""
        if caller.is_unbound:
            return Standing(rules=NO_RULES, live=False, trust=TrustLevel.PRIVILEGED, name="operator")
        try:
            agent = await self._agents.get(caller.agent_id)
        except NotFound:
            return Standing(rules=NO_RULES, live=False, trust=TrustLevel.UNTRUSTED)
        if agent.phase is Phase.TERMINATE:
            return Standing(rules=NO_RULES, live=False, trust=agent.trust_level, name=agent.name)
        return Standing(rules=await self.rules_of(agent), live=True, trust=agent.trust_level, name=agent.name)

    async def target(self, agent: GovernedAgent) -> Target:
        """Return an agent as one to whom something is done."""
        return Target(id=agent.id, name=agent.name, ancestors=frozenset(await self._agents.ancestors(agent.id)))

    async def facts(self, agent_id: AgentId) -> Facts:
        """Return what conditions of an agent's rules may look at, but for the arguments of a call."""
        now = utc_now()
        try:
            spent = (await self._agents.get(agent_id)).spent
        except NotFound:
            return Facts(at=now)
        return Facts(at=now, calls_last_minute=self._rates.at(agent_id, now), spent=spent)

    def forget(self, agent_id: AgentId) -> None:
        """Drop what is kept of an agent that has ended."""
        self._books.pop(agent_id, None)
        self._rates.forget(agent_id)

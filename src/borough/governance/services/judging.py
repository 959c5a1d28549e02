"""Judging calls with what is known now: rules with grants, rates, budgets, taint, and whoever acts for another."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from borough.core.ids import AgentId
from borough.governance.access import Standing, stricter
from borough.governance.agents import GovernedAgent
from borough.governance.conditions import Facts
from borough.governance.decisions import Allowed, Decision, NeedsApproval
from borough.governance.manifests import Manifest
from borough.governance.policy import Law, judge
from borough.governance.ports.register import Agents
from borough.governance.services.asking import Asker
from borough.governance.services.registry import Registered, Registry
from borough.governance.services.spending import Spending
from borough.governance.services.standing import Rates, Standings
from borough.governance.services.trials import Trials
from borough.governance.tool_needs import canonical_arguments, invocation


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A call, and what was decided about it."""

    agent: GovernedAgent
    manifest: Manifest
    name: str
    arguments: Mapping[str, object]
    """In their canonical form, with handles where secrets go."""
    found: Registered | None
    """``None``: there is no such tool for this agent."""
    decision: Decision
    caller_name: str
    facts: Facts
    trial: Decision | None = None
    """What a law on trial for the agent would have decided."""

    @property
    def registered(self) -> Registered:
        """Return the tool of a call that was not denied; a call of what is no tool always is."""
        if self.found is None:
            raise LookupError(self.name)
        return self.found


class Judging:
    """Decides about calls. Between a decision and its being counted nothing else is decided: neither waits."""

    def __init__(
        self,
        *,
        agents: Agents,
        standings: Standings,
        registry: Registry,
        rates: Rates,
        spending: Spending,
        trials: Trials,
    ) -> None:
        self._agents = agents
        self._standings = standings
        self._toolbox = registry
        self._rates = rates
        self._spending = spending
        self._trials = trials

    async def judge(
        self, asker: Asker, standing: Standing, agent: GovernedAgent, name: str, arguments: Mapping[str, object]
    ) -> Judged:
        """Return the decision about a call, made with what holds at this moment."""
        found = await self._toolbox.find(agent.id, name)
        manifest = await self._agents.manifest(agent.id)
        own = standing.live and asker.caller.agent_id == agent.id
        rules = standing.rules if own else await self._standings.rules_of(agent)
        for_another = None if own or asker.caller.is_unbound else await self._standings.facts(asker.caller.agent_id)
        known = await self._standings.facts(agent.id)
        # From here to the return nothing waits, so that calls at the same time cannot all use the last of a limit.
        spent = self._spending.with_reserved(agent.id, known.spent)
        facts = known if spent is known.spent else replace(known, spent=spent)
        law = Law(
            rules=rules, network=manifest.network, budget=agent.budget, tools={} if found is None else found.alone
        )
        arguments = canonical_arguments(name, arguments)
        decision = judge(law, name, arguments, facts, tainted=agent.tainted)
        if for_another is not None and found is not None:
            asked = standing.rules.decide([invocation(name)], replace(for_another, arguments=arguments))
            decision = self._counted(asker.caller.agent_id, asked, for_another, decision)
        trial = self._trials.decide(agent, law, name, arguments, facts)
        if isinstance(decision, Allowed):
            self._rates.note(agent.id, decision.rules, facts.at)
        return Judged(
            agent=agent,
            manifest=manifest,
            name=name,
            arguments=arguments,
            found=found,
            decision=decision,
            caller_name=standing.name,
            facts=facts,
            trial=trial,
        )

    def _counted(self, caller: AgentId, asked: Decision, facts: Facts, decided: Decision) -> Decision:
        """Return the stricter of two decisions, counting against the caller's own rates what passes."""
        both = stricter(asked, decided)
        if isinstance(both, Allowed) and isinstance(asked, Allowed):
            self._rates.note(caller, asked.rules, facts.at)
        return both

    def agreed(self, judged: Judged) -> None:
        """Count a call that a human agreed to against the rule that asked."""
        if isinstance(judged.decision, NeedsApproval):
            self._rates.note(judged.agent.id, [judged.decision.rule], judged.facts.at)

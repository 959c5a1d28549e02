"""Who stands above whom, and finding agents by what they can do."""

from collections.abc import Iterable
from dataclasses import dataclass

from borough.core.errors import Forbidden
from borough.core.ids import AgentId
from borough.governance.access import Verb
from borough.governance.agents import GovernedAgent
from borough.governance.capabilities import Act
from borough.governance.conditions import Facts
from borough.governance.decisions import Denied
from borough.governance.globs import compile_glob
from borough.governance.lifecycle import Phase
from borough.governance.ports.register import Agents
from borough.governance.rules import Effect, Requirement, Rule, RuleBook
from borough.governance.services.asking import Asker
from borough.governance.services.gate import Gate
from borough.governance.services.recording import Recorder
from borough.governance.services.standing import Standings

_ANYTHING = ""
"""No separator: in a search, ``*`` stands for anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """An agent with those right below it."""

    agent: GovernedAgent
    children: tuple["Branch", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An agent with those of its capabilities that were looked for."""

    agent: GovernedAgent
    capabilities: tuple[str, ...]


class HierarchyService:
    """Looks at agents together."""

    def __init__(self, *, gate: Gate, agents: Agents, standings: Standings, recorder: Recorder) -> None:
        self._gate = gate
        self._agents = agents
        self._standings = standings
        self._recorder = recorder

    async def tree(self, asker: Asker) -> tuple[Branch, ...]:
        """Return the agents that run and that the caller may see, each under its parent if that is shown too.

        Raises:
            Forbidden: the caller may see none (``scope_missing``, ``denied``).
        """
        return _tree(await self._gate.visible(asker, Verb.LIST, await self._running()))

    async def discover(self, asker: Asker, agent_id: AgentId, pattern: str) -> tuple[Found, ...]:
        """Return the agents that run, that ``agent_id`` may discover, and that hold a capability like ``pattern``.

        Raises:
            NotFound: there is no such agent (``agent_not_found``).
            Forbidden: the caller may not ask for it, or the agent holds no ``agent.discover`` (``denied``).
        """
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.INSPECT, agent)
        book, facts = await self._standings.rules_of(agent), await self._standings.facts(agent_id)
        if not any(_is_discovery(rule) for rule in book.rules):
            await self._refuse(asker, agent)
        wanted = compile_glob(pattern, _ANYTHING)
        found = [
            Found(agent=one, capabilities=tuple(text for text in await self._held(one) if wanted.matches(text)))
            for one in await self._running()
            if one.id == agent_id or _may_discover(book, one.name, facts)
        ]
        return tuple(one for one in found if one.capabilities)

    async def _held(self, agent: GovernedAgent) -> tuple[str, ...]:
        return tuple(str(capability) for capability in (await self._agents.manifest(agent.id)).held())

    async def _running(self) -> tuple[GovernedAgent, ...]:
        return tuple(agent for agent in await self._agents.all(ended=False) if agent.phase is not Phase.TERMINATE)

    async def _refuse(self, asker: Asker, agent: GovernedAgent) -> None:
        refusal = Forbidden(
            "permission denied",
            code="denied",
            reason="the agent holds no capability agent.discover",
            resolution="have the capability granted",
        )
        await self._recorder.denied(asker, "discover", refusal, target=agent)
        raise refusal


def _is_discovery(rule: Rule) -> bool:
    """Tell whether a rule lets some agent be discovered, whoever runs now."""
    return rule.effect is not Effect.DENY and rule.capability.touches(Act(domain="agent", action="discover"))


def _may_discover(book: RuleBook, name: str, facts: Facts) -> bool:
    act = Act(domain="agent", action="discover", subject=name)
    return not isinstance(book.decide([Requirement(any_of=(act,))], facts), Denied)


def _tree(agents: Iterable[GovernedAgent]) -> tuple[Branch, ...]:
    shown = {agent.id: agent for agent in agents}
    below: dict[AgentId | None, list[GovernedAgent]] = {}
    for agent in shown.values():
        below.setdefault(agent.parent_id if agent.parent_id in shown else None, []).append(agent)

    def branches(parent: AgentId | None) -> tuple[Branch, ...]:
        return tuple(Branch(agent=agent, children=branches(agent.id)) for agent in below.get(parent, ()))

    return branches(None)

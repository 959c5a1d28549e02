"""Asking "what if": one call under some manifest, past calls under a changed one, and a manifest on trial."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import orjson

from borough.core.clock import utc_now
from borough.core.errors import Invalid
from borough.core.ids import AgentId
from borough.core.paging import PageRequest
from borough.governance.access import Verb
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.budgets import NOTHING_SPENT, Spent
from borough.governance.builtin_tools import BUILTIN_TOOLS
from borough.governance.conditions import Facts
from borough.governance.decisions import Decision
from borough.governance.manifest_reading import parse_manifest
from borough.governance.manifests import Manifest
from borough.governance.policy import Law, PastCall, Simulation, law_of, simulate, try_out
from borough.governance.ports.ledger import EntryFilter, Ledger
from borough.governance.ports.register import Agents
from borough.governance.services.asking import Asker
from borough.governance.services.gate import Gate
from borough.governance.services.grants import giver
from borough.governance.services.recording import Recorder
from borough.governance.services.registry import Registry
from borough.governance.services.trials import Trial, Trials
from borough.governance.tools import MCP_PREFIX, Source, Tool

MOST_SIMULATED = 10_000
_AT_ONCE = 500
_ACTIONS = frozenset({Action.TOOL_INVOKE.value, Action.ACCESS_DENIED.value, Action.APPROVAL_REQUESTED.value})


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What a changed manifest would have meant, and of which calls."""

    simulation: Simulation
    calls: int
    cut: bool
    """Whether there were more calls than are looked at."""


class PolicyService:
    """Tries laws out. Only putting a manifest on trial is an act; the rest is reading."""

    def __init__(
        self, *, ledger: Ledger, agents: Agents, registry: Registry, trials: Trials, gate: Gate, recorder: Recorder
    ) -> None:
        self._ledger = ledger
        self._agents = agents
        self._toolbox = registry
        self._trials = trials
        self._gate = gate
        self._recorder = recorder

    async def test(
        self, asker: Asker, manifest_yaml: str, tool: str, arguments: Mapping[str, object], *, tainted: bool = False
    ) -> Decision:
        """Return what would be decided for a fresh agent of a manifest; raises ``Invalid`` (``invalid_manifest``)."""
        await self._gate.admit(asker, Verb.TRY_POLICY)
        known = {**BUILTIN_TOOLS, **{each.name: each for each in await self._toolbox.tools(asker.caller.agent_id)}}
        return try_out(parse_manifest(manifest_yaml), tool, arguments, at=utc_now(), tools=known, tainted=tainted)

    async def simulate(
        self,
        asker: Asker,
        manifest_yaml: str,
        *,
        agent: str,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Simulated:
        """Decide the past calls of an agent (its id, or a name: all agents of it) under a changed manifest.

        Raises:
            Invalid: the manifest is none (``invalid_manifest``), or no agent is meant (``unknown_agent``).
        """
        manifest = parse_manifest(manifest_yaml)
        meant = await self._meant(agent)
        if not meant:
            raise Invalid(
                f"there is no agent {agent[:80]!r}", code="unknown_agent", resolution="give an id or a name: ash list"
            )
        for each in meant:
            await self._gate.admit(asker, Verb.READ_AUDIT, each)
        calls, cut = await self._past_calls(frozenset(each.id for each in meant), since, until)
        law = await self._law(manifest, meant, calls)
        return Simulated(simulation=simulate(calls, law), calls=len(calls), cut=cut)

    async def _meant(self, agent: str) -> list[GovernedAgent]:
        return [each for each in await self._agents.all(ended=True) if agent in (each.id, each.name)]

    async def _past_calls(
        self, agents: frozenset[AgentId], since: datetime | None, until: datetime | None
    ) -> tuple[list[PastCall], bool]:
        wanted = EntryFilter(agents=agents, actions=_ACTIONS, since=since, until=until)
        calls: list[PastCall] = []
        after = ""
        while True:
            page = await self._ledger.find(wanted, PageRequest(limit=_AT_ONCE, after=after))
            for entry in page.items:
                call = _past_call(orjson.loads(entry.canonical), agents)
                if call is not None:
                    calls.append(call)
                    if len(calls) >= MOST_SIMULATED:
                        return calls, True
            if page.after is None:
                return calls, False
            after = page.after

    async def _law(self, manifest: Manifest, meant: Iterable[GovernedAgent], calls: Iterable[PastCall]) -> Law:
        known = dict(BUILTIN_TOOLS)
        for each in meant:
            known |= {tool.name: tool for tool in await self._toolbox.tools(each.id)}
        for call in calls:
            # A server that is not attached any more was, then.
            if call.tool.startswith(MCP_PREFIX) and call.tool not in known:
                known[call.tool] = Tool(name=call.tool, description="not attached", source=Source.MCP)
        return law_of(manifest, known)

    # -- trials --------------------------------------------------------------------------------------------------------

    async def put_on_trial(self, asker: Asker, agent_id: AgentId, manifest_yaml: str) -> Trial:
        """Put a manifest on trial for a running agent: each call is decided under it too, without effect.

        Raises:
            Invalid: the manifest is none (``invalid_manifest``).
        """
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.TRY_POLICY, agent)
        manifest = parse_manifest(manifest_yaml)
        async with self._recorder.act(
            asker,
            Action.POLICY_SHADOW,
            detail=f"{manifest.name}@{manifest.version} on trial",
            target=agent,
            data={"trial": "begin"},
        ):
            return self._trials.put(agent_id, manifest, by=giver(asker), at=utc_now())

    async def trial(self, asker: Asker, agent_id: AgentId) -> Trial:
        """Return how a trial fares; raises ``NotFound`` (``trial_not_found``)."""
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.TRY_POLICY, agent)
        return self._trials.get(agent_id)

    async def trials(self, asker: Asker) -> tuple[Trial, ...]:
        """Return every trial of agents that the caller may see."""
        await self._gate.admit(asker, Verb.TRY_POLICY)
        mine = asker.caller.agent_id
        narrow = self._gate.is_narrow(asker)
        return tuple(trial for trial in self._trials.all() if not narrow or trial.agent_id == mine)

    async def end_trial(self, asker: Asker, agent_id: AgentId) -> Trial:
        """End a trial and return how it fared; raises ``NotFound`` (``trial_not_found``)."""
        agent = await self._gate.agent(agent_id)
        await self._gate.admit(asker, Verb.TRY_POLICY, agent)
        trial = self._trials.get(agent_id)
        async with self._recorder.act(
            asker,
            Action.POLICY_SHADOW,
            detail="trial ended",
            target=agent,
            data={"trial": "end", "calls": trial.calls, "differing": trial.differing},
        ):
            self._trials.end(agent_id)
        return trial


def _past_call(entry: Mapping[str, object], agents: frozenset[AgentId]) -> PastCall | None:
    """Return the call that an entry tells of; ``None`` for entries of other things, and for outcomes.

    An intent and a refusal hold what was decided upon. A call that was asked about is found by its request; the
    intent that follows an agreement tells of the same call again.
    """
    data = entry.get("data")
    if not isinstance(data, Mapping) or entry.get("kind") == "outcome" or "verdict" not in data:
        return None
    if entry.get("kind") == "intent" and data["verdict"] == "approval":
        return None
    # What an agent did for another was decided under the other's law.
    if AgentId(str(entry.get("on_behalf_of") or entry["agent_id"])) not in agents:
        return None
    at = datetime.fromisoformat(str(entry["timestamp"]))
    return PastCall(
        id=str(entry["id"]),
        at=at,
        tool=str(data["tool"]),
        arguments=_arguments(data.get("arguments")),
        verdict=str(data["verdict"]),
        tainted=data.get("tainted") is True,
        facts=Facts(at=at, spent=_spent(data.get("spent"))),
    )


def _arguments(text: object) -> Mapping[str, object] | None:
    if not isinstance(text, str):
        return None
    value = orjson.loads(text)
    return value if isinstance(value, dict) else None


def _spent(numbers: object) -> Spent:
    match numbers:
        case [int(calls), int(tokens), int(cost_micros), int(wall_time_s)]:
            return Spent(calls=calls, tokens=tokens, cost_micros=cost_micros, wall_time_s=wall_time_s)
        case _:
            return NOTHING_SPENT

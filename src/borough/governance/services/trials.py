"""Laws on trial: a changed manifest is put beside a running agent's, and what it would decide otherwise is noted."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from borough.core.errors import NotFound
from borough.core.ids import AgentId
from borough.governance.agents import GovernedAgent
from borough.governance.conditions import Facts
from borough.governance.decisions import Decision
from borough.governance.manifests import Manifest
from borough.governance.policy import Law, judge, law_of
from borough.governance.rules import RuleBook

MOST_DIFFERENCES = 1000
"""For each trial; older ones are found in the ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A call that the law on trial would have decided otherwise."""

    at: datetime
    tool: str
    enforced: str
    trial: str
    rule: str
    """Of the law on trial."""


@dataclass(slots=True, kw_only=True)
class Trial:
    """One manifest on trial, and how it fared so far."""

    agent_id: AgentId
    manifest: Manifest
    rules: RuleBook
    since: datetime
    put_by: str
    calls: int = 0
    differing: int = 0
    differences: deque[Difference] = field(default_factory=lambda: deque(maxlen=MOST_DIFFERENCES))


class Trials:
    """Keeps trials as long as the daemon runs; what they found is in the ledger for good."""

    def __init__(self) -> None:
        self._trials: dict[AgentId, Trial] = {}

    def put(self, agent_id: AgentId, manifest: Manifest, *, by: str, at: datetime) -> Trial:
        """Begin a trial for an agent, in place of an earlier one."""
        trial = Trial(agent_id=agent_id, manifest=manifest, rules=law_of(manifest).rules, since=at, put_by=by)
        self._trials[agent_id] = trial
        return trial

    def get(self, agent_id: AgentId) -> Trial:
        """Return an agent's trial; raises ``NotFound`` (``trial_not_found``)."""
        if agent_id not in self._trials:
            raise NotFound(
                f"no manifest is on trial for {agent_id}",
                code="trial_not_found",
                resolution="put one on trial: POST /policy/shadow",
            )
        return self._trials[agent_id]

    def all(self) -> tuple[Trial, ...]:
        """Return every trial."""
        return tuple(self._trials.values())

    def end(self, agent_id: AgentId) -> None:
        """End an agent's trial, if there is one."""
        self._trials.pop(agent_id, None)

    def decide(
        self, agent: GovernedAgent, law: Law, tool: str, arguments: Mapping[str, object], facts: Facts
    ) -> Decision | None:
        """Return what the law on trial would decide; ``None`` when there is none. It has no effect."""
        trial = self._trials.get(agent.id)
        if trial is None:
            return None
        manifest = trial.manifest
        other = Law(rules=trial.rules, network=manifest.network, budget=manifest.budget, tools=law.tools)
        return judge(other, tool, arguments, facts, tainted=agent.tainted)

    def note(self, agent_id: AgentId, difference: Difference | None) -> None:
        """Count a judged call, and keep how it differs if it does."""
        trial = self._trials.get(agent_id)
        if trial is None:
            return
        trial.calls += 1
        if difference is not None:
            trial.differing += 1
            trial.differences.append(difference)

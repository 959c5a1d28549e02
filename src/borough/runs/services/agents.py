"""A run's governed agent and its credential: it lives in the register, its program in the machine."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from borough.core.clock import utc_now
from borough.core.errors import Conflict, NotFound
from borough.core.ids import AgentId, derived_id
from borough.fleet.vms import VmId
from borough.governance.actions import Action
from borough.governance.agents import GovernedAgent
from borough.governance.budgets import Limits
from borough.governance.canonical import Json
from borough.governance.ledger import Outcome
from borough.governance.lifecycle import Exit
from borough.governance.manifest_reading import parse_manifest
from borough.governance.manifests import Manifest
from borough.governance.ports.register import Agents, AgentStore
from borough.governance.ports.tools import Approvals
from borough.governance.services.agents import AgentService, SpawnOrder
from borough.governance.services.asking import Asker, daemon
from borough.governance.services.endings import LIVE, Ending
from borough.governance.services.recording import Act, Recorder
from borough.governance.services.tokens import TokenService
from borough.governance.tokens import Caller, Role, TokenScope
from borough.runs.orders import Budget, RunOrder
from borough.runs.ports import Homes
from borough.runs.runs import Run, Spent

NONE: Mapping[str, Json] = {}
PREFIX = "run."
"""What the names of attempts' keys begin with."""
SCOPES = frozenset(
    {
        TokenScope.AGENTS_READ,
        TokenScope.AGENTS_SELF,
        TokenScope.TOOLS_INVOKE,
        TokenScope.MEMORY_READ,
        TokenScope.MEMORY_WRITE,
        TokenScope.OBSERVATIONS_READ,
        TokenScope.OBSERVATIONS_WRITE,
    }
)
"""What an attempt's key is good for: its agent's tools, and what the agent says of itself. It starts, ends and changes
no other agent, whatever its manifest holds.
"""
BUILT_IN_NAME = "run"
BUILT_IN = """\
apiVersion: scarab/v1
kind: AgentManifest
metadata: {name: run, version: 1.0.0, description: works on the files of its own machine and reaches nothing else}
spec:
  trust_level: sandboxed
  capabilities:
    - tool.invoke:fs.*
    - tool.invoke:agent.info
    - fs.read:/workspace/**
    - fs.list:/workspace/**
    - fs.write:/workspace/**
    - fs.delete:/workspace/**
  network: {policy: none}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """What runs use of governance."""

    agents: AgentService
    register: Agents
    store: AgentStore
    tokens: TokenService
    recorder: Recorder
    approvals: Approvals
    homes: Homes


class LiveKeys:
    """Which attempts' keys hold now. It is in memory: what is taken out here is powerless at once."""

    def __init__(self) -> None:
        self._until: dict[str, datetime] = {}
        self._dropped: set[str] = set()

    def let(self, name: str, *, until: datetime) -> None:
        """Let a key hold as long as its lease; one that was dropped stays so."""
        if name not in self._dropped:
            self._until[name] = until

    def drop(self, name: str) -> None:
        """Let a key hold no more, whoever thinks that its lease goes on."""
        self._dropped.add(name)
        self._until.pop(name, None)

    def __call__(self, caller: Caller) -> bool:
        """Tell whether a key may be used; of those that are no attempt's, all may."""
        if not caller.token_name.startswith(PREFIX):
            return True
        until = self._until.get(caller.token_name)
        return until is not None and utc_now() < until


class RunAgents:
    """The governed agents of runs."""

    def __init__(self, law: Law, keys: LiveKeys) -> None:
        self._law = law
        self.keys = keys

    async def manifest_text(self, order: RunOrder) -> str:
        """Return the manifest that an order means; raises ``NotFound`` (``agent_not_installed``)."""
        if order.manifest is not None:
            return order.manifest
        if order.agent is None or order.agent == BUILT_IN_NAME:
            return BUILT_IN
        try:
            return (await self._law.store.get(order.agent)).manifest_yaml
        except NotFound:
            raise NotFound(
                f"no agent {order.agent[:80]!r} is installed",
                code="agent_not_installed",
                resolution="see what is installed: ash agent list",
            ) from None

    async def spawn(self, run: Run) -> GovernedAgent:
        """Have the run's agent registered; the same one when it is asked for again.

        Raises:
            Forbidden: nobody may have it started; see ``AgentService.spawn``.
            Conflict: it has ended already (``agent_not_running``).
        """
        order = SpawnOrder(
            manifest_yaml=run.manifest,
            task_override=run.order.task,
            budget=limits_of(run.admission.budget),
            elsewhere=True,
        )
        agent = await self._law.agents.spawn(daemon(spawn_key(run.id, run.tries)), order)
        if agent.status not in LIVE:
            raise Conflict(
                f"the agent of {run.name} has ended",
                code="agent_not_running",
                reason=agent.last_error,
                resolution="ask for the run again",
            )
        return agent

    def take_up(self, run: Run, *, until: datetime) -> None:
        """Know a run's agent, and its attempt's key, that an earlier server began."""
        self._law.agents.lives_elsewhere(run.agent.id)
        if run.attempt is not None and run.attempt.ended_at is None:
            self.keys.let(run.attempt.token_name, until=until)

    async def settle(self, run: Run, vm_id: VmId) -> None:
        """Let the agent's tools work in its machine."""
        await self._law.homes.bind(run.agent.id, vm_id)

    async def is_live(self, run: Run) -> bool:
        """Tell whether the run's agent has not ended."""
        try:
            return (await self._law.register.get(run.agent.id)).status in LIVE
        except NotFound:
            return False

    async def conclude(self, run: Run, *, detail: str, exit_code: int | None, asked_for: bool) -> None:
        """End the run's agent; one that has ended, or never was, is left at that."""
        await self._law.homes.unbind(run.agent.id)
        ending = Ending(detail=detail, asked_for=asked_for, exit=Exit(code=exit_code), is_final=True)
        try:
            await self._law.agents.conclude(daemon(f"run:{run.id}:{run.tries}:end"), run.agent.id, ending)
        except NotFound:
            return

    async def spent(self, run: Run, *, wall_s: int) -> Spent:
        """Return what the run used so far."""
        try:
            spent = (await self._law.register.get(run.agent.id)).spent
        except NotFound:
            return Spent(wall_s=wall_s)
        return Spent(tokens=spent.tokens, cost_micros=spent.cost_micros, tool_calls=spent.calls, wall_s=wall_s)

    async def asking(self) -> frozenset[AgentId]:
        """Return the agents that wait for somebody's agreement."""
        now = utc_now()
        return frozenset(one.agent_id for one in await self._law.approvals.waiting() if one.expires_at > now)

    # -- the ledger ----------------------------------------------------------------------------------------------------

    async def record(
        self,
        run: Run,
        action: Action,
        detail: str,
        *,
        outcome: Outcome = Outcome.SUCCESS,
        data: Mapping[str, Json] = NONE,
    ) -> None:
        """Record what became of a run; raises ``Unavailable`` (``ledger_unavailable``)."""
        await self._law.recorder.event(
            daemon(f"run:{run.id}:{action.value}"), action, outcome=outcome, detail=detail,
            target=await self._known(run), data=told_of(run) | dict(data),
        )  # fmt: skip

    @asynccontextmanager
    async def act(self, run: Run, action: Action, detail: str, *, by: str) -> AsyncIterator[Act]:
        """Record the intent, let the body act, record how it went; raises as ``Recorder.act``."""
        target = await self._known(run)
        asker = daemon(f"run:{run.id}:{action.value}:{run.revision}")
        async with self._law.recorder.act(
            asker, action, detail=detail, target=target, data=told_of(run) | {"by": by}
        ) as act:
            yield act

    async def _known(self, run: Run) -> GovernedAgent | None:
        try:
            return await self._law.register.get(run.agent.id)
        except NotFound:
            return None

    # -- keys ----------------------------------------------------------------------------------------------------------

    async def new_key(self, run: Run, name: str, *, until: datetime) -> str:
        """Return a new key of this name, for the run's agent; one of that name that was never handed out is revoked.

        Raises:
            Conflict: there was one of that name (``token_exists``).
        """
        made = await self._law.tokens.create(
            self._keeper(run, name), name=name, agent_id=run.agent.id, role=Role.AGENT, scopes=SCOPES, expires_at=until
        )
        self.keys.let(name, until=until)
        return made.token

    async def revoke(self, run: Run, name: str) -> None:
        """Let a key hold no more, at once and for good; one that is not there is no error."""
        self.keys.drop(name)
        if not name:
            return
        try:
            await self._law.tokens.revoke(self._keeper(run, f"{name}:revoke"), name)
        except NotFound:
            return

    def _keeper(self, run: Run, what: str) -> Asker:
        return daemon(f"run:{run.id}:{what}")


def told_of(run: Run) -> dict[str, Json]:
    """Return what every entry about a run says of it."""
    told: dict[str, Json] = {"run": run.id, "task": run.task_id, "state": run.state.value}
    if run.attempt is not None:
        machine = run.attempt.machine
        told |= {"attempt": run.attempt.number, "epoch": run.attempt.epoch, "key": run.attempt.token_name}
        told |= {"env": machine.env_id, "vm": machine.vm_id, "host": machine.host_id, "engine": machine.engine.value}
    return told


def agent_id_of(run_id: str, tries: int) -> AgentId:
    """Return the id that a run's agent will have."""
    return AgentId(derived_id(spawn_key(run_id, tries), "agent"))


def spawn_key(run_id: str, tries: int) -> str:
    """Return from what the ids of a run's agent derive."""
    return f"run:{run_id}:{tries}"


def key_name(run: Run, number: int, epoch: int, nonce: str) -> str:
    """Return the name of an attempt's key: of this run, this attempt, this lease, this start."""
    return f"{PREFIX}{run.id[:13]}.{number}.{epoch}.{nonce}"


def limits_of(budget: Budget) -> Limits:
    """Return a run's budget as governance counts it."""
    return Limits(calls=budget.tool_calls, tokens=budget.tokens, cost_micros=budget.cost_micros)


def read_manifest(text: str) -> Manifest:
    """Return the manifest of a text; raises ``Invalid`` (``invalid_manifest``)."""
    return parse_manifest(text)

"""The register of agents. Agents, and the manifests of those that run, are kept in memory too."""

import asyncio
from datetime import datetime
from typing import Self

import apsw

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance.following import Following
from borough.adapters.sql.governance.grants import SqlGrants
from borough.adapters.sql.governance.rows import Row, moment, ms, places, row, rows
from borough.core.clock import from_ms, to_ms
from borough.core.errors import BoroughError, Conflict, NotFound
from borough.core.ids import AgentId
from borough.governance.agents import GovernedAgent
from borough.governance.budgets import NOTHING_SPENT, Limits, Spent, charge
from borough.governance.lifecycle import STATUS_MOVES, Exit, Phase, Status
from borough.governance.manifest_reading import parse_manifest
from borough.governance.manifests import Manifest
from borough.governance.trust import TrustLevel

_COLUMNS = (
    "id, run_id, name, version, manifest_digest, trust_level, phase, status, spawned_at_ms, run_started_at_ms, "
    "parent_id, depth, restarts, task, model, tainted, "
    "calls_limit, tokens_limit, cost_micros_limit, wall_time_s_limit, calls, tokens, cost_micros, wall_time_s, "
    "ended_at_ms, exit_code, last_error, result"
)
_NAMES = _COLUMNS.split(", ")
_ADD = f"INSERT INTO agents (phase_since_ms, {_COLUMNS}) VALUES (?, {places(_COLUMNS)}) RETURNING {_COLUMNS}"
_EVERY = f"SELECT {_COLUMNS} FROM agents"
_BEGIN_RUN = f"""
  UPDATE agents SET run_id = ?, run_started_at_ms = ?, phase_since_ms = ?, phase = ?, status = ?,
    restarts = restarts + 1, tainted = 0, ended_at_ms = NULL, exit_code = NULL, last_error = NULL, result = NULL
  WHERE id = ? AND ended_at_ms IS NOT NULL RETURNING {_COLUMNS}
"""
_KEPT_ANCESTORS = """
  WITH RECURSIVE needed (id) AS (
    SELECT parent_id FROM agents WHERE parent_id IS NOT NULL AND (ended_at_ms IS NULL OR ended_at_ms >= ?1)
    UNION
    SELECT agents.parent_id FROM agents JOIN needed USING (id) WHERE agents.parent_id IS NOT NULL
  )
"""
_FORGET = f"{_KEPT_ANCESTORS} DELETE FROM agents WHERE ended_at_ms < ?1 AND id NOT IN needed RETURNING id"

_Change = tuple[AgentId, GovernedAgent | None, Manifest | None]
"""An agent and how it is by now (``None``: it is gone), with its manifest when it is new."""


class SqlAgents:
    """The port ``Agents``."""

    def __init__(self, database: Database, grants: SqlGrants) -> None:
        self._database = database
        self._grants = grants
        self._agents: dict[AgentId, GovernedAgent] = {}
        self._manifests: dict[AgentId, Manifest] = {}
        self._changes: Following[_Change] = Following(self._follow, reload=self._reload)

    @classmethod
    async def open(cls, database: Database, grants: SqlGrants) -> Self:
        """Return the register with everything in memory that is read often."""
        agents = cls(database, grants)
        database.follow(agents._changes)
        await agents._load()
        return agents

    async def add(self, agent: GovernedAgent, manifest_yaml: str) -> None:
        """Register an agent before anything of it exists."""
        manifest = parse_manifest(manifest_yaml)

        def step(connection: apsw.Connection) -> None:
            known = row(connection, "SELECT run_id FROM agents WHERE id = ?", (agent.id,))
            if known is None:
                values = (to_ms(agent.run_started_at), *_values(agent))
                added = _agent(rows(connection, _ADD, values)[0])
                rows(connection, "INSERT INTO manifests VALUES (?, ?)", (agent.id, manifest_yaml))
                self._changes.note((agent.id, added, manifest))
            elif known[0] != agent.run_id:
                raise _stale(agent.id)

        await self._database.write(step)

    async def get(self, agent_id: AgentId) -> GovernedAgent:
        """Return an agent, also one that has ended and is still kept."""
        agent = self._agents.get(agent_id)
        if agent is None:
            raise _not_found(agent_id)
        return agent

    async def manifest_text(self, agent_id: AgentId) -> str:
        """Return the manifest as it was given."""
        found = await self._database.read(
            lambda connection: row(connection, "SELECT yaml FROM manifests WHERE agent_id = ?", (agent_id,))
        )
        if found is None:
            raise _not_found(agent_id)
        return str(found[0])

    async def manifest(self, agent_id: AgentId) -> Manifest:
        """Return the manifest under which the agent runs."""
        known = self._manifests.get(agent_id)
        if known is not None:
            return known
        manifest = await asyncio.to_thread(parse_manifest, await self.manifest_text(agent_id))
        if agent_id in self._agents:  # it may be gone meanwhile
            self._manifests[agent_id] = manifest
        return manifest

    async def all(self, *, ended: bool) -> tuple[GovernedAgent, ...]:
        """Return the agents that run (``ended``: also those that have ended), oldest first."""
        wanted = (agent for agent in self._agents.values() if ended or agent.ended_at is None)
        return tuple(sorted(wanted, key=lambda agent: (agent.spawned_at, agent.id)))

    async def ancestors(self, agent_id: AgentId) -> tuple[AgentId, ...]:
        """Return the parent, its parent, and so on."""
        above: list[AgentId] = []
        agent: GovernedAgent | None = await self.get(agent_id)
        while agent is not None and agent.parent_id is not None and agent.parent_id not in above:
            above.append(agent.parent_id)
            agent = self._agents.get(agent.parent_id)
        return tuple(above)

    async def move(self, agent_id: AgentId, *, run_id: str, was: Phase, to: Phase, at: datetime) -> GovernedAgent:
        """Change the phase."""
        return await self._change(
            agent_id,
            "phase = ?, phase_since_ms = ?",
            (to, to_ms(at)),
            only="run_id = ? AND phase = ?",
            on=(run_id, was),
        )

    async def set_status(
        self,
        agent_id: AgentId,
        *,
        run_id: str,
        was: Status,
        to: Status,
        at: datetime,
        ended: Exit | None = None,
        last_error: str | None = None,
    ) -> GovernedAgent:
        """Change the status."""
        ended_at_ms = None if STATUS_MOVES[to] else to_ms(at)
        return await self._change(
            agent_id,
            "status = ?, ended_at_ms = ?, exit_code = ?, last_error = ?",
            (to, ended_at_ms, None if ended is None else ended.code, last_error),
            only="run_id = ? AND status = ?",
            on=(run_id, was),
        )

    async def begin_run(self, agent_id: AgentId, *, run_id: str, at: datetime) -> GovernedAgent:
        """Start another run of an agent that has ended."""
        await self.manifest(agent_id)  # in memory from now on
        started = (run_id, to_ms(at), to_ms(at), Phase.INIT, Status.RUNNING)

        def step(connection: apsw.Connection) -> GovernedAgent:
            known = row(connection, f"SELECT {_COLUMNS} FROM agents WHERE id = ?", (agent_id,))
            if known is not None and known[1] == run_id:
                return _agent(known)
            return self._changed(connection, agent_id, row(connection, _BEGIN_RUN, (*started, agent_id)))

        return await self._database.write(step)

    async def taint(self, agent_id: AgentId, *, tainted: bool) -> None:
        """Set or clear the taint."""
        await self._change(agent_id, "tainted = ?", (int(tainted),))

    async def charge(self, agent_id: AgentId, more: Spent) -> Spent:
        """Add to what the agent has used, and return the sum."""
        # The rule refuses what cannot be spent; the sum itself has to be made where no other can come between.
        charge(NOTHING_SPENT, calls=more.calls, tokens=more.tokens, cost_micros=more.cost_micros)
        agent = await self._change(
            agent_id,
            "calls = calls + ?, tokens = tokens + ?, cost_micros = cost_micros + ?, wall_time_s = max(wall_time_s, ?)",
            (more.calls, more.tokens, more.cost_micros, more.wall_time_s),
        )
        return agent.spent

    async def set_budget(self, agent_id: AgentId, budget: Limits) -> GovernedAgent:
        """Change what the agent may use."""
        return await self._change(
            agent_id,
            "calls_limit = ?, tokens_limit = ?, cost_micros_limit = ?, wall_time_s_limit = ?",
            (budget.calls, budget.tokens, budget.cost_micros, budget.wall_time_s),
        )

    async def set_result(self, agent_id: AgentId, *, run_id: str, result: str) -> None:
        """Keep what the agent handed back (JSON text)."""
        await self._change(agent_id, "result = ?", (result,), only="run_id = ?", on=(run_id,))

    async def forget(self, *, ended_before: datetime) -> tuple[AgentId, ...]:
        """Drop agents that ended before then, with their grants and approvals, and return them."""

        def step(connection: apsw.Connection) -> tuple[AgentId, ...]:
            gone = tuple(AgentId(found[0]) for found in rows(connection, _FORGET, (to_ms(ended_before),)))
            for agent_id in gone:
                rows(connection, "DELETE FROM manifests WHERE agent_id = ?", (agent_id,))
                rows(connection, "DELETE FROM grants WHERE agent_id = ?", (agent_id,))
                rows(connection, "DELETE FROM approvals WHERE agent_id = ?", (agent_id,))
                self._changes.note((agent_id, None, None))
            return gone

        return await self._database.write(step)

    async def _change(
        self, agent_id: AgentId, assignments: str, values: Row, *, only: str = "true", on: Row = ()
    ) -> GovernedAgent:
        """Change one agent where ``only`` holds, in one statement."""
        statement = f"UPDATE agents SET {assignments} WHERE id = ? AND {only} RETURNING {_COLUMNS}"

        def step(connection: apsw.Connection) -> GovernedAgent:
            return self._changed(connection, agent_id, row(connection, statement, (*values, agent_id, *on)))

        return await self._database.write(step)

    def _changed(self, connection: apsw.Connection, agent_id: AgentId, changed: Row | None) -> GovernedAgent:
        """Note a changed agent, or say why no row was changed."""
        if changed is None:
            if row(connection, "SELECT 1 FROM agents WHERE id = ?", (agent_id,)) is None:
                raise _not_found(agent_id)
            raise _stale(agent_id)
        agent = _agent(changed)
        self._changes.note((agent_id, agent, None))
        return agent

    def _follow(self, change: _Change) -> None:
        agent_id, agent, manifest = change
        if agent is None:
            self._agents.pop(agent_id, None)
            self._manifests.pop(agent_id, None)
            self._grants.forget(agent_id)
            return
        self._agents[agent_id] = agent
        if manifest is not None:
            self._manifests[agent_id] = manifest

    def _reload(self, connection: apsw.Connection) -> list[_Change]:
        on_disk = {agent.id: agent for agent in map(_agent, rows(connection, _EVERY))}
        gone = [agent_id for agent_id in tuple(self._agents) if agent_id not in on_disk]
        changes: list[_Change] = [(agent_id, agent, None) for agent_id, agent in on_disk.items()]
        return changes + [(agent_id, None, None) for agent_id in gone]

    async def _load(self) -> None:
        def step(connection: apsw.Connection) -> tuple[list[Row], list[Row]]:
            running = "SELECT agent_id, yaml FROM manifests JOIN agents ON id = agent_id WHERE ended_at_ms IS NULL"
            return rows(connection, _EVERY), rows(connection, running)

        agents, manifests = await self._database.read(step)
        self._agents = {agent.id: agent for agent in map(_agent, agents)}
        self._manifests = await asyncio.to_thread(_parsed, manifests)


def _parsed(found: list[Row]) -> dict[AgentId, Manifest]:
    known: dict[AgentId, Manifest] = {}
    for agent_id, text in found:
        try:
            known[AgentId(agent_id)] = parse_manifest(text)
        except BoroughError:
            continue  # of an older version's making: whoever asks for it is told what is wrong with it
    return known


def _values(agent: GovernedAgent) -> Row:
    """Return what is stored of an agent, in the order of the columns."""
    return (
        agent.id,
        agent.run_id,
        agent.name,
        agent.version,
        agent.manifest_digest,
        agent.trust_level,
        agent.phase,
        agent.status,
        to_ms(agent.spawned_at),
        to_ms(agent.run_started_at),
        agent.parent_id,
        agent.depth,
        agent.restarts,
        agent.task,
        agent.model,
        int(agent.tainted),
        *(agent.budget.calls, agent.budget.tokens, agent.budget.cost_micros, agent.budget.wall_time_s),
        *(agent.spent.calls, agent.spent.tokens, agent.spent.cost_micros, agent.spent.wall_time_s),
        ms(agent.ended_at),
        agent.exit_code,
        agent.last_error,
        agent.result,
    )


def _agent(stored: Row) -> GovernedAgent:
    of = dict(zip(_NAMES, stored, strict=True))
    return GovernedAgent(
        id=AgentId(of["id"]),
        run_id=of["run_id"],
        name=of["name"],
        version=of["version"],
        manifest_digest=of["manifest_digest"],
        trust_level=TrustLevel(of["trust_level"]),
        phase=Phase(of["phase"]),
        status=Status(of["status"]),
        spawned_at=from_ms(of["spawned_at_ms"]),
        run_started_at=from_ms(of["run_started_at_ms"]),
        parent_id=of["parent_id"],
        depth=of["depth"],
        restarts=of["restarts"],
        task=of["task"],
        model=of["model"],
        tainted=bool(of["tainted"]),
        budget=Limits(
            calls=of["calls_limit"],
            tokens=of["tokens_limit"],
            cost_micros=of["cost_micros_limit"],
            wall_time_s=of["wall_time_s_limit"],
        ),
        spent=Spent(
            calls=of["calls"], tokens=of["tokens"], cost_micros=of["cost_micros"], wall_time_s=of["wall_time_s"]
        ),
        ended_at=moment(of["ended_at_ms"]),
        exit_code=of["exit_code"],
        last_error=of["last_error"],
        result=of["result"],
    )


def _not_found(agent_id: AgentId) -> NotFound:
    return NotFound(
        f"there is no agent {agent_id}", code="agent_not_found", resolution="list those that are there: ash ps"
    )


def _stale(agent_id: AgentId) -> Conflict:
    return Conflict(
        f"agent {agent_id} is not as it was",
        code="stale_agent",
        reason="its run, phase or status was changed meanwhile",
        resolution="read the agent again and decide anew",
    )

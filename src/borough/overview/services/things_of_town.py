"""Tasks and the town's agents, found and explained."""

from collections.abc import Mapping, Sequence
from typing import Final

from borough.core.clock import utc_now
from borough.core.errors import NotFound
from borough.core.ids import AgentId, TaskId, canonical_id, is_id
from borough.overview.explaining import MOST_HISTORY, Explanation, Happened, Match, Related, matched
from borough.overview.occurrences import Context, Subject
from borough.town import explain as rules
from borough.town.agents import Agent
from borough.town.ports.agents import Agents
from borough.town.ports.tasks import Tasks
from borough.town.tasks import HistoryEntry, Task

LOOKED_AT: Final = 500
"""How many of the newest tasks are looked at for the beginning of an id or a word of what is to be done."""
_TITLE: Final = 80


class TaskThings:
    """Tasks: by id always, by the beginning of it or by what is to be done among the newest."""

    context: Final = Context.TOWN
    kind: Final = "task"

    def __init__(self, tasks: Tasks, agents: Agents) -> None:
        self._tasks = tasks
        self._agents = agents

    async def find(self, word: str, *, limit: int) -> Sequence[Match]:
        """Return tasks that a word may mean."""
        if is_id(word):
            try:
                task, _ = await self._tasks.get(TaskId(canonical_id(word)))
            except NotFound:
                return ()
            return (Match(subject=subject_of(task), state=task.state.value, exact=True),)
        wanted, found = word.casefold(), list[Match]()
        for task in await self._tasks.newest(limit=LOOKED_AT):
            if task.id.startswith(wanted) or wanted in task.description.casefold():
                found.append(Match(subject=subject_of(task), state=task.state.value))
        return found[:limit]

    async def explain(self, subject: Subject) -> Explanation:
        """Return why a task stands where it stands."""
        task, history = await self._tasks.get(TaskId(subject.id))
        told = rules.explain_task(await self._tasks.context(task.id))
        names = {agent.id: agent.name for agent in await self._agents.all()}
        related = [] if task.assigned_to is None else [(task.assigned_to, "works on it or is to")]
        if task.sender in names:
            related.append((task.sender, "gave it"))
        agents = tuple(
            Related(subject=Subject(kind="agent", id=id_, name=names.get(id_)), relation=how) for id_, how in related
        )
        parent = () if task.parent_id is None else (_parent(task.parent_id),)
        return Explanation(
            subject=subject_of(task),
            state=task.state.value,
            why=told.why,
            since=told.since,
            next=told.next,
            related=(*agents, *parent),
            history=tuple(_happened(entry, names) for entry in history[-MOST_HISTORY:]),
        )


class AgentThings:
    """The town's agents: by id, short id and name."""

    context: Final = Context.TOWN
    kind: Final = "agent"

    def __init__(self, agents: Agents) -> None:
        self._agents = agents

    async def find(self, word: str, *, limit: int) -> Sequence[Match]:
        """Return agents that a word may mean."""
        agents = await self._agents.all()
        found = [match for agent in agents if (match := matched(word, _agent(agent), agent.state.value)) is not None]
        return sorted(found, key=lambda match: not match.exact)[:limit]

    async def explain(self, subject: Subject) -> Explanation:
        """Return why an agent stands where it stands."""
        agent = await self._agents.get(subject.id)
        told = rules.explain_agent(agent, now=utc_now())
        history = await self._agents.history(agent.id)
        task = () if agent.current_task is None else (Subject(kind="task", id=agent.current_task),)
        return Explanation(
            subject=_agent(agent),
            state=agent.state.value,
            why=told.why,
            since=told.since,
            next=told.next,
            related=tuple(Related(subject=each, relation="it works on it") for each in task),
            history=tuple(_happened(entry, {}) for entry in history[-MOST_HISTORY:]),
        )


def subject_of(task: Task) -> Subject:
    """Return a task as it is named: its first words stand for a name."""
    line = " ".join(task.description.split())
    return Subject(kind="task", id=task.id, name=line if len(line) <= _TITLE else f"{line[: _TITLE - 1]}…")


def _agent(agent: Agent) -> Subject:
    return Subject(kind="agent", id=agent.id, name=agent.name)


def _parent(task_id: TaskId) -> Related:
    return Related(subject=Subject(kind="task", id=task_id), relation="it is a part of it")


def _happened(entry: HistoryEntry, names: Mapping[AgentId, str]) -> Happened:
    moved = f"{entry.old_state or 'new'} → {entry.new_state}" if entry.new_state else ""
    attempt = f"attempt {entry.attempt}" if entry.attempt else ""
    what = ": ".join(part for part in (entry.event, ", ".join(filter(None, (moved, attempt, entry.reason)))) if part)
    by = None if entry.agent_id is None else names.get(entry.agent_id, entry.agent_id)
    return Happened(at=entry.at, what=what, by=by)

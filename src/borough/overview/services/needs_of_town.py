"""What of the town needs a person: dead letters, leases that do not end, orphans, questions to the supervisor."""

from datetime import datetime, timedelta
from typing import Final

from borough.core.clock import utc_now
from borough.core.paging import Page, PageRequest
from borough.overview.attention import Kind, Need, Settling, Urgency
from borough.overview.occurrences import Context, Subject
from borough.overview.services.slices import part
from borough.town.messages import INBOX_TYPE, Message, MessageKind
from borough.town.ports.agents import Agents, OrphanTask
from borough.town.ports.mailbox import Mailbox
from borough.town.ports.tasks import TaskFilter, Tasks
from borough.town.tasks import Task, TaskState

OVERDUE: Final = timedelta(seconds=15)
"""How long after its end a lease counts as stuck: it is ended within seconds where all goes well."""
SUPERVISOR: Final = "supervisor"
MOST_MAIL: Final = 1000
_SHOWN: Final = 300
_TITLE: Final = 80


class DeadLetters:
    """Tasks that are out of attempts."""

    context: Final = Context.TOWN
    kind: Final = Kind.DEAD_LETTER

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks

    async def page(self, page: PageRequest) -> Page[Need]:
        """Return some, oldest first."""
        found = await self._tasks.find(TaskFilter(state=TaskState.FAILED), page)
        return Page(items=tuple(map(_dead_letter, found.items)), after=found.after)


class StuckLeases:
    """Tasks whose lease is over, and which nobody has ended."""

    context: Final = Context.TOWN
    kind: Final = Kind.STUCK_LEASE

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks

    async def page(self, page: PageRequest) -> Page[Need]:
        """Return some; there are never more tasks in hand than there are agents."""
        found = await self._tasks.find(TaskFilter(state=TaskState.RUNNING), page)
        overdue = utc_now() - OVERDUE
        stuck = [_stuck(task, task.lease_expires_at) for task in found.items if _is_over(task, overdue)]
        return Page(items=tuple(need for need in stuck if need is not None), after=found.after)


class OrphanTasks:
    """Unfinished tasks whose agent is gone or has ended."""

    context: Final = Context.TOWN
    kind: Final = Kind.ORPHAN_TASK

    def __init__(self, agents: Agents) -> None:
        self._agents = agents

    async def page(self, page: PageRequest) -> Page[Need]:
        """Return some, oldest first."""
        return part([_orphan(each) for each in await self._agents.orphans()], page)


class SupervisorMail:
    """Questions to whoever leads the town."""

    context: Final = Context.TOWN
    kind: Final = Kind.QUESTION

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def page(self, page: PageRequest) -> Page[Need]:
        """Return some, oldest first; of very much unread mail the first part is looked at."""
        inbox = await self._mailbox.peek(SUPERVISOR, limit=MOST_MAIL)
        asked = [each for each in inbox.messages if each.type == INBOX_TYPE[MessageKind.QUERY]]
        return part([_question(each) for each in asked], page)


def _is_over(task: Task, overdue: datetime) -> bool:
    return task.lease_expires_at is not None and task.lease_expires_at < overdue


def _dead_letter(task: Task) -> Need:
    return Need(
        kind=Kind.DEAD_LETTER,
        title=f"{_short(task.description)} failed for good",
        why=f"{task.attempts} of {task.max_attempts} attempts: {task.last_error or task.result or 'no reason given'}",
        since=task.updated_at,
        urgency=Urgency.WHENEVER,
        subject=Subject(kind="task", id=task.id, name=_short(task.description)),
        safe_default="it stays a dead letter and is not tried again",
        settled_by=(
            Settling(
                label="Try again", method="POST", path=f"/v1/tasks/{task.id}/retry", command=f"tt task retry {task.id}"
            ),
        ),
    )


def _stuck(task: Task, ended_at: datetime | None) -> Need | None:
    if ended_at is None:
        return None
    return Need(
        kind=Kind.STUCK_LEASE,
        title=f"{_short(task.description)} is held by nobody",
        why=f"its lease (epoch {task.epoch}) is over, and the server has not ended it yet",
        since=ended_at,
        urgency=Urgency.SOON,
        subject=Subject(kind="task", id=task.id, name=_short(task.description)),
        safe_default="its lease is ended by itself as soon as the server comes round to it; then it is tried again",
        settled_by=(Settling(label="Look now", method="POST", path="/v1/recover", command="tt recover"),),
    )


def _orphan(orphan: OrphanTask) -> Need:
    task = orphan.task
    return Need(
        kind=Kind.ORPHAN_TASK,
        title=f"{_short(task.description)} waits for an agent that is not there",
        why="its agent is no longer registered" if orphan.reason == "agent_missing" else "its agent has ended",
        since=task.updated_at,
        urgency=Urgency.SOON,
        subject=Subject(kind="task", id=task.id, name=_short(task.description)),
        safe_default="it goes to the backlog by itself, some time after its agent ended",
        settled_by=(
            Settling(
                label="Give all such tasks to whoever is free",
                method="POST",
                path="/v1/reclaim/orphan-tasks",
                body={"action": "to_backlog"},
                command="tt reclaim --orphan-tasks --to-backlog --yes",
            ),
            Settling(
                label="Cancel it",
                method="POST",
                path=f"/v1/tasks/{task.id}/cancel",
                command=f"tt task cancel {task.id}",
            ),
        ),
    )


def _question(message: Message) -> Need:
    return Need(
        kind=Kind.QUESTION,
        title="an agent asks the supervisor",
        why=message.text[:_SHOWN],
        since=message.created_at,
        urgency=Urgency.NOW,
        subject=Subject(kind="message", id=message.id),
        safe_default="nobody answers; the agent goes on as it sees fit",
        settled_by=(
            Settling(
                label="Answer",
                method="POST",
                path="/v1/messages/send",
                body={"to": message.sender, "message": "", "kind": "info"},
                command=f"tt send {message.sender} --info 'the answer'",
            ),
            Settling(
                label="Put it away",
                method="POST",
                path=f"/v1/agents/{SUPERVISOR}/inbox/ack",
                body={"message_ids": [message.id]},
                command=f"tt inbox {SUPERVISOR} --ack {message.id}",
            ),
        ),
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TITLE else f"{line[: _TITLE - 1]}…"

"""What tests of the store make: tasks, agents with a worker, messages; and looks behind the ports."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from borough.core.ids import AgentId, MessageId, TaskId, new_id
from borough.core.paging import PageRequest
from borough.town.agents import NewAgent, WorkerProcess
from borough.town.messages import Message, MessageKind, NewMessage
from borough.town.names import SUPERVISOR_ID
from borough.town.ports.leases import Heartbeat
from borough.town.ports.tasks import Assignment
from borough.town.tasks import Lease, NewTask, RetryPolicy, Task
from tests.contracts.conftest import Town

LEASE = timedelta(seconds=30)
BRIEF = timedelta(milliseconds=1)
AT_ONCE = RetryPolicy(base_ms=0, cap_ms=0)
LATER = RetryPolicy(base_ms=60_000, cap_ms=60_000)
GRACE = timedelta(seconds=120)
FIRST = PageRequest()
PROCESS = WorkerProcess(host="here", pid=4711, started_ticks=99)


def new_task(description: str = "do it", **about: Any) -> NewTask:
    return NewTask(**{"id": TaskId(new_id()), "description": description, "sender": SUPERVISOR_ID, **about})


def new_message(text: str = "well done", **about: Any) -> NewMessage:
    values: dict[str, Any] = {"kind": MessageKind.INFO, "sender": "supervisor", **about}
    return NewMessage(**{"id": MessageId(new_id()), "text": text, **values})


@dataclass
class Worker:
    """An agent with the worker that serves it."""

    town: Town
    id: AgentId
    name: str
    incarnation: int = 1

    async def take(self, lease: timedelta = LEASE) -> Lease | None:
        return (await self.take_with_mail(lease))[0]

    async def take_with_mail(self, lease: timedelta = LEASE) -> tuple[Lease | None, tuple[Message, ...]]:
        return await self.town.leases.take(self.id, incarnation=self.incarnation, lease=lease)

    async def must_take(self, lease: timedelta = LEASE) -> Task:
        taken = await self.take(lease)
        assert taken is not None
        return taken.task

    async def beat(self, task: Task | None = None, lease: timedelta = LEASE) -> Heartbeat:
        task_id, epoch = (task.id, task.epoch) if task else (None, None)
        return await self.town.leases.beat(
            self.id, incarnation=self.incarnation, task_id=task_id, epoch=epoch, lease=lease
        )


async def add_agent(town: Town, name: str, **about: Any) -> AgentId:
    new = NewAgent(id=AgentId(new_id()), name=name, cli="claude", **about)
    return (await town.agents.add(new, max_agents=100)).id


async def hire(town: Town, name: str, **about: Any) -> Worker:
    """A registered agent whose worker has reported."""
    agent_id = await add_agent(town, name, **about)
    await town.leases.start(agent_id, incarnation=1, process=PROCESS, lease=LEASE)
    return Worker(town, agent_id, name)


async def queue(town: Town, description: str = "do it", **about: Any) -> Task:
    return await town.tasks.add_to_backlog(new_task(description, **about))


async def assign(town: Town, agent: str, description: str = "do it", **about: Any) -> Assignment:
    return await town.tasks.assign(new_task(description, **about), agent=agent)


async def events_of(town: Town) -> list[str]:
    return [event.type for event in await town.events.newest(limit=1000)]


async def everything(town: Town) -> dict[bytes, Any]:
    """All that is stored of the town, to show that a refused call changed nothing."""
    client, stored = town.client, {}
    async for key in client.scan_iter(match=f"{town.prefix}*", count=1000):
        stored[key] = await client.dump(key)
    return stored

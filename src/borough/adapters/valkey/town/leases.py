"""``Leases`` on Valkey."""

from datetime import timedelta

from borough.adapters.valkey.link import Link
from borough.adapters.valkey.town import records
from borough.adapters.valkey.town.asking import ask, look
from borough.core.ids import AgentId, TaskId
from borough.town.agents import Agent, AgentState, Directive, WorkerProcess
from borough.town.messages import Message
from borough.town.ports.leases import Heartbeat, Swept
from borough.town.tasks import Lease, RetryPolicy


class ValkeyLeases:
    """Implements ``borough.town.ports.leases.Leases``."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def start(self, agent_id: AgentId, *, incarnation: int, process: WorkerProcess, lease: timedelta) -> Agent:
        """See the port."""
        answer = await ask(
            self._link, "town_start", agent_id, incarnation, process.host, process.pid, process.started_ticks, lease
        )
        return records.agent(answer)

    async def take(
        self, agent_id: AgentId, *, incarnation: int, lease: timedelta
    ) -> tuple[Lease | None, tuple[Message, ...]]:
        """See the port. At most 100 messages or 4 MiB of mail come with one lease; the rest with the next."""
        answer = await ask(self._link, "town_take", agent_id, incarnation, lease)
        if answer is None:
            return None, ()
        record, name, mail = answer
        return Lease(task=records.task(record), agent_name=records.text(name)), tuple(map(records.message, mail))

    async def beat(
        self, agent_id: AgentId, *, incarnation: int, task_id: TaskId | None, epoch: int | None, lease: timedelta
    ) -> Heartbeat:
        """See the port."""
        directive, due = await ask(self._link, "town_beat", agent_id, incarnation, task_id, epoch, lease)
        return Heartbeat(directive=Directive(records.text(directive)), lease_expires_at=records.moment(due))

    async def leave(self, agent_id: AgentId, *, incarnation: int, state: AgentState, reason: str) -> Agent:
        """See the port. A worker that leaves with an error may always go."""
        return records.agent(await ask(self._link, "town_leave", agent_id, incarnation, state, reason))

    async def lose(self, agent_id: AgentId, *, incarnation: int, reason: str, retry: RetryPolicy) -> Agent:
        """See the port."""
        return records.agent(
            await ask(self._link, "town_lose", agent_id, incarnation, reason, retry.base_ms, retry.cap_ms)
        )

    async def drain_if_idle(self, agent_id: AgentId, *, incarnation: int) -> bool:
        """See the port. Mail alone keeps nobody; of an agent that drains already the answer is ``True``."""
        return bool(await ask(self._link, "town_drain_if_idle", agent_id, incarnation))

    async def sweep(self, *, retry: RetryPolicy, limit: int, agent_grace: timedelta) -> Swept:
        """See the port."""
        retried, dead, promoted, lost = await ask(
            self._link, "town_sweep", retry.base_ms, retry.cap_ms, limit, agent_grace
        )
        return Swept(
            retried=records.task_ids(retried),
            dead=records.task_ids(dead),
            promoted=promoted,
            lost_agents=tuple(map(records.agent, lost)),
        )

    async def attempt_is_live(self, task_id: TaskId, *, epoch: int) -> bool:
        """See the port. Of a task that is not there (any more), nothing is live."""
        return bool(await look(self._link, "town_attempt_is_live", task_id, epoch))

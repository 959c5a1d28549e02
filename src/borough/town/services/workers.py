"""Use cases of workers: report, take work, stay alive, leave."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from borough.core.ids import AgentId, TaskId
from borough.town.agents import Agent, AgentState, Directive, WorkerProcess
from borough.town.messages import Message
from borough.town.ports.events import Bell, EventFeed
from borough.town.ports.leases import Heartbeat, Leases
from borough.town.ports.workers import WorkerTokens
from borough.town.tasks import Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A lease, the token that speaks for it, and the mail that came with it."""

    lease: Lease
    token: str
    mail: tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """The caller, as its token says."""

    agent_id: AgentId
    incarnation: int


class WorkerService:
    """Serves the programs that serve agents."""

    def __init__(self, leases: Leases, feed: EventFeed, tokens: WorkerTokens, *, lease: timedelta) -> None:
        self._leases = leases
        self._feed = feed
        self._tokens = tokens
        self._lease = lease

    async def start(self, worker: Worker, process: WorkerProcess) -> Agent:
        """The worker is up."""
        return await self._leases.start(
            worker.agent_id, incarnation=worker.incarnation, process=process, lease=self._lease
        )

    async def take(
        self, worker: Worker, *, wait_s: float, disconnected: Callable[[], Awaitable[None]]
    ) -> Attempt | None:
        """Lease the next task, waiting for one up to ``wait_s``; ``None`` when none came or the caller left."""
        attempt = await self._take_now(worker)
        if attempt is not None or wait_s <= 0:
            return attempt
        deadline = time.monotonic() + wait_s
        gone = asyncio.ensure_future(disconnected())
        try:
            async with (
                self._feed.work_arrives(timeout_s=wait_s) as work,
                self._feed.agent_changes(worker.agent_id) as change,
            ):
                # Work may have come between the first look and the bell: look once more before waiting.
                while (attempt := await self._take_now(worker)) is None:
                    work.pass_on()  # what rang may be another role's
                    left = deadline - time.monotonic()
                    if left <= 0 or not await _rung(work, change, gone, left):
                        return None
            return attempt
        finally:
            gone.cancel()

    async def _take_now(self, worker: Worker) -> Attempt | None:
        lease, mail = await self._leases.take(worker.agent_id, incarnation=worker.incarnation, lease=self._lease)
        if lease is None:
            return None
        token = self._tokens.mint(
            agent_id=worker.agent_id,
            incarnation=worker.incarnation,
            task_id=lease.task.id,
            epoch=lease.task.epoch,
        )
        return Attempt(lease=lease, token=token, mail=mail)

    async def beat(
        self,
        worker: Worker,
        *,
        task_id: TaskId | None,
        epoch: int | None,
        known: Directive,
        wait_s: float,
        disconnected: Callable[[], Awaitable[None]],
    ) -> Heartbeat:
        """Renew the leases at once; then hold the answer up to ``wait_s``, while the directive is the ``known`` one."""

        async def beat() -> Heartbeat:
            return await self._leases.beat(
                worker.agent_id, incarnation=worker.incarnation, task_id=task_id, epoch=epoch, lease=self._lease
            )

        if wait_s <= 0:
            return await beat()
        deadline = time.monotonic() + wait_s
        gone = asyncio.ensure_future(disconnected())
        try:
            async with self._feed.agent_changes(worker.agent_id) as change:
                heartbeat = await beat()
                while heartbeat.directive is known:
                    left = deadline - time.monotonic()
                    if left <= 0 or not await _rung(change, None, gone, left):
                        break
                    heartbeat = await beat()
            return heartbeat
        finally:
            gone.cancel()

    async def leave(self, worker: Worker, *, reason: str, failed: bool) -> Agent:
        """The worker goes."""
        state = AgentState.ERROR if failed else AgentState.STOPPED
        return await self._leases.leave(worker.agent_id, incarnation=worker.incarnation, state=state, reason=reason)

    async def drain_if_idle(self, worker: Worker) -> bool:
        """An idle worker asks to leave; ``False`` when work has come meanwhile."""
        return await self._leases.drain_if_idle(worker.agent_id, incarnation=worker.incarnation)

    async def attempt_is_live(self, task_id: TaskId, *, epoch: int) -> bool:
        """Tell whether an attempt's token still speaks for anything."""
        return await self._leases.attempt_is_live(task_id, epoch=epoch)


async def _rung(first: Bell, second: Bell | None, gone: asyncio.Future[None], timeout_s: float) -> bool:
    """Wait for a bell; tell whether one rang before the time was over and before the caller left."""
    bells = [bell for bell in (first, second) if bell is not None]
    waits = [asyncio.ensure_future(bell.wait(timeout_s)) for bell in bells]
    try:
        pending: set[asyncio.Future[Any]] = {*waits, gone}
        await asyncio.wait(pending, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        rang = [wait.done() and wait.result() for wait in waits]
        if gone.done() and rang[0]:
            first.pass_on()
        return any(rang) and not gone.done()
    finally:
        for wait in waits:
            wait.cancel()

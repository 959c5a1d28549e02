"""The town, put together."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

import structlog

from borough.adapters.launcher import PLAIN, LocalLauncher
from borough.adapters.task_logs import FileTaskLogs
from borough.adapters.valkey.client import Client
from borough.adapters.valkey.feed import Feed
from borough.adapters.valkey.replies import Replies as ValkeyReplies
from borough.adapters.valkey.town.administration import ValkeyAdministration
from borough.adapters.valkey.town.agents import ValkeyAgents
from borough.adapters.valkey.town.events import ValkeyEvents
from borough.adapters.valkey.town.leases import ValkeyLeases
from borough.adapters.valkey.town.mailbox import ValkeyMailbox
from borough.adapters.valkey.town.readings import ValkeyReadings
from borough.adapters.valkey.town.tasks import ValkeyTasks
from borough.bootstrap.store import Store
from borough.config.town import TownSettings
from borough.controllers.loops import Controller
from borough.controllers.town import controllers
from borough.core.errors import BoroughError
from borough.core.ids import AgentId
from borough.http.town.services import TownFacts, TownServices
from borough.town.agents import TERMINAL, WorkerProcess
from borough.town.clis import AgentCli, InputMode, OnExitZero
from borough.town.ports.agents import Agents
from borough.town.ports.events import EventFeed, Events
from borough.town.ports.leases import Leases
from borough.town.ports.mailbox import Mailbox
from borough.town.ports.replies import Replies
from borough.town.ports.tasks import Tasks
from borough.town.ports.workers import WorkerTokens
from borough.town.services.administration import AdministrationService
from borough.town.services.agents import AgentService
from borough.town.services.events import EventService
from borough.town.services.logs import LogService
from borough.town.services.messages import MessageService
from borough.town.services.readings import ReadingService
from borough.town.services.recovery import RecoveryService
from borough.town.services.tasks import TaskService
from borough.town.services.workers import WorkerService
from borough.town.tasks import RetryPolicy

if TYPE_CHECKING:
    from borough.adapters.engines.bubblewrap_workers.boxes import WorkerBoxes

log = structlog.get_logger(__name__)

AGENT_GRACE = timedelta(seconds=120)
SERVER_STOPPED = "the server stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Town:
    """An open town: what serves it and what keeps it."""

    services: TownServices
    controllers: tuple[Controller, ...]
    events: Events
    feed: EventFeed
    replies: Replies
    tasks: Tasks
    leases: Leases
    agents: Agents
    mailbox: Mailbox
    retry: RetryPolicy

    async def start_again(self) -> None:
        """Start the agents that were ended only because the server was."""
        for agent in await self.agents.all():
            if agent.reason == SERVER_STOPPED and agent.state in TERMINAL:
                try:
                    await self.services.agents.restart(agent.id, by="the server")
                except BoroughError as error:
                    log.warning("agent.not_started", agent=agent.name, error=error.message)

    async def end_workers(self) -> None:
        """End the workers of this machine: each gives its task back first."""
        here = socket.gethostname()
        ours = [agent for agent in await self.agents.all() if agent.process is not None and agent.process.host == here]
        living = [agent for agent in ours if agent.state not in TERMINAL]
        await asyncio.gather(*(self.services.agents.stop(agent, reason=SERVER_STOPPED) for agent in living))


@asynccontextmanager
async def open_town(
    settings: TownSettings,
    store: Store,
    *,
    tokens: WorkerTokens,
    server_url: str,
    certificate: Path | None = None,
    boxes: "WorkerBoxes | None" = None,
    plain: str = PLAIN,
) -> AsyncIterator[Town]:
    """Put the town's services together over ``store`` and start its feed of events.

    ``certificate`` is what the server shows in TLS: the workers of this machine trust it. ``boxes`` are what they are
    started in, and ``plain`` is why not, where there are none.
    """
    client = store.client
    feed = Feed(client)
    await feed.start()
    ended = _EndedWorkers()
    launcher = LocalLauncher(
        town_root=settings.root,
        state_root=settings.state_folder,
        on_end=ended,
        server_certificate=certificate,
        boxes=boxes,
        plain=plain,
    )
    try:
        town = _compose(settings, store, feed=feed, launcher=launcher, tokens=tokens, server_url=server_url)
        ended.tell(town)
        yield town
    finally:
        launcher.close()
        await ended.settle()
        await feed.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ports:
    """The ports that the store fills."""

    tasks: ValkeyTasks
    leases: ValkeyLeases
    agents: ValkeyAgents
    events: ValkeyEvents
    mailbox: ValkeyMailbox
    readings: ValkeyReadings
    administration: ValkeyAdministration
    logs: FileTaskLogs

    @classmethod
    def on(cls, client: Client, state_folder: Path) -> Self:
        """Return every port on one store and one folder."""
        return cls(
            tasks=ValkeyTasks(client),
            leases=ValkeyLeases(client),
            agents=ValkeyAgents(client),
            events=ValkeyEvents(client),
            mailbox=ValkeyMailbox(client),
            readings=ValkeyReadings(client, durability=client.durability),
            administration=ValkeyAdministration(client),
            logs=FileTaskLogs(state_folder / "logs" / "tasks"),
        )


def _compose(
    settings: TownSettings,
    store: Store,
    *,
    feed: Feed,
    launcher: LocalLauncher,
    tokens: WorkerTokens,
    server_url: str,
) -> Town:
    ports = _Ports.on(store.client, settings.state_folder)
    retry = RetryPolicy(base_ms=settings.tasks.retry_base_ms, cap_ms=settings.tasks.retry_cap_ms)
    agents = AgentService(
        ports.agents,
        ports.leases,
        launcher,
        tokens,
        retry=retry,
        server_url=server_url,
        max_agents=settings.max_agents,
        default_cli=settings.default_cli,
    )
    recovery = RecoveryService(
        ports.tasks, ports.leases, ports.agents, ports.logs, agents, retry=retry, agent_grace=AGENT_GRACE
    )
    return Town(
        services=_services(
            settings, store, ports, feed=feed, tokens=tokens, retry=retry, agents=agents, recovery=recovery
        ),
        controllers=controllers(
            recovery,
            ports.tasks,
            ports.logs,
            lease=timedelta(milliseconds=settings.agent.lease_ms),
            reclaim_after=timedelta(seconds=settings.agent.reclaim_after_secs),
            retention=timedelta(days=settings.tasks.retention_days),
        ),
        events=ports.events,
        feed=feed,
        replies=ValkeyReplies(store.client),
        tasks=ports.tasks,
        leases=ports.leases,
        agents=ports.agents,
        mailbox=ports.mailbox,
        retry=retry,
    )


def _services(
    settings: TownSettings,
    store: Store,
    ports: _Ports,
    *,
    feed: Feed,
    tokens: WorkerTokens,
    retry: RetryPolicy,
    agents: AgentService,
    recovery: RecoveryService,
) -> TownServices:
    attempts = settings.tasks.max_attempts
    idle_timeout_s = settings.agent.idle_timeout_secs
    return TownServices(
        facts=TownFacts(
            name=settings.name,
            root=str(settings.root),
            redis_url=store.client.place,
            max_agents=settings.max_agents,
            lease_ms=settings.agent.lease_ms,
            idle_timeout_s=idle_timeout_s,
            started_monotonic=time.monotonic(),
        ),
        tasks=TaskService(ports.tasks, retry=retry, default_attempts=attempts),
        messages=MessageService(ports.mailbox, default_attempts=attempts),
        agents=agents,
        workers=WorkerService(ports.leases, feed, tokens, lease=timedelta(milliseconds=settings.agent.lease_ms)),
        recovery=recovery,
        readings=ReadingService(
            ports.readings, max_agents=settings.max_agents, idle_timeout=timedelta(seconds=idle_timeout_s)
        ),
        events=EventService(ports.events, feed, ports.agents),
        logs=LogService(ports.logs, ports.tasks),
        administration=AdministrationService(ports.administration, ports.logs, agents, town=settings.name),
        resolve_cli=lambda text: _cli(settings, text),
    )


def _cli(settings: TownSettings, text: str) -> AgentCli:
    """Return the agent CLI that ``text`` stands for; raises ``Invalid`` when it is no command."""
    cli = settings.cli(text).cli
    return AgentCli(
        name=cli.name,
        argv=(*cli.argv, cli.input_option) if cli.input_option else cli.argv,
        input=InputMode(cli.input),
        workdir=cli.workdir,
        env=cli.env,
        timeout_s=cli.timeout_s or settings.agent.task_timeout_secs,
        on_exit_zero=OnExitZero(cli.on_exit_zero),
    )


class _EndedWorkers:
    """Tells the town at once when a worker's process has ended, instead of leaving it to the lease."""

    def __init__(self) -> None:
        self._town: Town | None = None
        self._telling: set[asyncio.Task[None]] = set()

    def tell(self, town: Town) -> None:
        """Tell ``town`` from now on."""
        self._town = town

    def __call__(self, agent_id: AgentId, process: WorkerProcess, status: int) -> None:
        """Take note that the worker of ``agent_id`` ended with ``status`` (negative: the signal)."""
        task = asyncio.get_running_loop().create_task(self._note(agent_id, process, status))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def settle(self) -> None:
        """Wait until everything was told."""
        await asyncio.gather(*self._telling, return_exceptions=True)

    async def _note(self, agent_id: AgentId, process: WorkerProcess, status: int) -> None:
        if self._town is None:
            return
        how = f"signal {-status}" if status < 0 else f"exit code {status}"
        try:
            agent = await self._town.agents.get(agent_id)
            if agent.state not in TERMINAL and agent.process in (None, process):
                await self._town.services.agents.worker_exited(
                    agent_id, agent.incarnation, f"its process ended with {how}"
                )
        except BoroughError as error:
            log.warning("worker.end_not_noted", agent_id=agent_id, error=error.message)

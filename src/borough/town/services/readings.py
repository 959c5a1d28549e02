"""Use cases of looking at a town as a whole: is it ready, how busy is it, how many agents does it want."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from borough.town.ports.readings import Readings
from borough.town.scaling import Signal, Snapshot, signal
from borough.town.tasks import TaskState

DISPATCHER_STALE = timedelta(seconds=90)


class Dispatcher(StrEnum):
    """How the missions' dispatcher does."""

    IDLE = "idle"
    RUNNING = "running"
    STALLED = "stalled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """A store that answers, and how fast."""

    latency_s: float
    durability: str
    dispatcher: Dispatcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What ``/metrics`` renders: one snapshot and the store's round trip."""

    snapshot: Snapshot
    latency_s: float


class ReadingService:
    """Answers from one consistent snapshot each."""

    def __init__(self, readings: Readings, *, max_agents: int, idle_timeout: timedelta) -> None:
        self._readings = readings
        self._max_agents = max_agents
        self._idle_timeout = idle_timeout

    async def scaling(self) -> Signal:
        """Return the autoscaling signal."""
        return signal(await self._readings.snapshot(), max_agents=self._max_agents, idle_timeout=self._idle_timeout)

    async def waiting(self) -> Mapping[str | None, int]:
        """Return how many tasks of the shared backlog wait for each role, those for anybody under ``None``."""
        return await self._readings.waiting()

    async def measure(self) -> Measured:
        """Return the counts for metrics."""
        return Measured(latency_s=await self._readings.ping(), snapshot=await self._readings.snapshot())

    async def ready(self) -> Readiness:
        """Return how the store does; raises ``Unavailable`` when it does not answer."""
        latency_s = await self._readings.ping()
        return Readiness(
            latency_s=latency_s,
            durability=await self._readings.durability(),
            dispatcher=dispatcher_state(await self._readings.snapshot()),
        )

    async def counts(self) -> dict[TaskState, int]:
        """Return how many tasks are in each state."""
        return dict(await self._readings.counts())


def dispatcher_state(snapshot: Snapshot) -> Dispatcher:
    """Return ``idle`` without open missions, ``running`` when one was looked after lately, else ``stalled``."""
    if not snapshot.mission_open:
        return Dispatcher.IDLE
    last = snapshot.mission_last_tick
    if last is not None and snapshot.at - last <= DISPATCHER_STALE:
        return Dispatcher.RUNNING
    return Dispatcher.STALLED

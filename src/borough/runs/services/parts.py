"""What all services of runs share, and how a change of a run is written."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from borough.core.errors import Conflict
from borough.core.ids import AgentId
from borough.fleet.engines import Engine
from borough.runs.admission import Admission, Start, expected_start_ms
from borough.runs.ports import RunFiles, RunStore
from borough.runs.runs import Run
from borough.runs.services.agents import RunAgents
from borough.runs.services.machines import RunMachines
from borough.runs.services.tasks import RunTasks

_TRIES = 8
_LATELY = 20
"""Of how many starts the median is told."""

Change = Callable[[Run], Run]


@dataclass(slots=True)
class Asking:
    """Which agents wait for somebody's agreement, as was seen last, and who is woken when that changes."""

    agents: frozenset[AgentId] = frozenset()
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def see(self, agents: frozenset[AgentId]) -> None:
        """Take note of who waits now."""
        if agents != self.agents:
            self.agents = agents
            self.changed.set()
            self.changed = asyncio.Event()

    async def becomes(self, agent_id: AgentId, *, asking: bool) -> None:
        """Return as soon as an agent waits, or does not."""
        while (agent_id in self.agents) is not asking:
            await self.changed.wait()


@dataclass(slots=True)
class LogBells:
    """Who follows the log of which run in this process."""

    bells: dict[str, asyncio.Event] = field(default_factory=dict)

    def ring(self, run_id: str) -> None:
        """Tell that there is more."""
        bell = self.bells.pop(run_id, None)
        if bell is not None:
            bell.set()

    async def wait(self, run_id: str, *, timeout_s: float) -> None:
        """Return when there may be more, or when the time is over."""
        bell = self.bells.setdefault(run_id, asyncio.Event())
        try:
            async with asyncio.timeout(timeout_s):
                await bell.wait()
        except TimeoutError:
            return


@dataclass(slots=True)
class Reservations:
    """Who waits to hear which place a run got."""

    asked: dict[str, asyncio.Event] = field(default_factory=dict)

    def expect(self, run_id: str) -> asyncio.Event:
        """Return what is set as soon as a run has its place, waits in line for one, or gets none."""
        return self.asked.setdefault(run_id, asyncio.Event())

    def settle(self, run_id: str) -> None:
        """Tell that this is so."""
        expected = self.asked.pop(run_id, None)
        if expected is not None:
            expected.set()


@dataclass(slots=True)
class Starts:
    """How long it took lately from asking for a run until its command ran."""

    lately: dict[tuple[Engine, Start], deque[int]] = field(default_factory=dict)

    def note(self, engine: Engine, start: Start, took_ms: int) -> None:
        """Note one."""
        self.lately.setdefault((engine, start), deque(maxlen=_LATELY)).append(took_ms)

    def measured(self) -> Mapping[tuple[Engine, Start], int]:
        """Return the medians (ms)."""
        return {kind: sorted(took)[len(took) // 2] for kind, took in self.lately.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParts:
    """The ports and the sides of the other contexts."""

    store: RunStore
    files: RunFiles
    tasks: RunTasks
    agents: RunAgents
    machines: RunMachines
    asking: Asking = field(default_factory=Asking)
    bells: LogBells = field(default_factory=LogBells)
    starts: Starts = field(default_factory=Starts)
    reservations: Reservations = field(default_factory=Reservations)

    def expected(self, admission: Admission, start: Start) -> Admission:
        """Return an admission with how the machine was come by after all, and how long that takes."""
        if admission.engine is None:
            return admission
        return replace(
            admission, start=start, expected_start_ms=expected_start_ms(admission.engine, start, self.starts.measured())
        )

    async def note_machine(self, run: Run, state: str) -> None:
        """Write down what became of the machine of the run's attempt."""

        def noted(before: Run) -> Run:
            if before.attempt is None:
                return before
            machine = replace(before.attempt.machine, state=state)
            return replace(before, attempt=replace(before.attempt, machine=machine))

        await self.change(run.id, noted, event="run.machine", message=f"its machine is {state}")

    async def change(self, run_id: str, change: Change, *, event: str, message: str) -> Run:
        """Change a run as it is now; when somebody else was faster, look again and change that.

        Raises:
            NotFound: there is none (``run_not_found``).
            Conflict: ``change`` does not allow it, or too many change it at once (``stale_run``).
        """
        for _ in range(_TRIES):
            before = await self.store.get(run_id)
            after = change(before)
            if after == before:
                return before
            try:
                return await self.store.change(after, event=event, message=message)
            except Conflict as error:
                if error.code != "stale_run":
                    raise
        raise Conflict(
            "the run is changed by too many at once",
            code="stale_run",
            resolution="read it again and repeat the request",
        )

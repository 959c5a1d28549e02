"""Keeps every run on its way: one driver each, started again wherever it ended too early."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import structlog

from borough.core.acting import acting_as
from borough.core.clock import utc_now
from borough.core.errors import BoroughError
from borough.governance.agents import GovernedAgent
from borough.runs.runs import Run, Wish
from borough.runs.services.attempts import AttemptService
from borough.runs.services.driving import Driver
from borough.runs.services.ending import RunEnds
from borough.runs.services.parts import RunParts
from borough.runs.services.preparing import Preparation
from borough.runs.services.tasks import lease_of
from borough.runs.states import UNDER_WAY

log = structlog.get_logger(__name__)

LOOK_AT_APPROVALS = timedelta(milliseconds=200)
KEEP_EVERY = timedelta(seconds=2)
FORGET_EVERY = timedelta(minutes=10)
KEPT = timedelta(days=30)
"""How long a run stays known after its end, with its log and its patch; the ledger tells of it longer."""
SOURCE_WITHIN = timedelta(hours=1)
"""How long a run waits for its upload."""
FORGOTTEN_AT_ONCE = 500


class RunKeeper:
    """The drivers of this process. All they know is in the stores."""

    def __init__(self, parts: RunParts) -> None:
        self._parts = parts
        self._preparation = Preparation(parts=parts)
        self._attempts = AttemptService(parts=parts)
        self._ends = RunEnds(parts=parts)
        self._driving: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    async def take_up(self) -> None:
        """Know what an earlier server began: its agents and keys first, before anybody is answered."""
        for run in await self._parts.store.unsettled():
            if not run.is_over:
                self._parts.agents.take_up(run, until=utc_now() + lease_of(run))

    def wake(self, run_id: str) -> None:
        """See to it that a run goes on."""
        if not self._closed and run_id not in self._driving:
            driver = Driver(
                parts=self._parts,
                preparation=self._preparation,
                attempts=self._attempts,
                ends=self._ends,
                run_id=run_id,
            )
            task = asyncio.create_task(self._drive(driver), name=f"run {run_id}")
            self._driving[run_id] = task
            task.add_done_callback(lambda _: self._driving.pop(run_id, None))

    async def interrupt(self, run_id: str) -> None:
        """Stop whatever is being done for a run just now; it goes on from its row as it is by then."""
        task = self._driving.get(run_id)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def keep(self) -> None:
        """Go on with every run for which nobody does anything; for a loop."""
        for run in await self._parts.store.unsettled():
            if run.has_source or run.wish is not None:
                self.wake(run.id)

    async def forget(self) -> None:
        """Drop runs that ended long ago with their files, and end those whose source never came; for a loop."""
        now = utc_now()
        for run in await self._parts.store.unsettled():
            if not run.has_source and run.wish is None and now - run.since > SOURCE_WITHIN:
                await self._parts.change(run.id, _sourceless, event="run.wish", message="its source did not come")
                self.wake(run.id)
        for run_id in await self._parts.store.forget(ended_before=now - KEPT, limit=FORGOTTEN_AT_ONCE):
            await self._parts.files.forget(run_id)

    async def look_at_approvals(self) -> None:
        """See which agents of runs wait for agreement; for a loop."""
        if self._driving:
            self._parts.asking.see(await self._parts.agents.asking())

    async def agent_ended(self, agent: GovernedAgent) -> None:
        """End the run of an agent that somebody ended by itself."""
        run = await self._parts.store.of_agent(agent.id)
        if run is None or run.is_over or run.wish is not None or run.state not in UNDER_WAY:
            return
        await self._parts.change(
            run.id,
            lambda before: _wished(before, "its agent was ended"),
            event="run.wish",
            message="its agent was ended",
        )
        await self.interrupt(run.id)
        self.wake(run.id)

    async def close(self) -> None:
        """Stop; machines run on, and are found again."""
        self._closed = True
        tasks = list(self._driving.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drive(self, driver: Driver) -> None:
        try:
            with acting_as(f"run:{driver.run_id}"):
                await driver.drive()
        except BoroughError as error:
            log.warning("run.driver_failed", run=driver.run_id, error=error.message, code=error.code)
        except Exception:
            log.exception("run.driver_broken", run=driver.run_id)


def _wished(run: Run, reason: str) -> Run:
    return run if run.is_over else replace(run, wish=Wish.KILL, wish_reason=reason, wished_by="governance")


def _sourceless(run: Run) -> Run:
    if run.is_over or run.has_source:
        return run
    return replace(run, wish=Wish.CANCEL, wish_reason="its source did not come", wished_by="the server")

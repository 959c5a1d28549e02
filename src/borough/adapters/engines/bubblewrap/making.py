"""Boxes from order to end, for the daemon: their control groups, their network, their program, and how it ended."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from borough.adapters import process, procfs
from borough.adapters.engines.bubblewrap import cgroups, skeleton
from borough.adapters.engines.bubblewrap.cgroups import Amounts, Groups, Trees
from borough.adapters.engines.bubblewrap.errors import start_failed
from borough.adapters.engines.bubblewrap.keeping import Hello, KeeperClient
from borough.adapters.engines.bubblewrap.plans import BoxOrder, Prepared, prepare
from borough.adapters.engines.bubblewrap.settings import BoxSettings
from borough.adapters.process import OWNER, Marker, ProcessRef
from borough.core.errors import BoroughError
from borough.governance.lifecycle import Exit
from borough.governance.manifests import Resources

_GONE_WITHIN_S = 10.0
_NOBODY = ProcessRef(-1, -1)

_log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Running:
    """A box that is there."""

    box: str
    owner: str
    groups: Groups | None
    inner: ProcessRef = _NOBODY
    """Its first process, once it stands: with it everything in the box ends."""
    program: ProcessRef | None = None
    ended: asyncio.Future[int | None] = field(default_factory=asyncio.Future)
    """The program's wait status once nothing is left of the box; ``None`` when that is not known."""


class BoxMaker:
    """Makes boxes and knows those that are there. Use it from one event loop."""

    def __init__(self, settings: BoxSettings, keeper: KeeperClient) -> None:
        self.settings = settings
        self.keeper = keeper
        self.system = skeleton.system()
        self._running: dict[str, Running] = {}
        self._trees: Trees | OSError | None = None
        keeper.on_ended(self._ended)

    @property
    def trees(self) -> Trees | OSError:
        """Where control groups can be made, or why not."""
        if self._trees is None:
            try:
                self._trees = cgroups.find_trees() if self.settings.use_cgroups else OSError("switched off")
            except OSError as failure:
                self._trees = failure
        return self._trees

    async def hello(self) -> Hello:
        """Return who the keeper is; raises ``Unavailable`` (``start_failed``)."""
        return await self.keeper.hello()

    @asynccontextmanager
    async def opened(self, order: BoxOrder, stdio: Mapping[str, int]) -> AsyncIterator[Running]:
        """Set a box up, with nothing running in it yet unless the order says so; if the context is left by an error,
        nothing is left of it.

        Raises:
            Unavailable: it cannot be set up (``start_failed``).
        """
        running = await self._open(order, stdio)
        try:
            yield running
        except BaseException:
            await self.end(running)
            raise

    async def go(self, running: Running) -> ProcessRef:
        """Start the program, unless that was done at once; raises ``Unavailable`` (``start_failed``)."""
        if running.program is not None:
            return running.program
        try:
            told, _ = await self.keeper.ask("go", {"box": running.box})
        except OSError as failure:
            raise start_failed("the program", str(failure)) from failure
        running.program = ProcessRef(told["pid"], told["started_ticks"])
        return running.program

    async def kill(self, running: Running) -> None:
        """Tell the box to end; ``ended`` says when it has."""
        if running.groups is not None:
            running.groups.freeze(frozen=False)  # a frozen process does not even die
        try:
            told, _ = await self.keeper.ask("kill", {"box": running.box})
            if not told["known"]:
                self._ended(running.box, None)
        except (OSError, BoroughError):  # without a keeper the kernel ends boxes; what is left is looked for below
            await asyncio.to_thread(process.reap, Marker(OWNER, running.owner), grace_s=0.0)
            self._ended(running.box, None)

    async def end(self, running: Running) -> int | None:
        """End a box with all that is in it, prove it, and return the program's wait status."""
        if not running.ended.done():
            await self.kill(running)
        try:
            async with asyncio.timeout(_GONE_WITHIN_S):
                status = await asyncio.shield(running.ended)
        except TimeoutError:  # the keeper says nothing: see for ourselves
            await asyncio.to_thread(process.reap, Marker(OWNER, running.owner), grace_s=0.0)
            status = None
        await self.clear(running)
        return status

    async def clear(self, running: Running) -> None:
        """Prove that nothing is left of a box that has ended, and remove its control groups."""
        self._running.pop(running.box, None)
        if procfs.is_alive(running.inner):
            await asyncio.to_thread(process.reap, Marker(OWNER, running.owner), grace_s=0.0)
        if running.groups is not None:
            if killed := running.groups.out_of_memory_kills():
                _log.warning("box_out_of_memory", box=running.box, killed=killed)
            await asyncio.to_thread(running.groups.remove)

    def known(self, running: Running) -> None:
        """Take in a box of a daemon before us."""
        self._running[running.box] = running

    def groups_of(self, box: str) -> Groups | None:
        """Return the control groups of a box, where there are any."""
        return Groups(self.trees, box) if isinstance(self.trees, Trees) else None

    async def _open(self, order: BoxOrder, stdio: Mapping[str, int]) -> Running:
        hello = await self.hello()
        groups = self.groups_of(order.box)
        if groups is not None:
            try:
                groups.make(self._amounts(order.manifest.resources))
            except OSError as failure:
                raise start_failed("the box", f"its control groups cannot be made: {failure}") from failure
        prepared = prepare(
            order, self.settings, self.system, staging=hello.staging, stdio=stdio,
            groups=groups.members if groups else [], memory_group=groups is not None,
        )  # fmt: skip
        running = Running(box=order.box, owner=order.owner, groups=groups)
        self._running[order.box] = running
        try:
            await self._ask_to_open(running, prepared, at_once=order.at_once)
        except asyncio.CancelledError:
            await asyncio.shield(self.end(running))  # it may stand already, or will soon
            raise
        except (OSError, BoroughError) as failure:
            await self.clear(running)
            if isinstance(failure, BoroughError):
                # The keeper is gone or hangs, so nobody else sees to what it may have begun.
                await asyncio.to_thread(process.reap, Marker(OWNER, order.owner), grace_s=0.0)
                raise
            raise start_failed("the box", str(failure)) from failure
        finally:
            prepared.close()
        return running

    async def _ask_to_open(self, running: Running, prepared: Prepared, *, at_once: bool) -> None:
        told, _ = await self.keeper.ask("open", {"descriptors": prepared.names}, [prepared.plan, *prepared.descriptors])
        running.inner = ProcessRef(told["box_pid"], told["box_started_ticks"])
        if at_once:
            running.program = ProcessRef(told["pid"], told["started_ticks"])

    def _amounts(self, wanted: Resources) -> Amounts:
        limits = self.settings.limits
        return Amounts(
            memory_bytes=wanted.memory_limit_bytes or limits.memory_bytes,
            # Only the program and what it starts are members, and for a moment the process that brings it in.
            processes=(wanted.max_processes or limits.processes) + 1,
            cpu_weight=wanted.cpu_shares,
        )

    def _ended(self, box: str, status: int | None) -> None:
        """Take in an end; with an empty name the keeper's own, which is the end of all boxes."""
        ended = [running for name, running in self._running.items() if box in ("", name)]
        for running in ended:
            if not running.ended.done():
                running.ended.set_result(status if box else None)


def as_exit(status: int | None, *, asked_for: bool) -> Exit:
    """Turn a wait status (wait(2)) into how a process ended; an unknown one is an end by force."""
    if status is None:
        return Exit(signal=9, asked_for=asked_for)
    if os.WIFSIGNALED(status):
        return Exit(signal=os.WTERMSIG(status), asked_for=asked_for)
    return Exit(code=os.WEXITSTATUS(status), asked_for=asked_for)

"""Operations: long work that goes on without its caller, is written down, and is taken up again after a crash."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

import structlog

from borough.core.clock import utc_now
from borough.core.errors import BoroughError, NotFound, Unavailable
from borough.core.paging import MAX_LIMIT, PageRequest
from borough.fleet.operations import Operation, OperationKind, OperationState, concluded, progressed
from borough.fleet.ports.fleet import Fleet
from borough.fleet.vms import VmId

log = structlog.get_logger(__name__)

AT_ONCE = 8
"""How many machines one operation works on at a time."""

NOT_WRITTEN = "store_unavailable"
AGAIN_AFTER_S = 1.0
"""How long what cannot be written waits before it is tried again."""

Work = Callable[["Progress"], Awaitable[None]]


class Progress:
    """An operation under way: its steps, and what went wrong with which machine."""

    def __init__(self, operation: Operation, fleet: Fleet) -> None:
        self.operation = operation
        self._fleet = fleet
        self._writing = asyncio.Lock()
        self.doing: str | None = None
        self.ended: Operation | None = None
        """How the operation has ended, where that was written with its last step."""

    def tell(self, text: str) -> None:
        """Say what is done just now."""
        self.doing = text

    async def each(self, machines: Sequence[VmId], step: Callable[[VmId], Awaitable[object]]) -> None:
        """Do ``step`` for every machine, some at a time; what fails is noted and stops none of the others."""
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(vm_id: VmId) -> None:
            async with slots:
                try:
                    await step(vm_id)
                except BoroughError as error:
                    await self.step(vm_id, error=told_of(error))
                except Exception as error:
                    log.exception("operation.step_failed", operation=self.operation.id, vm=vm_id)
                    await self.step(vm_id, error=f"an internal error: {type(error).__name__}")
                else:
                    await self.step(vm_id)

        ended = await asyncio.gather(*(one(vm_id) for vm_id in machines), return_exceptions=True)
        for failure in ended:
            if failure is not None:  # nothing could be written; raised when no other step is under way any more
                raise failure

    async def recall(self, errors: Mapping[str, str]) -> None:
        """Begin with what is known already to have gone wrong, and with nothing else; what was not kept yet is now."""
        async with self._writing:
            news = errors != self.operation.errors
            self.operation = replace(self.operation, done=len(errors), errors=errors)
            if news:
                await self._fleet.save_operation(self.operation)

    async def warn(self, warnings: tuple[str, ...]) -> None:
        """Note what is to be known of the operation while it goes on."""
        async with self._writing:
            if warnings != self.operation.warnings:
                self.operation = replace(self.operation, warnings=warnings)
                await self._fleet.save_operation(self.operation)

    async def expect(self, total: int) -> None:
        """Note of how many steps the operation is to be."""
        async with self._writing:
            if total != self.operation.total:
                self.operation = replace(self.operation, total=total)
                await self._fleet.save_operation(self.operation)

    def ends_with(self, what: str) -> Operation | None:
        """Return the operation as it ends with the step that is about ``what``, if that is its last and all went well.

        Whoever asks writes it with what that step comes to; what then goes wrong is noted by ``step``.
        """
        done = progressed(self.operation, ok=True, what=what)
        self.ended = concluded(done, at=utc_now()) if done.done == done.total and not done.errors else None
        return self.ended

    async def step(self, what: str, *, error: str | None = None) -> None:
        """Note that one step is over; where the last went well, that is written with the end of the operation."""
        async with self._writing:
            self.operation = progressed(self.operation, ok=error is None, what=what, error=error)
            self.doing = None
            if error is not None:
                self.ended = None
            if error is not None or self.operation.done < self.operation.total:
                await self._fleet.save_operation(self.operation)


class OperationService:
    """Runs operations and lets callers wait for them."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._running: dict[str, asyncio.Task[Operation]] = {}
        self._progress: dict[str, Progress] = {}

    def start(self, operation: Operation, work: Work) -> None:
        """Begin ``work`` on an operation that is written down already; started twice it runs once."""
        if operation.id not in self._running:
            task = asyncio.create_task(self._run(operation, work), name=f"{operation.kind.value} {operation.subject}")
            self._running[operation.id] = task
            task.add_done_callback(lambda _: self._ended(operation.id))

    async def wait(self, operation_id: str, *, timeout_s: float) -> Operation:
        """Return the operation as soon as it is over, or as it is when the time is.

        Raises:
            NotFound: there is none of that id (``operation_not_found``).
        """
        task = self._running.get(operation_id)
        if task is not None and timeout_s > 0:
            await asyncio.wait({task}, timeout=timeout_s)
            if task.done() and not task.cancelled() and task.exception() is None:
                return task.result()
        found = await self._fleet.operation(operation_id)
        progress = self._progress.get(operation_id)
        return found if progress is None else replace(found, doing=progress.doing)

    async def find(self, operation_id: str) -> Operation | None:
        """Return an operation, or ``None`` where there is none of that id."""
        try:
            return await self._fleet.operation(operation_id)
        except NotFound:
            return None

    async def unfinished(self) -> Sequence[Operation]:
        """Return what was under way when the controller ended."""
        found: list[Operation] = []
        page = PageRequest(limit=MAX_LIMIT, after="")
        while True:
            some = await self._fleet.operations(running=True, page=page)
            found.extend(some.items)
            if some.after is None:
                return found
            page = PageRequest(limit=MAX_LIMIT, after=some.after)

    async def close(self) -> None:
        """Stop waiting for what runs; it is taken up again at the next start."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, operation_id: str) -> None:
        self._running.pop(operation_id, None)
        self._progress.pop(operation_id, None)

    async def _run(self, operation: Operation, work: Work) -> Operation:
        """Work until the end is written down; while nothing can be written, begin again, as after a crash."""
        while True:
            try:
                return await self._try(operation, work)
            except Unavailable as error:
                if error.code != NOT_WRITTEN:
                    raise
                log.warning("operation.not_written", operation=operation.id, error=error.message)
            await asyncio.sleep(AGAIN_AFTER_S)

    async def _try(self, operation: Operation, work: Work) -> Operation:
        progress = self._progress[operation.id] = Progress(operation, self._fleet)
        try:
            await work(progress)
        except BoroughError as error:
            if error.code == NOT_WRITTEN:
                raise
            await progress.step(operation.subject, error=told_of(error))
        except Exception as error:
            log.exception("operation.failed", operation=operation.id, kind=operation.kind.value)
            await progress.step(operation.subject, error=f"an internal error: {type(error).__name__}")
        if progress.ended is not None:
            return progress.ended
        ended = concluded(progress.operation, at=utc_now())
        await self._fleet.save_operation(ended)
        return ended


def new_operation(operation_id: str, kind: OperationKind, subject: str, *, total: int) -> Operation:
    """Return an operation that begins now."""
    return Operation(
        id=operation_id, kind=kind, subject=subject, state=OperationState.RUNNING, started_at=utc_now(), total=total
    )


def told_of(error: BoroughError) -> str:
    """Return what an operation keeps of an error: what happened and why."""
    return f"{error.message}: {error.reason}" if error.reason else error.message

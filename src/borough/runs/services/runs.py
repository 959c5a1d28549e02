"""Runs: admitted, looked at, ended, tried again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from borough.core.clock import utc_now
from borough.core.errors import Conflict, Invalid, NotFound
from borough.core.ids import AgentId, TaskId, derived_id
from borough.core.paging import Page, PageRequest
from borough.fleet.environments import check_labels
from borough.governance.manifests import Manifest
from borough.runs.admission import Admission, admit, allowed_engines, floor_of
from borough.runs.orders import RunOrder, SourceKind, check_order
from borough.runs.ports import RunFilter
from borough.runs.runs import Attempt, Run, RunAgent, Wish, asked_again
from borough.runs.services.agents import agent_id_of, read_manifest
from borough.runs.services.keeping import RunKeeper
from borough.runs.services.parts import RunParts
from borough.runs.states import TERMINAL, RunState

LOG_PART_BYTES: Final = 256 << 10
RESERVED_WITHIN_S: Final = 5.0
"""How long a caller is kept until a run has its place."""
CLEAN_WITHIN_S: Final = 10.0
"""How long one who asks for another try is kept until what is left of the last is away."""
_FOLLOW_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPart:
    """A piece of an attempt's log."""

    attempt: int
    offset: int
    data: bytes
    size: int


class RunService:
    """The use cases of runs."""

    def __init__(self, parts: RunParts, keeper: RunKeeper) -> None:
        self._parts = parts
        self._keeper = keeper

    # -- admission -----------------------------------------------------------------------------------------------------

    async def preview(self, order: RunOrder) -> Admission:
        """Return whether, where and under what a run would be, or why not; nothing is kept.

        Raises:
            Invalid: the order or its manifest is none.
            NotFound: no agent of that name is installed (``agent_not_installed``).
        """
        check_order(order)
        check_labels(order.labels)
        return await self._decide(order, read_manifest(await self._parts.agents.manifest_text(order)))

    async def create(self, order: RunOrder, *, run_id: str, by: str) -> Run:
        """Admit a run and begin it, or, where it waits for an upload, wait for that; the same one when repeated.

        It is returned with its place reserved: what its admission says by then, nobody else has.

        Raises:
            Invalid: the order or its manifest is none, or it is not admitted (``run_refused``, the admission in
                ``details``); its folder is none (``source_not_found``) or too large (``source_too_large``).
            NotFound: no agent of that name is installed (``agent_not_installed``).
        """
        known = await self._known(run_id)
        if known is not None:
            return known
        check_order(order)
        check_labels(order.labels)
        text = await self._parts.agents.manifest_text(order)
        manifest = read_manifest(text)
        admission = await self._decide(order, manifest)
        _check_admitted(admission)
        if order.source is not None and order.source.kind is SourceKind.FOLDER:
            await self._parts.files.keep_folder(run_id, order.source.path or "")
        now = utc_now()
        run = Run(
            id=run_id,
            order=order,
            manifest=text,
            agent=_agent_of(run_id, 1, manifest, text),
            admission=admission,
            task_id=TaskId(derived_id(run_id, "task", "1")),
            worker_id=AgentId(derived_id(run_id, "worker", "1")),
            created_by=by,
            created_at=now,
            since=now,
            has_source=order.source is None or order.source.kind is not SourceKind.UPLOAD,
        )
        run = await self._parts.store.add(run)
        return await self._reserved(run) if run.has_source else run

    async def _reserved(self, run: Run) -> Run:
        """Let a run begin, and return it as soon as it has its place, stands in line for one, or gets none."""
        settled = self._parts.reservations.expect(run.id)
        self._keeper.wake(run.id)
        with suppress(TimeoutError):  # it goes on, and its record will tell
            async with asyncio.timeout(RESERVED_WITHIN_S):
                await settled.wait()
        return await self._parts.store.get(run.id)

    async def upload(self, run_id: str, archive: AsyncIterator[bytes]) -> Run:
        """Take the archive that a run waits for, and begin it.

        Raises:
            NotFound: ``run_not_found``.
            Conflict: it waits for none (``no_source_wanted``).
            Invalid: it is no archive (``not_a_tar``), or too large (``source_too_large``).
        """
        run = await self._parts.store.get(run_id)
        if run.has_source or run.is_over or run.wish is not None:
            raise Conflict(
                f"{run.name} waits for no source",
                code="no_source_wanted",
                resolution="ask for a run with a source of kind upload, and send it once",
            )
        await self._parts.files.keep_source(run.id, archive)
        run = await self._parts.change(
            run.id, lambda before: replace(before, has_source=True), event="run.source", message="its source has come"
        )
        self._keeper.wake(run.id)
        return run

    # -- looking -------------------------------------------------------------------------------------------------------

    async def get(self, run_id: str) -> Run:
        """Return one; raises ``NotFound`` (``run_not_found``)."""
        return await self._parts.store.get(run_id)

    async def wait(self, run_id: str, *, timeout_s: float) -> Run:
        """Return a run as soon as it changes, or as it is when the time is over; one that has ended at once."""
        run = await self._parts.store.get(run_id)
        if run.is_over and run.is_clean:
            return run
        try:
            async with asyncio.timeout(timeout_s):
                await self._parts.store.comes(run.id, revision=run.revision)
        except TimeoutError:
            return run
        return await self._parts.store.get(run.id)

    async def find(self, wanted: RunFilter, page: PageRequest) -> Page[Run]:
        """Return runs, newest first."""
        return await self._parts.store.find(wanted, page)

    async def patch(self, run_id: str) -> bytes:
        """Return what a run changed; raises ``NotFound`` (``patch_not_found``) before it is collected."""
        run = await self._parts.store.get(run_id)
        if run.result is None:
            raise NotFound(
                f"{run.name} has no patch", code="patch_not_found", reason=f"it is {run.state.value}",
                resolution="wait until it is collected",
            )  # fmt: skip
        return await self._parts.files.patch(run.id)

    async def log(self, run_id: str, *, offset: int, attempt: int | None = None) -> LogPart:
        """Return a part of the log of an attempt, by default the last; it may be empty."""
        run = await self._parts.store.get(run_id)
        return await self._part(run, attempt, offset)

    async def follow(self, run_id: str, *, offset: int) -> AsyncIterator[LogPart]:
        """Yield the log as it grows, each attempt from its beginning, until the run has ended."""
        number: int | None = None
        while True:
            run = await self._parts.store.get(run_id)
            current = _last(run)
            if current is not None:
                if number is not None and current.number != number:
                    async for part in self._rest(run, number, offset):
                        yield part
                    offset = 0
                number = current.number
                async for part in self._rest(run, number, offset):
                    offset = part.offset + len(part.data)
                    yield part
            if run.is_over:
                return
            await self._parts.bells.wait(run.id, timeout_s=_FOLLOW_S)

    # -- acting --------------------------------------------------------------------------------------------------------

    async def cancel(self, run_id: str, *, reason: str, by: str) -> Run:
        """End a run that is no longer wanted; cancelling again changes nothing.

        Raises:
            NotFound: ``run_not_found``.
            Conflict: it is over (``run_over``).
        """
        run = await self._parts.store.get(run_id)
        if run.state is RunState.CANCELLED:
            return run
        check_not_over(run)
        run = await self.wish(run, Wish.CANCEL, reason=reason, by=by)
        await self._keeper.interrupt(run.id)
        self._keeper.wake(run.id)
        return run

    async def retry(self, run_id: str, *, by: str) -> Run:
        """Begin a run that is over once more: admitted anew, with a fresh machine, agent and task.

        Raises:
            NotFound: ``run_not_found``.
            Conflict: it is not over, or succeeded (``illegal_run_state``), or something of it is still left after
                ``CLEAN_WITHIN_S`` (``not_clean``).
            Invalid: it is not admitted (``run_refused``).
        """
        run = await self._cleared(await self._parts.store.get(run_id))
        manifest = read_manifest(run.manifest)
        admission = await self._decide(run.order, manifest)
        _check_admitted(admission)
        number = run.tries + 1

        def again(before: Run) -> Run:
            return asked_again(
                before,
                _agent_of(run.id, number, manifest, run.manifest),
                admission,
                task_id=TaskId(derived_id(run.id, "task", str(number))),
                worker_id=AgentId(derived_id(run.id, "worker", str(number))),
                at=utc_now(),
            )

        run = await self._parts.change(run.id, again, event="run.admitted", message=f"{by} asked for it again")
        self._keeper.wake(run.id)
        return run

    async def wish(self, run: Run, wish: Wish, *, reason: str, by: str) -> Run:
        """Write down what somebody asks of a run; a stronger wish replaces a weaker one."""
        rank = list(Wish).index

        def wished(before: Run) -> Run:
            if before.is_over or (before.wish is not None and rank(before.wish) >= rank(wish)):
                return before
            return replace(before, wish=wish, wish_reason=reason or None, wished_by=by)

        message = f"{by} asks for its end: {wish.value}"
        return await self._parts.change(run.id, wished, event="run.wish", message=message)

    # -- parts ---------------------------------------------------------------------------------------------------------

    async def _decide(self, order: RunOrder, manifest: Manifest) -> Admission:
        floor = floor_of(manifest.trust_level, order.isolation)
        engines, _ = allowed_engines(floor, order.engine)
        places = await self._parts.machines.places(order, manifest, engines, floor.rank)
        digests = await self._parts.machines.digests(order.image)
        return admit(order, manifest, places, digests=digests.get, measured_ms=self._parts.starts.measured())

    async def _cleared(self, run: Run) -> Run:
        """Return a run that is over as soon as nothing of it is left; one that is not over as it is."""
        try:
            async with asyncio.timeout(CLEAN_WITHIN_S):
                while run.is_over and not run.is_clean:
                    await self._parts.store.comes(run.id, revision=run.revision)
                    run = await self._parts.store.get(run.id)
        except TimeoutError:
            raise Conflict(
                f"{run.name} is being cleared up",
                code="not_clean",
                resolution="repeat the request in a moment",
                details={"retry_after_s": 1},
            ) from None
        return run

    async def _known(self, run_id: str) -> Run | None:
        try:
            return await self._parts.store.get(run_id)
        except NotFound:
            return None

    async def _rest(self, run: Run, attempt: int, offset: int) -> AsyncIterator[LogPart]:
        while (part := await self._part(run, attempt, offset)).data:
            yield part
            offset = part.offset + len(part.data)

    async def _part(self, run: Run, attempt: int | None, offset: int) -> LogPart:
        last = _last(run)
        number = attempt if attempt is not None else (0 if last is None else last.number)
        data = await self._parts.files.read_log(run.id, number, offset=offset, limit=LOG_PART_BYTES)
        size = await self._parts.files.log_size(run.id, number)
        return LogPart(attempt=number, offset=offset, data=data, size=size)


def _last(run: Run) -> Attempt | None:
    return run.attempt or (run.past[-1] if run.past else None)


def check_not_over(run: Run) -> None:
    """Let a run pass that has not ended; raises ``Conflict`` (``run_over``)."""
    if run.state in TERMINAL:
        raise Conflict(
            f"{run.name} is over",
            code="run_over",
            reason=f"it is {run.state.value}",
            resolution="there is nothing to end",
        )


def _agent_of(run_id: str, tries: int, manifest: Manifest, text: str) -> RunAgent:
    return RunAgent(
        id=agent_id_of(run_id, tries),
        name=manifest.name,
        trust_level=manifest.trust_level,
        manifest_digest=sha256(text.encode()).hexdigest(),
    )


def _check_admitted(admission: Admission) -> None:
    if admission.ok:
        return
    raise Invalid(
        "there is no place for this run",
        code="run_refused",
        reason=admission.why_not or None,
        resolution="ask for less, add a host or an engine, or lower what the manifest demands",
        details={
            "isolation": admission.isolation.value,
            "trust_level": admission.trust_level.value,
            "reasons": [f"{each.subject}: {each.reason}" for each in admission.reasons],
        },
    )

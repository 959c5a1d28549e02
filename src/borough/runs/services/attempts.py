"""One attempt at work: followed until its command has ended, then collected; and what makes it come to nothing."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from borough.core.clock import utc_now
from borough.core.errors import BoroughError
from borough.fleet.vms import VmState
from borough.runs import supervisor
from borough.runs.patches import changes, patch
from borough.runs.runs import Machine, Result, Run
from borough.runs.services.machines import is_gone
from borough.runs.services.parts import RunParts

LOST_AFTER_S: Final = 30.0
"""How long a machine that does not answer is believed to be there; one that its host knows to be gone is not."""
LOOK_AGAIN_S: Final = 0.3
OVERDUE_GRACE_S: Final = 30
SETTLES_S: Final = 0.02
SETTLES_WITHIN: Final = 50
"""How often is looked for what the script writes a moment later."""
MOST_ANSWER_BYTES: Final = 64 << 10
_TAIL_BYTES: Final = 64 << 10

OURS: Final = frozenset(
    {
        "disk_failed",
        "store_unavailable",
        "ledger_unavailable",
        "fleet_starting",
        "fleet_not_ready",
        "fleet_unreachable",
        "stale_run",
    }
)
"""Codes of what is wrong with this server and not with the attempt: it is tried again until it is mended."""


class AttemptFailed(Exception):
    """This attempt came to nothing; ``final``: the next would too."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.final = final


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptService:
    """What is done for an attempt whose command was started. Each step may be done again."""

    parts: RunParts

    async def follow(self, run: Run, machine: Machine) -> None:
        """Bring out what the command prints, until it has ended.

        Raises:
            AttemptFailed: the machine is gone, or the command is without having ended; or it took too long (final).
        """
        attempt = run.attempt
        began = (attempt.working_at if attempt else None) or run.since
        left = (began + timedelta(seconds=run.order.timeout_s + OVERDUE_GRACE_S) - utc_now()).total_seconds()
        try:
            async with asyncio.timeout(max(0.0, left)):
                state = await self._until_ended(run, machine)
        except TimeoutError:
            raise AttemptFailed(f"it took longer than {run.order.timeout_s} s", final=True) from None
        if state.is_lost or not state.is_started:
            raise AttemptFailed("its command is gone, and nobody knows how it ended")

    async def _until_ended(self, run: Run, machine: Machine) -> supervisor.Inside:
        unheard_since: float | None = None
        loop = asyncio.get_running_loop()
        while True:
            try:
                await self._bring_log(run, machine, follow=True)
                state = await self.parts.machines.state(machine)
            except BoroughError as error:
                unheard_since = loop.time() if unheard_since is None else unheard_since
                await self._check_there(machine, error, silent_s=loop.time() - unheard_since)
                await asyncio.sleep(LOOK_AGAIN_S)
                continue
            unheard_since = None
            if not state.alive:
                state = await self._settled(machine, state)
            if not state.alive or state.exit_code is not None:
                return state
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _settled(self, machine: Machine, state: supervisor.Inside) -> supervisor.Inside:
        """Return how the command ended; its exit code is written a moment after it is gone."""
        for _ in range(SETTLES_WITHIN):
            if state.exit_code is not None or state.alive:
                return state
            await asyncio.sleep(SETTLES_S)
            state = await self.parts.machines.state(machine)
        return state

    async def _check_there(self, machine: Machine, error: BoroughError, *, silent_s: float) -> None:
        """Let pass what may be over soon; raises ``AttemptFailed`` for what is not."""
        if error.code in OURS:
            return  # ours, not the machine's
        found = await self.parts.machines.find(machine)
        if found is not None and found.state is VmState.PAUSED:
            return  # somebody froze it, and it goes on when they let it
        if is_gone(error):
            raise AttemptFailed(f"its machine is gone: {told_of(error)}") from error
        if found is None or found.state in (VmState.FAILED, VmState.STOPPED, VmState.DELETING):
            why = "" if found is None else f" ({found.error or found.state.value})"
            raise AttemptFailed(f"its machine is gone{why}") from error
        if silent_s >= LOST_AFTER_S:
            raise AttemptFailed(f"its machine has not answered for {LOST_AFTER_S:g} s: {told_of(error)}") from error

    async def _bring_log(self, run: Run, machine: Machine, *, follow: bool) -> None:
        number = 0 if run.attempt is None else run.attempt.number
        size = await self.parts.files.log_size(run.id, number)
        argv = supervisor.follow_argv(size) if follow else supervisor.rest_argv(size)
        async with aclosing(self.parts.machines.prints(machine, argv)) as parts:
            async for part in parts:
                await self.parts.files.append_log(run.id, number, part)
                self.parts.bells.ring(run.id)

    async def collect(self, run: Run, machine: Machine) -> Result:
        """Bring out how the command ended, its answer and the files that it changed.

        Raises:
            AttemptFailed: it cannot be brought out.
        """
        try:
            state = await self.parts.machines.state(machine)
            await self._bring_log(run, machine, follow=False)
            if state.overdue:
                raise AttemptFailed(f"it took longer than {run.order.timeout_s} s", final=True)
            answer = await self.parts.machines.text(machine, supervisor.ANSWER_FILE, most=MOST_ANSWER_BYTES)
            await self.parts.files.keep_after(run.id, self.parts.machines.fetch(machine, supervisor.WORKSPACE))
        except BoroughError as error:
            if error.code in OURS:
                raise
            raise AttemptFailed(f"its result cannot be brought out: {told_of(error)}") from error
        before, after = await self.parts.files.differing(run.id)
        changed = changes(before, after)
        size = await self.parts.files.keep_patch(run.id, await asyncio.to_thread(patch, before, after))
        told = answer.strip() if answer is not None else await self._last_line(run)
        return Result(answer=told, exit_code=state.exit_code, files_changed=changed, patch_bytes=size)

    async def _last_line(self, run: Run) -> str:
        number = 0 if run.attempt is None else run.attempt.number
        size = await self.parts.files.log_size(run.id, number)
        tail = await self.parts.files.read_log(run.id, number, offset=max(0, size - _TAIL_BYTES), limit=_TAIL_BYTES)
        lines = [line.strip() for line in tail.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else ""


def told_of(error: BoroughError) -> str:
    """Return an error as the reason for the end of an attempt."""
    return f"{error.message}: {error.reason}" if error.reason else error.message

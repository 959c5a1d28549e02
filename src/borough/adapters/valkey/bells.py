"""What wakes those who wait for work, and those who wait for news of one agent (port ``Bell``).

Those who wait for work stand in one line. New work wakes as many of them as there is work, the longest waiting first.

A waiter enters the line *before* it looks for work, and looks again when rung. A waiter that was rung but does not take
the work (its client has gone, or the work is for another role) passes the ring on; a ring goes only to those who stood
in line when the work came, so that it ends even if nobody can take it.
"""

import asyncio
import contextlib
from collections import deque


class WaitingLine:
    """Waiters for work, first come, first served. Each place has a number that rises."""

    def __init__(self) -> None:
        self._waiting: deque[WorkBell] = deque()
        self._next_place = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, bell: "WorkBell") -> int:
        """Stand at the end of the line; return the place's number."""
        place = self._next_place
        self._next_place += 1
        self._waiting.append(bell)
        return place

    def leave(self, bell: "WorkBell") -> None:
        """Give up a place; one that was rung has none."""
        with contextlib.suppress(ValueError):  # rung meanwhile, and so out of the line
            self._waiting.remove(bell)

    def ring(self, *, before: int | None = None) -> None:
        """Ring for the one who waits longest, if its place is before ``before`` (default: everybody's is)."""
        limit = self._next_place if before is None else before
        if self._waiting and self._waiting[0].place < limit:
            self._waiting.popleft().ring(before=limit)

    def tick(self) -> None:
        """Ring for all who stand in line now, without anything to pass on."""
        waiting, self._waiting = self._waiting, deque()
        for bell in waiting:
            bell.ring(before=0)


class WorkBell:
    """A place in the line. Rung, it is out of the line until it waits again."""

    def __init__(self, line: WaitingLine, *, deadline: float) -> None:
        self._line = line
        self._deadline = deadline
        self._rung = asyncio.Event()
        self._left = False
        self._before = 0
        """Who may get this ring if we pass it on: those whose place is smaller."""
        self.place = line.enter(self)

    def ring(self, *, before: int) -> None:
        """Wake its owner, who may pass the ring on to places before ``before``."""
        self._before = before
        self._rung.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a ring; return whether it came in time. One that came before is taken at once.

        Afterwards the bell stands at the end of the line again, so that no ring is missed while its owner looks.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(min(self._deadline, loop.time() + timeout_s)):
                await self._rung.wait()
        except TimeoutError:
            if not self._rung.is_set():
                return False
        self._rung.clear()
        self.place = self._line.enter(self)
        return True

    def pass_on(self) -> None:
        """Ring for the next in line: this waiter was rung but does not take the work. A second time does nothing."""
        before, self._before = self._before, 0
        self._line.ring(before=before)

    def leave(self) -> None:
        """Give up the place; a ring that nobody looked at goes to the next in line."""
        if self._rung.is_set():  # rung, and nobody looked
            self.pass_on()
        else:
            self._line.leave(self)


class AgentBell:
    """Rings that come while nobody waits are kept, as one."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake its owner."""
        self._rung.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for a ring; return whether it came in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        return True

    def pass_on(self) -> None:
        """Do nothing: everybody who waits for this agent is rung anyway."""

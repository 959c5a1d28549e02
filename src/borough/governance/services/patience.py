"""Long polls: looking again until there is enough to answer with, the time is over, or nobody waits any more."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

LONGEST_WAIT_S = 60
_LOOK_EVERY_S = 0.1

Seen = TypeVar("Seen")
Gone = Callable[[], Awaitable[None]]
"""Returns when there is no point in waiting on."""


async def nobody_leaves() -> None:
    """Never return: for callers who wait to the end."""
    await asyncio.Event().wait()


async def patiently(
    look: Callable[[], Awaitable[Seen]], enough: Callable[[Seen], bool], *, wait_s: float, gone: Gone
) -> Seen:
    """Return what ``look`` sees as soon as that is ``enough``, or what it sees last."""
    seen = await look()
    if wait_s <= 0 or enough(seen):
        return seen
    clock = asyncio.get_running_loop()
    until = clock.time() + min(wait_s, LONGEST_WAIT_S)
    leaving = asyncio.ensure_future(gone())
    try:
        while not enough(seen) and not leaving.done() and (left := until - clock.time()) > 0:
            await asyncio.wait([leaving], timeout=min(left, _LOOK_EVERY_S))
            seen = await look()
    finally:
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    return seen

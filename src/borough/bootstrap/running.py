"""What all servers do alike: tell in one line why they do not start, and run their loops until they end."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from borough.controllers.loops import Controller, run
from borough.core.errors import BoroughError


def refusal(error: BoroughError) -> str:
    """Return the line that says why a program does not start, and what to do."""
    why = f": {error.reason}" if error.reason else ""
    way_out = f" ({error.resolution})" if error.resolution else ""
    return f"error: {error.message}{why}{way_out}\n"


@asynccontextmanager
async def running(controllers: Sequence[Controller]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run loops within this context. What else is to end with them may be added to the list."""
    tasks = [asyncio.create_task(run(controller), name=controller.name) for controller in controllers]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

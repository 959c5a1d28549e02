"""One at a time for each machine (or whatever else has an id), while others do not wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted_by: int = 0


class Turns:
    """Whose turn it is with what. What nobody waits for takes no memory."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}

    def is_taken(self, thing: str) -> bool:
        """Tell whether something is being done with a thing, or waits to be."""
        return thing in self._turns

    @asynccontextmanager
    async def of(self, thing: str) -> AsyncIterator[None]:
        """Be the only one who does something with a thing."""
        turn = self._turns.setdefault(thing, _Turn())
        turn.wanted_by += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.wanted_by -= 1
            if not turn.wanted_by:
                del self._turns[thing]

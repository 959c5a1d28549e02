"""One at a time for each machine, while other machines do not wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from borough.fleet.vms import VmId


@dataclass(slots=True)
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted_by: int = 0


class Turns:
    """Whose turn it is with which machine. What nobody waits for takes no memory."""

    def __init__(self) -> None:
        self._turns: dict[VmId, _Turn] = {}

    def is_taken(self, vm_id: VmId) -> bool:
        """Tell whether something is being done with a machine, or waits to be."""
        return vm_id in self._turns

    @asynccontextmanager
    async def of(self, vm_id: VmId) -> AsyncIterator[None]:
        """Be the only one who does something with a machine."""
        turn = self._turns.setdefault(vm_id, _Turn())
        turn.wanted_by += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.wanted_by -= 1
            if not turn.wanted_by:
                del self._turns[vm_id]

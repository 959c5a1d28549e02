"""On a host: machines are settled as soon as their processes have ended, and what changed unasked is told at once.

The host looks at every machine now and then in any case; this makes what it would see then known earlier.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import structlog

from borough.core.errors import BoroughError, Unavailable
from borough.fleet.ports.endings import Endings
from borough.fleet.vms import Vm, VmId, VmState

log = structlog.get_logger(__name__)

MOST_LISTENERS = 64
_RUNS = (VmState.RUNNING, VmState.PAUSED)


class HostChanges:
    """What changes on a host without being asked for. Use it from one event loop; ``close`` it before that ends."""

    def __init__(self, endings: Endings) -> None:
        self._endings = endings
        self._settle: Callable[[VmId], Awaitable[None]] | None = None
        self._settling: set[asyncio.Task[None]] = set()
        self._listeners: list[_Listener] = []

    def begin(self, settle: Callable[[VmId], Awaitable[None]]) -> None:
        """Have ``settle`` called with each machine whose processes have ended, from now on.

        That it waits until nothing else is being done with the machine is up to it: a stop ends processes too.
        """
        self._settle = settle

    async def watch(self, vm: Vm) -> None:
        """Have a machine's end noticed, if it runs."""
        if vm.state in _RUNS:
            await self._endings.watch(vm, self._ended)

    def tell(self, vm_id: VmId) -> None:
        """Tell whoever listens that a machine is not as it was last said to be."""
        for listener in self._listeners:
            listener.told[vm_id] = None
            listener.woken.set()

    async def changes(self) -> AsyncGenerator[VmId | None, None]:
        """Yield ``None``, then machines that changed without being asked to; one that did so often is told once.

        Raises:
            Unavailable: too many listen (``too_many_listeners``).
        """
        if len(self._listeners) >= MOST_LISTENERS:
            raise Unavailable(
                f"{len(self._listeners)} listen to this host already",
                code="too_many_listeners",
                reason="a host has one controller, seldom some more",
                resolution="see who is connected to it; its machines can be asked for at any time",
            )
        listener = _Listener()
        self._listeners.append(listener)
        try:
            yield None
            while True:
                await listener.woken.wait()
                listener.woken.clear()
                while listener.told:
                    yield listener.told.popitem()[0]
        finally:
            self._listeners.remove(listener)

    async def close(self) -> None:
        """Watch nothing any more; what is being settled is left to the next start."""
        self._endings.close()
        for task in self._settling:
            task.cancel()
        await asyncio.gather(*self._settling, return_exceptions=True)

    def _ended(self, vm_id: VmId) -> None:
        task = asyncio.create_task(self._settled(vm_id), name=f"settle {vm_id}")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settled(self, vm_id: VmId) -> None:
        if self._settle is None:
            return
        try:
            await self._settle(vm_id)
        except (BoroughError, OSError) as error:
            log.warning("vm.not_settled", vm=vm_id, error=str(error))


class _Listener:
    """Somebody who listens, and what was not heard yet: at most one word a machine."""

    def __init__(self) -> None:
        self.told: dict[VmId, None] = {}
        self.woken = asyncio.Event()

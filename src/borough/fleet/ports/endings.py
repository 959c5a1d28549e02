"""How a host learns at once that its machines have ended."""

from collections.abc import Callable
from typing import Protocol

from borough.fleet.vms import Vm, VmId


class Endings(Protocol):
    """Who watches machines. It knows neither why they ended nor whether they should have."""

    async def watch(self, vm: Vm, ended: Callable[[VmId], None]) -> None:
        """Have ``ended`` called once, from the event loop, when nothing of the machine runs any more.

        One that is watched already stays so. Of one whose engine cannot tell, and of more machines than can be watched
        at a time, nothing is told.
        """

    def close(self) -> None:
        """Watch nothing any more; ``ended`` is not called after that."""

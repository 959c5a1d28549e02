"""The port for what a host keeps of its machines."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from borough.fleet.resources import Resource
from borough.fleet.vms import Vm, VmId


class MachineStep(StrEnum):
    """Whether something is under way with a machine."""

    ACCEPTED = "accepted"
    """It is being made: what there is of it was begun after this was written, and is undone if it is not finished."""
    MOVING = "moving"
    """It is being stopped, started or paused, as is desired of it; after a crash that is gone on with."""
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineRow:
    """What a host keeps of a machine."""

    vm: Vm
    step: MachineStep
    private_network: bool = False


class MachineStore(Protocol):
    """The rows of a host's machines, with the leases of addresses and ports."""

    async def host_id(self, wanted: str | None, fresh: str) -> str:
        """Return the host's id: the one that is wanted, else the one kept, else ``fresh``; kept from then on."""

    async def booted(self, boot_id: str) -> bool:
        """Note under which boot of the host this is; tell whether it is another than the last that was noted."""

    async def accept(self, row: MachineRow, *, ports: tuple[int, ...]) -> MachineRow:
        """Write a new row, lending it an address and a port of the host for each of ``ports``, if it fits; the row of
        the same order is returned as it is.

        Raises:
            Conflict: another order (``vm_exists``), one whose end was asked for (``vm_deleted``), no room
                (``no_room``), nothing left to lend (``addresses_exhausted``, ``ports_exhausted``).
        """

    async def bar(self, vm_id: VmId) -> None:
        """Refuse new rows of this id from now on: its end was asked for, and no late order may bring it back."""

    async def update(self, row: MachineRow, *, revision: int) -> MachineRow:
        """Write a changed row; raises ``Conflict`` (``stale_vm``) when it changed meanwhile."""

    async def relend(self, row: MachineRow, *, but: frozenset[int]) -> MachineRow:
        """Lend a machine other ports of the host, none of ``but``, instead of those that it has; raises as ``accept``
        where nothing is left to lend, and as ``update``.
        """

    async def resume(self, row: MachineRow) -> MachineRow:
        """Promise processor and memory to a stopped machine again; raises ``Conflict`` (``no_room``)."""

    async def get(self, vm_id: VmId) -> MachineRow:
        """Return one; raises ``NotFound`` (``vm_not_found``)."""

    async def all(self) -> Sequence[MachineRow]:
        """Return every one, oldest first."""

    async def resource(self) -> Resource:
        """Return what the host has and what of it is promised."""

    async def forget(self, vm_id: VmId) -> None:
        """Drop the row and what was lent with it: the last step, when nothing of the machine is left."""

"""Machines of which no state can be kept: what the port ``EngineDriver`` says of snapshots is the same for all."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from borough.adapters.engines.entered import ShellMachines
from borough.adapters.engines.refusals import no_snapshot, not_cloned, not_possible
from borough.fleet.engines import Engine
from borough.fleet.ports.engines import MachineOrder, SnapshotInfo
from borough.fleet.vms import VmId


class SnapshotlessMachines(ShellMachines):
    """Machines without snapshots; one that is not there is told first."""

    _why_no_snapshots: str

    @property
    @abstractmethod
    def engine(self) -> Engine:
        """Return which one it is."""

    async def snapshot(self, vm_id: VmId, name: str) -> SnapshotInfo:
        """Raise ``Conflict`` (``not_possible``)."""
        await self._kept(vm_id)
        raise not_possible(
            f"a machine of {self.engine.value} cannot keep {name}",
            reason=self._why_no_snapshots,
            resolution="copy what is needed out of it",
        )

    async def snapshots(self, vm_id: VmId) -> Sequence[SnapshotInfo]:
        """Return none."""
        await self._kept(vm_id)
        return []

    async def restore(self, order: MachineOrder, name: str) -> None:
        """Raise ``NotFound`` (``snapshot_not_found``)."""
        await self._kept(order.vm_id)
        raise no_snapshot(order.vm_id, name)

    async def delete_snapshot(self, vm_id: VmId, name: str) -> None:
        """Do nothing: there is none."""
        del name
        await self._kept(vm_id)

    async def copy_snapshot(self, vm_id: VmId, name: str, target: Path) -> None:
        """Raise ``Conflict`` (``not_possible``)."""
        del target
        await self._kept(vm_id)
        raise not_cloned(vm_id, name, reason=self._why_no_snapshots)

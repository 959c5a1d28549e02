"""Machines are started, frozen and cleared: their folder, their control groups, their warden."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from borough.adapters import process
from borough.adapters.engines.bubblewrap import members
from borough.adapters.engines.bubblewrap.cgroups import Amounts, Groups, Trees, find_trees
from borough.adapters.engines.bubblewrap_machines import plans
from borough.adapters.engines.bubblewrap_machines.grouping import Ahead, told_of
from borough.adapters.engines.bubblewrap_machines.host import nameservers
from borough.adapters.engines.bubblewrap_machines.launching import Launcher
from borough.adapters.engines.bubblewrap_machines.plans import MachineSettings, ahead_of, group_of, owner_of
from borough.adapters.engines.bubblewrap_machines.state import Lives, MachineState
from borough.adapters.images.host_root import shown_in
from borough.adapters.process import OWNER, Marker
from borough.adapters.storage.bases import LOWER
from borough.core.errors import Conflict, Unavailable
from borough.fleet.images import ImageForm
from borough.fleet.ports.engines import MachineOrder
from borough.fleet.vms import VmId

_ORDER, _NURSERY_LOG = "machine.json", "nursery.log"


class MachineMaker:
    """Makes them. Use it from one event loop."""

    def __init__(self, settings: MachineSettings, *, bridged: bool) -> None:
        """``bridged``: machines get links on the host's bridge, and no network of their own."""
        self.settings = settings
        settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.trees: Trees | str = "switched off"
        """Where control groups can be made, or why not."""
        if settings.use_cgroups:
            try:
                self.trees = find_trees()
            except OSError as error:
                self.trees = str(error)
        self._launcher = Launcher(
            marker=settings.marker,
            log=settings.state / _NURSERY_LOG,
            ahead=Ahead(
                trees=self.trees if isinstance(self.trees, Trees) else None,
                prefix=ahead_of(settings.marker),
                network=not bridged,
                staging=settings.staging,
                fixed=settings.fixed,
            ),
        )

    async def start(self, order: MachineOrder) -> None:
        """Start a machine from its disk, after whatever is left of a run before.

        Raises:
            Conflict: its image is no root folder (``not_possible``).
            Unavailable: it cannot be started (``engine_failed``); nothing of it runs.
        """
        if order.disk is None or order.disk.form is not ImageForm.FOLDER:
            raise Conflict(
                f"{order.spec.image} is no root folder",
                code="not_possible",
                reason="this engine starts machines from a root folder or its archive",
                resolution="choose such an image, or another engine",
            )
        try:
            said = await self._begun(order, order.disk.path) or await self._begun(order, order.disk.path)
        except OSError as failure:
            await self.clear(order.vm_id)
            raise failed(str(failure)) from failure
        if "error" in said or not said:
            await self.clear(order.vm_id)
            raise failed(str(said.get("error", f"its warden ended without a word, see {self.settings.state}")))

    async def _begun(self, order: MachineOrder, disk: Path) -> Mapping[str, object]:
        """Have a warden begun and return what it says; nothing, if it was ended first, as with where it comes from.

        Raises:
            OSError: there is no place or no nursery for it.
        """
        state = self.state(order.vm_id)
        if state.exists:
            await self.clear(order.vm_id)  # of a run before, whatever it left
        state.make()
        _note(state.folder / _ORDER, {"disk": str(disk)})
        told = plans.plan(
            self.settings,
            order,
            groups=self._grouping(order),
            nameservers=nameservers(),
            shown=shown_in((disk / LOWER).resolve(), self.settings.own_roots),
        )
        return await asyncio.to_thread(self._launcher.launch, state, told)

    async def clear(self, vm_id: VmId) -> None:
        """Prove that no process of the machine is left, and remove its control groups."""
        marker = Marker(OWNER, owner_of(self.settings.marker, vm_id))
        await asyncio.to_thread(process.reap, marker, grace_s=0.0)
        groups = self.groups(vm_id)
        if groups is not None:
            await asyncio.to_thread(groups.remove)

    async def freeze(self, state: MachineState, lives: Lives, *, frozen: bool) -> None:
        """Stop every process of a machine where it is, or let them go on."""
        groups = self.groups(state.vm_id)
        if frozen:
            state.note_pause(paused=True)
        if groups is None or not await asyncio.to_thread(groups.freeze, frozen=frozen):
            await asyncio.to_thread(members.stop if frozen else members.let_go_on, lives.inner)
        if not frozen:
            state.note_pause(paused=False)

    def groups(self, vm_id: VmId) -> Groups | None:
        """Return a machine's control groups, where there are any."""
        if not isinstance(self.trees, Trees):
            return None
        return Groups(self.trees, group_of(self.settings.marker, vm_id))

    def state(self, vm_id: VmId) -> MachineState:
        """Return what is kept of a machine."""
        return MachineState(self.settings.state, vm_id, marker=self.settings.marker)

    def disk(self, state: MachineState) -> Path:
        """Return the disk that a machine was started from last."""
        return Path(json.loads((state.folder / _ORDER).read_text())["disk"])

    def _grouping(self, order: MachineOrder) -> Mapping[str, object] | None:
        if not isinstance(self.trees, Trees):
            return None
        size = order.spec.size
        amounts = Amounts(
            memory_bytes=size.mem_mib << 20, processes=self.settings.processes, cpu_weight=100, cpus=size.cpu
        )
        return {**told_of(self.trees), "name": group_of(self.settings.marker, order.vm_id), "amounts": asdict(amounts)}


def _note(path: Path, content: Mapping[str, str]) -> None:
    path.write_text(json.dumps(content))


def failed(said: str) -> Unavailable:
    """Return the failure in which bubblewrap said something."""
    return Unavailable(
        f"bubblewrap could not do it: {said}",
        code="engine_failed",
        resolution="see what the image lacks, and whether this host allows user namespaces",
    )

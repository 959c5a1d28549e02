"""What is kept of an engine's machines on this host: a private folder for each, and the process that belongs to it.

The folder is there before the process and is removed after it. Whose a process is says its own command line, on which
each engine has our marker and the machine's id, and the user under whom it runs.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from borough.adapters import procfs
from borough.adapters.process import ProcessRef
from borough.core.errors import NotFound
from borough.fleet.images import ImageForm
from borough.fleet.ports.disks import Disk
from borough.fleet.ports.engines import MachineOrder
from borough.fleet.ports.network import Link
from borough.fleet.vms import VmId, check_vm_id

CONSOLE_LOG, SEED = "console.log", "seed.img"
_ORDER = "machine.json"

FindProcesses = Callable[[], Mapping[VmId, ProcessRef]]
"""Returns every process of our machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What was noted of a machine when it was started last."""

    disk: Disk
    link: Link


class Places:
    """The machines of one host daemon."""

    def __init__(self, folder: Path, *, processes: FindProcesses) -> None:
        self._folder = folder
        self._processes = processes
        self._known: Mapping[VmId, ProcessRef] = {}
        """Where to look first; what counts is what is found there."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def folder(self, vm_id: VmId) -> Path:
        """Return a machine's own folder."""
        return self._folder / check_vm_id(vm_id)

    def console(self, vm_id: VmId) -> Path:
        """Return where a machine's console is written."""
        return self.folder(vm_id) / CONSOLE_LOG

    def note(self, order: MachineOrder, disk: Disk) -> None:
        """Keep what is needed to find and enter the machine later, before it is there."""
        folder = self.folder(order.vm_id)
        folder.mkdir(mode=0o700, exist_ok=True)
        told = {"disk": _disk_told(disk), "link": _link_told(order.link)}
        draft = folder / f".{_ORDER}"
        draft.write_text(json.dumps(told, indent=1))
        draft.replace(folder / _ORDER)

    def find(self, vm_id: VmId) -> Kept | None:
        """Return what was noted, or ``None``."""
        try:
            told = json.loads((self.folder(vm_id) / _ORDER).read_text())
        except FileNotFoundError:
            return None
        return Kept(disk=_disk(told["disk"]), link=_link(told["link"]))

    def kept(self, vm_id: VmId) -> Kept:
        """Return what was noted; raises ``NotFound`` (``vm_not_found``)."""
        kept = self.find(vm_id)
        if kept is None:
            raise NotFound(f"there is no machine {vm_id} here", code="vm_not_found", resolution="list the machines")
        return kept

    def process(self, vm_id: VmId) -> ProcessRef | None:
        """Return the machine's process, proven to be it, or ``None``."""
        known = self._known.get(vm_id)
        if known is not None and procfs.is_alive(known):
            return known
        self._known = self._processes()
        return self._known.get(vm_id)

    def all(self) -> list[VmId]:
        """Return every machine of which there is a folder or a process."""
        self._known = self._processes()
        return sorted({*self._known, *filter(None, map(_vm_id, os.listdir(self._folder)))})  # noqa: PTH208 - names only

    def remove(self, vm_id: VmId) -> None:
        """Remove all that is kept of a machine."""
        folder = self.folder(vm_id)
        if folder.exists():
            shutil.rmtree(folder)


def processes_by_name(
    name_of: Callable[[Sequence[str]], VmId | None], *, users: Callable[[VmId], set[int]]
) -> Mapping[VmId, ProcessRef]:
    """Return the processes whose command line names a machine of ours, run by a user who may.

    ``name_of`` returns the machine that a command line names; anybody may call a program by any name, so ``users`` are
    those that count.
    """
    found = {}
    for ref, arguments in procfs.command_lines():
        vm_id = name_of(arguments)
        if vm_id is not None and _user(ref) in users(vm_id) and procfs.is_alive(ref):
            found[vm_id] = ref
    return found


def machine_in(name: str, prefix: str) -> VmId | None:
    """Return the machine whose id follows ``prefix``."""
    return _vm_id(name.removeprefix(prefix)) if name.startswith(prefix) else None


def _user(ref: ProcessRef) -> int | None:
    try:
        return os.stat(f"/proc/{ref.pid}").st_uid  # noqa: PTH116 - a process, not a path of ours
    except FileNotFoundError:
        return None


def _vm_id(name: str) -> VmId | None:
    try:
        return check_vm_id(name)
    except ValueError:
        return None  # nothing that we made


def _disk_told(disk: Disk) -> Mapping[str, object]:
    return {"path": str(disk.path), "form": disk.form.value, "enforced": disk.enforced}


def _disk(told: Mapping[str, str]) -> Disk:
    return Disk(path=Path(told["path"]), form=ImageForm(told["form"]), enforced=bool(told["enforced"]))


def _link_told(link: Link) -> Mapping[str, object]:
    return {
        "address": str(link.address),
        "network": str(link.network),
        "gateway": str(link.gateway),
        "mac": link.mac,
        "device": link.device,
        "port_map": {str(guest): host for guest, host in link.port_map.items()},
    }


def _link(told: Mapping[str, object]) -> Link:
    ports = told["port_map"]
    device = told["device"]
    return Link(
        address=IPv4Address(str(told["address"])),
        network=IPv4Network(str(told["network"])),
        gateway=IPv4Address(str(told["gateway"])),
        mac=str(told["mac"]),
        device=None if device is None else str(device),
        port_map={int(guest): int(host) for guest, host in ports.items()} if isinstance(ports, dict) else {},
    )

"""Where a machine's warden keeps its things, and what is known of the machine by them."""

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from borough.adapters import procfs
from borough.adapters.engines.bubblewrap_machines.plans import owner_of
from borough.adapters.engines.bubblewrap_machines.warden import ENDED, RUNNING
from borough.adapters.process import OWNER, ProcessRef
from borough.fleet.ports.engines import Finding, Found
from borough.fleet.vms import VmId, check_vm_id

CONSOLE = "console.log"
_PAUSED = "paused"
_GONE = "its processes are gone, and did not say how they ended"


@dataclass(frozen=True, slots=True)
class Lives:
    """The processes of a machine that runs."""

    warden: ProcessRef
    inner: ProcessRef
    """The first process in its box."""


class MachineState:
    """The folder of one machine."""

    def __init__(self, root: Path, vm_id: VmId, *, marker: str) -> None:
        self.vm_id = vm_id
        self.folder = root / check_vm_id(vm_id)
        self._owner = owner_of(marker, vm_id)

    @property
    def exists(self) -> bool:
        """Tell whether the machine was ever made."""
        return self.folder.is_dir()

    def make(self) -> None:
        """Make the folder, and forget how the machine ended before."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in (RUNNING, ENDED, _PAUSED):
            (self.folder / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder; none there is no error."""
        with contextlib.suppress(FileNotFoundError):  # nothing is left to remove
            shutil.rmtree(self.folder)

    def lives(self) -> Lives | None:
        """Return the machine's processes, proven to be its: by start time, and by the mark that they carry."""
        told = self._read(RUNNING)
        warden = self._warden(told)
        if told is None or warden is None:
            return None
        inner = ProcessRef(*told["inner"])
        return Lives(warden, inner) if procfs.is_alive(inner) else None

    def warden(self) -> ProcessRef | None:
        """Return the machine's warden while it lives: it is the last to go, and has said by then how the box ended."""
        return self._warden(self._read(RUNNING))

    def obeys(self, order: str) -> bool:
        """Tell whether the machine's warden knows an order; those of earlier versions did not tell."""
        return order in (self._read(RUNNING) or {}).get("orders", ())

    def beginning(self, what: Mapping[str, object]) -> Mapping[str, object]:
        """Return the order that begins something inside, in the words of the machine's warden: one that an earlier
        version has started ends at a word that it does not know, and the machine with it.
        """
        if self.obeys("start"):
            return {"do": "start", **what}
        return {"do": "files", "what": what["files"], **what} if "files" in what else {"do": "exec", **what}

    def find(self) -> Finding:
        """Return how the machine is."""
        if not self.exists:
            return Finding(found=Found.ABSENT)
        if self.lives() is not None:
            return Finding(found=Found.PAUSED if self.is_paused else Found.RUNNING)
        ended = self._read(ENDED)
        if ended is None:
            # What never ran did not end either: it was not started since its folder was made anew.
            began = (self.folder / RUNNING).exists()
            return Finding(found=Found.GONE, detail=_GONE) if began else Finding(found=Found.STOPPED)
        return _ending(ended)

    @property
    def is_paused(self) -> bool:
        """Tell whether the machine was frozen."""
        return (self.folder / _PAUSED).exists()

    def note_pause(self, *, paused: bool) -> None:
        """Note that the machine is frozen, before it is, or that it goes on, after it does."""
        if paused:
            (self.folder / _PAUSED).touch()
        else:
            (self.folder / _PAUSED).unlink(missing_ok=True)

    def _warden(self, told: Mapping[str, Any] | None) -> ProcessRef | None:
        if told is None:
            return None
        warden = ProcessRef(*told["warden"])
        return warden if procfs.is_alive(warden) and procfs.marker_value(warden, OWNER) == self._owner else None

    def _read(self, name: str) -> Mapping[str, Any] | None:
        try:
            told: Mapping[str, Any] = json.loads((self.folder / name).read_text())
        except FileNotFoundError:
            return None
        return told


def id_of(name: str) -> VmId | None:
    """Return the machine whose folder or mark has this name, ``None`` when it is nothing that we made."""
    try:
        return check_vm_id(name)
    except ValueError:
        return None


def _ending(ended: Mapping[str, Any]) -> Finding:
    status, failure = ended["status"], ended.get("failure")
    if failure is not None:
        return Finding(found=Found.FAILED, detail=f"its command could not be started: {failure}")
    if ended["asked"] or status == 0:
        return Finding(found=Found.STOPPED, detail=None if ended["asked"] else "its command has ended")
    if status is None:
        return Finding(found=Found.FAILED, detail="it was ended by force")
    if os.WIFSIGNALED(status):
        return Finding(found=Found.FAILED, detail=f"its command ended by {signal.Signals(os.WTERMSIG(status)).name}")
    return Finding(found=Found.FAILED, detail=f"its command ended with exit status {os.WEXITSTATUS(status)}")

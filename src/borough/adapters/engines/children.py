"""Machines' processes that this process started, so that it collects their exit status.

They may outlive any driver, and this process too: then the system's first process collects it, and how they ended is
not known here.
"""

import signal

from borough.adapters.process import Child
from borough.fleet.vms import VmId

_children: dict[Child, VmId | None] = {}
"""By process: its machine, ``None`` where its end was asked for."""
_killed: dict[VmId, int] = {}


def keep(child: Child, vm_id: VmId) -> None:
    """Remember a machine's process until it has ended."""
    _children[child] = vm_id
    _killed.pop(vm_id, None)


def let_go(vm_id: VmId) -> None:
    """Note that a machine's process is about to be ended because somebody asked for that."""
    _killed.pop(vm_id, None)
    for child in [child for child, of in _children.items() if of == vm_id]:
        _children[child] = None


def collect() -> None:
    """Collect those that have ended."""
    for child, vm_id in list(_children.items()):
        status = child.poll()
        if status is None:
            continue
        del _children[child]
        if status < 0 and vm_id is not None:
            _killed[vm_id] = -status


def killed_by(vm_id: VmId) -> str | None:
    """Return the signal that ended a machine's last process unasked, ``None`` when it was none, or nobody knows."""
    number = _killed.get(vm_id)
    if number is None:
        return None
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"

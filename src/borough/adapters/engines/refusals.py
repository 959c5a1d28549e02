"""What engines say no to, and how."""

from borough.core.errors import Conflict, NotFound, Unavailable
from borough.fleet.ports.engines import MachineOrder


def failed(what: str) -> Unavailable:
    """Return the error for an engine that did not do what it was asked."""
    return Unavailable(what, code="engine_failed", resolution="read its words; the machine's console may tell more")


def not_running(vm_id: str) -> Conflict:
    """Return the error for a machine that would have to run."""
    return Conflict(f"{vm_id} does not run", code="vm_not_running", resolution="start it first")


def not_possible(what: str, *, reason: str, resolution: str) -> Conflict:
    """Return the error for what an engine does not have."""
    return Conflict(what, code="not_possible", reason=reason, resolution=resolution)


def no_snapshot(vm_id: str, name: str) -> NotFound:
    """Return the error for a state that is not kept."""
    return NotFound(
        f"{vm_id} has no snapshot {name[:80]!r}", code="snapshot_not_found", resolution="list its snapshots"
    )


def not_cloned(vm_id: str, name: str, *, reason: str) -> Conflict:
    """Return the error for a snapshot from which no other machine can be made."""
    return not_possible(
        f"no machine can be made from the snapshot {name[:80]} of {vm_id}",
        reason=reason,
        resolution="make it from its image, and bring the files over",
    )


def not_closed(why: str) -> Conflict:
    """Return the error for a container whose way out could not be closed."""
    return not_possible(
        "this container could not be kept from calling out",
        reason=why,
        resolution="place the machine on another host, or choose another engine",
    )


def check_runs_its_own(order: MachineOrder) -> None:
    """Raise ``Conflict`` (``not_possible``) for an order that says what is to run inside."""
    if order.spec.command or order.spec.env:
        raise not_possible(
            "this machine cannot be told what to run",
            reason="a machine with a kernel of its own runs what its image starts",
            resolution="leave command and environment out, and run commands once it is up",
        )


def wrong_image(order: MachineOrder, what: str) -> Conflict:
    """Return the error for an image from which this engine cannot start; ``what`` it starts from."""
    return not_possible(
        f"{order.spec.image} cannot be started by {order.spec.engine.value}",
        reason=f"this engine starts machines from {what}",
        resolution="choose such an image, or another engine",
    )

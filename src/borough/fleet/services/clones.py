"""Machines made from snapshots of others: what of the first is theirs, and what is not.

A clone has image, engine, size, ports, command and everything that confines it from the machine that it is made from,
and the disk as it was. It has an id, an address, ports of the host and an SSH identity of its own. Variables and keys
were given to the first by somebody who need not know of the clone: they are not carried over, the caller gives new
ones. What the first wrote onto its disk is on the clone's, whatever it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from borough.core.errors import Invalid, NotFound
from borough.fleet.names import check_name
from borough.fleet.ports.fleet import Fleet
from borough.fleet.services.guests import GuestService
from borough.fleet.vms import Origin, Vm, VmId, VmSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A snapshot of one machine, or of every machine of an environment under one name."""

    snapshot: str
    vm_id: VmId | None = None
    env_id: str | None = None
    copies: int = 1
    """How many of each machine."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    ssh_keys: tuple[str, ...] = ()


class CloneService:
    """Knows what clones are made of."""

    def __init__(self, fleet: Fleet, guests: GuestService) -> None:
        self._fleet = fleet
        self._guests = guests

    async def specs(self, source: Source) -> tuple[VmSpec, ...]:
        """Return the machines that are to be made from ``source``, once their hosts have said that it is there.

        Raises:
            Invalid: neither a machine nor an environment is named, or both (``invalid_source``).
            NotFound: ``vm_not_found``, ``env_not_found``, or a machine has no such snapshot (``snapshot_not_found``).
            Unavailable: a host does not answer.
        """
        check_name(source.snapshot, what="a snapshot")
        machines = await self._machines(source)
        for vm in machines:
            if source.snapshot not in [each.name for each in await self._guests.snapshots(vm.id)]:
                raise NotFound(
                    f"{vm.id} has no snapshot {source.snapshot}",
                    code="snapshot_not_found",
                    resolution=f"list its snapshots: tt vm snapshots {vm.id}",
                )
        return tuple(_cloned(vm, source) for vm in machines for _ in range(source.copies))

    async def _machines(self, source: Source) -> tuple[Vm, ...]:
        if source.vm_id is not None and source.env_id is None:
            return (await self._fleet.vm(source.vm_id),)
        if source.env_id is not None and source.vm_id is None:
            return (await self._fleet.environment(source.env_id))[1]
        raise Invalid(
            "a source is either a machine or an environment",
            code="invalid_source",
            resolution='send {"vm_id": "1b9d6bcd-bbf", "snapshot": "first"}, or env_id instead',
        )


def _cloned(vm: Vm, source: Source) -> VmSpec:
    origin = Origin(vm_id=vm.id, snapshot=source.snapshot, host_id=vm.host_id)
    return replace(vm.spec, origin=origin, env=dict(source.env), ssh_keys=source.ssh_keys)

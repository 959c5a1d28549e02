"""The hosts of the fleet: registered, heard, taken out of service, forgotten."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

import apsw

from borough.adapters.sql.fleet.base import FleetRows
from borough.adapters.sql.fleet.picture import Change
from borough.adapters.sql.fleet.rows import places, rows, stored
from borough.adapters.sql.fleet.values import HOST, host_row
from borough.core.errors import Conflict, NotFound
from borough.fleet.hosts import Host, HostReport, HostState
from borough.fleet.trust import HostTrust
from borough.fleet.vms import Vm

_ADD_HOST: Final = f"INSERT INTO hosts ({HOST}) VALUES ({places(HOST)})"
_SET_TRUST: Final = "INSERT OR REPLACE INTO host_trust (host_id, addr, credential, fingerprint) VALUES (?, ?, ?, ?)"
_SET_HOST: Final = f"UPDATE hosts SET ({HOST}) = ({places(HOST)}) WHERE id = ?"


class HostRows(FleetRows):
    """The part of the port ``Fleet`` that is about hosts."""

    async def add_host(self, host: Host, *, most: int, trust: HostTrust | None = None, moved: bool = False) -> Host:
        """Register a host, or the same one at the same address again, or, ``moved``, at whatever address it was.

        Keep what was agreed on with it.
        """

        def step(connection: apsw.Connection) -> Host:
            known = self._writing.hosts.get(host.id)
            others = self._writing.hosts.values()
            _check_binding(host, [other for other in others if other.id != host.id] if moved else others)
            if known is None and len(self._writing.hosts) >= most:
                raise Conflict(
                    f"there are {most} hosts already",
                    code="too_many_hosts",
                    resolution="remove one that is not needed, or raise the limit in the settings",
                )
            added = replace(
                host,
                registered_at=stored(host.registered_at),
                heard_at=stored(host.heard_at),
                labels=host.labels if known is None else known.labels,
                cordoned=known is not None and known.cordoned,
                draining=known is not None and known.draining,
                revision=0 if known is None else known.revision + 1,
            )
            if known is None:
                rows(connection, _ADD_HOST, host_row(added))
            else:
                rows(connection, _SET_HOST, (*host_row(added), host.id))
            if trust is not None:
                rows(connection, _SET_TRUST, (host.id, host.addr, trust.credential, trust.fingerprint))
            self._mirror.change(Change("host", host.id, added))
            told = "host.registered", f"{host.id} at {host.addr} is registered"
            self._tell(connection, told, {"host_id": host.id})
            return self._writing.shown(host.id)

        return await self._write(step)

    async def host(self, host_id: str) -> Host:
        """Return one."""
        if host_id not in self._reading.hosts:
            raise _no_host(host_id)
        return self._reading.shown(host_id)

    async def hosts(self) -> tuple[Host, ...]:
        """Return all with what is promised counted, oldest first."""
        return tuple(self._reading.shown(host_id) for host_id in self._reading.hosts)

    async def heard(self, host_id: str, report: HostReport | None, *, at: datetime, error: str | None) -> Host:
        """Note what a host said, or (``None``) that it did not answer."""

        def heard(host: Host) -> Host:
            if report is None:
                return replace(host, error=error)
            return replace(host, report=report, heard_at=stored(at), state=HostState.ONLINE, error=error)

        return await self._change_host(host_id, heard)

    async def set_host_state(self, host_id: str, state: HostState, *, at: datetime) -> Host:
        """Change whether a host counts as there."""
        return await self._change_host(host_id, lambda host: replace(host, state=state), at=at)

    async def change_host(
        self, host_id: str, *, cordoned: bool | None, draining: bool | None, labels: Mapping[str, str] | None
    ) -> Host:
        """Change what people say of a host."""

        def changed(host: Host) -> Host:
            return replace(
                host,
                cordoned=host.cordoned if cordoned is None else cordoned,
                draining=host.draining if draining is None else draining,
                labels=host.labels if labels is None else dict(labels),
            )

        return await self._change_host(host_id, changed)

    async def remove_host(self, host_id: str, *, with_machines: bool) -> tuple[Vm, ...]:
        """Forget a host, and with it its machines where that is wanted."""

        def step(connection: apsw.Connection) -> tuple[Vm, ...]:
            if host_id not in self._writing.hosts:
                return ()
            machines = self._writing.machines_of_host(host_id)
            if machines and not with_machines:
                raise Conflict(
                    f"{host_id} has {len(machines)} machines",
                    code="host_in_use",
                    resolution="delete their environments first; a host that is dead is detached",
                )
            for vm in machines:
                self._drop_vm(connection, vm, "vm.detached", f"{vm.id} is forgotten with its host {host_id}")
            rows(connection, "DELETE FROM hosts WHERE id = ?", (host_id,))
            rows(connection, "DELETE FROM host_trust WHERE host_id = ?", (host_id,))
            self._mirror.change(Change("host", host_id, None))
            self._tell(connection, ("host.removed", f"{host_id} is removed"), {"host_id": host_id})
            return machines

        return await self._write(step)

    async def _change_host(self, host_id: str, change: Callable[[Host], Host], *, at: datetime | None = None) -> Host:
        def step(connection: apsw.Connection) -> Host:
            known = self._writing.hosts.get(host_id)
            if known is None:
                raise _no_host(host_id)
            changed = change(known)
            if changed != known:
                changed = replace(changed, revision=known.revision + 1)
                rows(connection, _SET_HOST, (*host_row(changed), host_id))
                self._mirror.change(Change("host", host_id, changed))
                told = _told_of_host(known, changed)
                if told is not None:
                    self._tell(connection, told, {"host_id": host_id}, at)
            return self._writing.shown(host_id)

        return await self._write(step)


def _check_binding(host: Host, known: Iterable[Host]) -> None:
    """Refuse a host that would take another's place."""
    for other in known:
        if (other.id == host.id) != (other.addr == host.addr):
            raise Conflict(
                f"{host.id} at {host.addr} does not go with {other.id} at {other.addr}, which is registered",
                code="host_bound",
                reason="an id belongs to one address, and an address to one host",
                resolution=f"remove or detach {other.id} first, or give the host an id of its own (--host-id)",
            )


def _told_of_host(before: Host, now: Host) -> tuple[str, str] | None:
    if before.state is not now.state:
        return f"host.{now.state.value}", f"{now.id} is {now.state.value}" + (f": {now.error}" if now.error else "")
    said = (before.cordoned, before.draining, before.labels)
    if said != (now.cordoned, now.draining, now.labels):
        how = "draining" if now.draining else "cordoned" if now.cordoned else "in service"
        return "host.changed", f"{now.id} is {how}"
    return None


def _no_host(host_id: str) -> NotFound:
    return NotFound(f"there is no host {host_id[:80]!r}", code="host_not_found", resolution="list them: tt host list")

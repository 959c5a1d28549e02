"""A host's rows: its machines with the addresses and ports that are lent to them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from ipaddress import IPv4Address
from typing import Any, Final, Self

import apsw
import msgspec

from borough.adapters.sql.engine import Database
from borough.adapters.sql.fleet.rows import Row, moment, ms, places, row, rows, stored, text
from borough.adapters.sql.mirror import Mirror
from borough.core.clock import from_ms, to_ms, utc_now
from borough.core.errors import Conflict, NotFound
from borough.fleet.addresses import PortRange, Subnet, lend_address, lend_ports
from borough.fleet.ports.machine_store import MachineRow, MachineStep
from borough.fleet.resources import Holding, Resource, Size, promised
from borough.fleet.vms import Vm, VmId, VmSpec, VmState

BARRED_FOR: Final = timedelta(days=7)
"""How long an order may be on its way and still not bring a machine back."""
_COLUMNS: Final = (
    "id, env_id, spec, state, desired, created_at_ms, since_ms, ip, error, disk_enforced, revision, step, "
    "private_network"
)
_ADD: Final = f"INSERT INTO machines ({_COLUMNS}) VALUES ({places(_COLUMNS)}) RETURNING number"
_SET: Final = f"UPDATE machines SET ({_COLUMNS}) = ({places(_COLUMNS)}) WHERE id = ?"
_SPEC: Final = msgspec.json.Decoder(VmSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLimits:
    """What a host has to promise and to lend."""

    resource: Resource
    most_vms: int
    subnet: Subnet = field(default_factory=Subnet)
    ports: PortRange = field(default_factory=PortRange)


@dataclass(frozen=True, slots=True)
class _Numbered:
    number: int
    row: MachineRow


_Change = tuple[VmId, _Numbered | None]


class _Machines:
    """The rows in memory, oldest first, and what is lent."""

    def __init__(self) -> None:
        self.rows: dict[VmId, _Numbered] = {}

    def apply(self, change: _Change) -> _Change:
        vm_id, now = change
        before = self.rows.get(vm_id)
        if now is None:
            self.rows.pop(vm_id, None)
        else:
            self.rows[vm_id] = now
        return vm_id, before

    def in_order(self) -> tuple[MachineRow, ...]:
        return tuple(each.row for each in sorted(self.rows.values(), key=lambda each: each.number))

    def addresses(self) -> set[IPv4Address]:
        return {each.row.vm.ip for each in self.rows.values() if each.row.vm.ip is not None}

    def ports(self) -> set[int]:
        return {port for each in self.rows.values() for port in each.row.vm.port_map.values()}


class SqlMachineStore:
    """The port ``MachineStore``."""

    def __init__(self, database: Database, limits: HostLimits, *, port_is_free: Callable[[int], bool]) -> None:
        self._database = database
        self._limits = limits
        self._port_is_free = port_is_free
        self._host_id = ""
        self._mirror: Mirror[_Machines, _Change] = Mirror(self._load)

    @classmethod
    async def open(cls, database: Database, limits: HostLimits, *, port_is_free: Callable[[int], bool]) -> Self:
        """Return the store of a file that was opened with ``tables.HOST``.

        ``port_is_free`` tells whether nothing of the host listens on a port; it is asked within the step that lends it.
        """
        store = cls(database, limits, port_is_free=port_is_free)
        await store._mirror.open(database)
        return store

    async def host_id(self, wanted: str | None, fresh: str) -> str:
        """Return the host's id: the one that is wanted, else the one kept, else ``fresh``; kept from then on."""

        def step(connection: apsw.Connection) -> str:
            kept = _fact(connection, "host_id")
            chosen = wanted or kept or fresh
            _note(connection, "host_id", chosen)
            return chosen

        self._host_id = await self._database.write(step)
        return self._host_id

    async def booted(self, boot_id: str) -> bool:
        """Note under which boot of the host this is; tell whether it is another than the last that was noted."""

        def step(connection: apsw.Connection) -> bool:
            before = _fact(connection, "boot_id")
            _note(connection, "boot_id", boot_id)
            return before is not None and before != boot_id

        return await self._database.write(step)

    async def accept(self, row: MachineRow, *, ports: tuple[int, ...]) -> MachineRow:
        """Write a new row, lending it an address and ports, if it fits; the same order's row is returned as it is."""

        def step(connection: apsw.Connection) -> MachineRow:
            known = self._mirror.writing.rows.get(row.vm.id)
            if known is not None:
                return self._placed(_same_order(known.row, row))
            if _is_barred(connection, row.vm.id):
                raise Conflict(
                    f"{row.vm.id} was deleted",
                    code="vm_deleted",
                    reason="an order for it came after its end was asked for",
                    resolution="create another machine",
                )
            return self._placed(self._add(connection, row, ports))

        return await self._database.write(step)

    async def bar(self, vm_id: VmId) -> None:
        """Refuse new rows of this id from now on."""

        def step(connection: apsw.Connection) -> None:
            now = utc_now()
            rows(connection, "DELETE FROM barred WHERE at_ms < ?", (to_ms(now - BARRED_FOR),))
            rows(connection, "INSERT OR REPLACE INTO barred VALUES (?, ?)", (vm_id, to_ms(now)))

        await self._database.write(step)

    async def update(self, row: MachineRow, *, revision: int) -> MachineRow:
        """Write a changed row."""

        def step(connection: apsw.Connection) -> MachineRow:
            return self._placed(self._set(connection, row, revision))

        return await self._database.write(step)

    async def relend(self, row: MachineRow, *, but: frozenset[int]) -> MachineRow:
        """Lend a machine other ports of the host."""

        def step(connection: apsw.Connection) -> MachineRow:
            lent = self._mirror.writing.ports() | but
            mapping = self._lend(row.vm.spec.ports, lent)
            rows(connection, "DELETE FROM lent_ports WHERE machine_id = ?", (row.vm.id,))
            _note_ports(connection, row.vm.id, mapping)
            return self._placed(self._set(connection, row, row.vm.revision, mapping))

        return await self._database.write(step)

    async def resume(self, row: MachineRow) -> MachineRow:
        """Promise processor and memory to a stopped machine again."""

        def step(connection: apsw.Connection) -> MachineRow:
            if not row.vm.runs:
                self._check_room(row.vm.spec.size, but=row.vm.id)
            starting = replace(row.vm, desired=VmState.RUNNING)
            return self._placed(self._set(connection, replace(row, vm=starting), row.vm.revision))

        return await self._database.write(step)

    async def get(self, vm_id: VmId) -> MachineRow:
        """Return one."""
        found = self._mirror.reading.rows.get(vm_id)
        if found is None:
            raise _no_machine(vm_id)
        return self._placed(found.row)

    async def all(self) -> Sequence[MachineRow]:
        """Return every one, oldest first."""
        return [self._placed(each) for each in self._mirror.reading.in_order()]

    async def forget(self, vm_id: VmId) -> None:
        """Drop the row and what was lent with it."""

        def step(connection: apsw.Connection) -> None:
            rows(connection, "DELETE FROM machines WHERE id = ?", (vm_id,))  # its ports go with it
            if vm_id in self._mirror.writing.rows:
                self._mirror.change((vm_id, None))

        await self._database.write(step)

    async def resource(self) -> Resource:
        """Return what the host has and what of it is promised."""
        return self._promised(self._mirror.reading)

    def _add(self, connection: apsw.Connection, row: MachineRow, guests: tuple[int, ...]) -> MachineRow:
        machines = self._mirror.writing
        if len(machines.rows) >= self._limits.most_vms:
            raise Conflict(
                f"this host has {self._limits.most_vms} machines, the most that it takes",
                code="no_room",
                resolution="delete environments that are not needed",
            )
        self._check_room(row.vm.spec.size, but=None)
        address = lend_address(self._limits.subnet, machines.addresses())
        mapping = self._lend(guests, machines.ports())
        vm = replace(
            row.vm,
            created_at=stored(row.vm.created_at),
            since=None if row.vm.since is None else stored(row.vm.since),
            ip=address,
            port_map=mapping,
            revision=0,
        )
        added = replace(row, vm=vm)
        number = rows(connection, _ADD, _values(added))[0][0]
        _note_ports(connection, vm.id, mapping)
        self._mirror.change((vm.id, _Numbered(number, added)))
        return added

    def _lend(self, guests: tuple[int, ...], lent: set[int]) -> Mapping[int, int]:
        """Lend the lowest ports that are neither lent nor used by something else on the host."""
        taken = set(lent)
        while True:
            mapping = lend_ports(guests, taken, ports=self._limits.ports)
            busy = {port for port in mapping.values() if not self._port_is_free(port)}
            if not busy:
                return mapping
            taken |= busy

    def _set(
        self, connection: apsw.Connection, row: MachineRow, revision: int, ports: Mapping[int, int] | None = None
    ) -> MachineRow:
        known = self._mirror.writing.rows.get(row.vm.id)
        if known is None:
            raise _no_machine(row.vm.id)
        if known.row.vm.revision != revision:
            raise Conflict(
                f"{row.vm.id} has changed meanwhile",
                code="stale_vm",
                resolution="read it again and repeat the request",
            )
        lent = known.row.vm
        vm = replace(
            row.vm,
            created_at=lent.created_at,
            since=None if row.vm.since is None else stored(row.vm.since),
            ip=lent.ip,
            port_map=lent.port_map if ports is None else ports,
            revision=revision + 1,
        )
        changed = replace(row, vm=vm)
        rows(connection, _SET, (*_values(changed), vm.id))
        self._mirror.change((vm.id, _Numbered(known.number, changed)))
        return changed

    def _check_room(self, size: Size, *, but: VmId | None) -> None:
        left = self._promised(self._mirror.writing, but=but)
        if not left.fits(size):
            raise Conflict(
                "this host has no room for the machine",
                code="no_room",
                reason=f"free: cpu {left.cpu_free}, mem {left.mem_free} MiB, disk {left.disk_free} MiB; "
                f"needed: cpu {size.cpu}, mem {size.mem_mib} MiB, disk {size.disk_mib} MiB",
                resolution="stop or delete machines, or place it on another host",
            )

    def _promised(self, machines: _Machines, *, but: VmId | None = None) -> Resource:
        holdings = (
            Holding(size=each.row.vm.spec.size, running=each.row.vm.runs)
            for vm_id, each in machines.rows.items()
            if vm_id != but
        )
        return promised(self._limits.resource, holdings)

    def _placed(self, row: MachineRow) -> MachineRow:
        """Return a row with this host's id, which is a fact of the host and not of the row."""
        return row if row.vm.host_id == self._host_id else replace(row, vm=replace(row.vm, host_id=self._host_id))

    def _load(self, connection: apsw.Connection) -> _Machines:
        lent: dict[str, dict[int, int]] = {}
        for machine_id, guest, host in rows(
            connection, "SELECT machine_id, guest_port, host_port FROM lent_ports ORDER BY host_port"
        ):
            lent.setdefault(machine_id, {})[guest] = host
        machines = _Machines()
        for number, *found in rows(connection, f"SELECT number, {_COLUMNS} FROM machines ORDER BY number"):
            read = _machine(tuple(found), lent.get(found[0], {}))
            machines.apply((read.vm.id, _Numbered(number, read)))
        return machines


def _values(row: MachineRow) -> Row:
    vm = row.vm
    return (
        vm.id,
        vm.env_id,
        text(vm.spec),
        vm.state,
        vm.desired,
        to_ms(vm.created_at),
        ms(vm.since),
        str(vm.ip),
        vm.error,
        int(vm.disk_enforced),
        vm.revision,
        row.step,
        int(row.private_network),
    )


def _machine(found: tuple[Any, ...], ports: Mapping[int, int]) -> MachineRow:
    id_, env_id, spec, state, desired, created_at_ms, since_ms, ip, error, enforced, revision, step, private = found
    vm = Vm(
        id=VmId(id_),
        env_id=env_id,
        host_id="",
        spec=_SPEC.decode(spec),
        state=VmState(state),
        desired=VmState(desired),
        created_at=from_ms(created_at_ms),
        since=moment(since_ms),
        ip=IPv4Address(ip),
        port_map=ports,
        error=error,
        disk_enforced=bool(enforced),
        revision=revision,
    )
    # Earlier releases told more steps of the making apart, without any difference between them.
    known = MachineStep(step) if step in set(MachineStep) else MachineStep.ACCEPTED
    return MachineRow(vm=vm, step=known, private_network=bool(private))


def _note_ports(connection: apsw.Connection, vm_id: VmId, mapping: Mapping[int, int]) -> None:
    connection.executemany(
        "INSERT INTO lent_ports (host_port, machine_id, guest_port) VALUES (?, ?, ?)",
        [(host, vm_id, guest) for guest, host in mapping.items()],
    )


def _same_order(known: MachineRow, row: MachineRow) -> MachineRow:
    before = (known.vm.env_id, known.vm.spec, known.private_network)
    if before != (row.vm.env_id, row.vm.spec, row.private_network):
        raise Conflict(
            f"there is a machine {row.vm.id} already, of another order",
            code="vm_exists",
            resolution="give every machine an id of its own",
        )
    return known


def _is_barred(connection: apsw.Connection, vm_id: str) -> bool:
    return row(connection, "SELECT 1 FROM barred WHERE id = ?", (vm_id,)) is not None


def _fact(connection: apsw.Connection, name: str) -> str | None:
    found = row(connection, "SELECT value FROM facts WHERE name = ?", (name,))
    return None if found is None else str(found[0])


def _note(connection: apsw.Connection, name: str, value: str) -> None:
    rows(connection, "INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


def _no_machine(vm_id: str) -> NotFound:
    return NotFound(f"there is no machine {vm_id[:80]!r} on this host", code="vm_not_found", resolution="list them")

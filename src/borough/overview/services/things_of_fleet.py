"""Machines, environments and hosts, found and explained."""

from collections.abc import Sequence
from typing import Final

from borough.core.events import Event
from borough.core.paging import MAX_LIMIT
from borough.fleet.environments import Environment
from borough.fleet.hosts import Host
from borough.fleet.orders import EnvDetail, detail_of
from borough.fleet.ports.fleet import Fleet
from borough.fleet.vms import Vm, VmId
from borough.overview.explaining import (
    MOST_HISTORY,
    Explanation,
    Happened,
    Match,
    Related,
    matched,
    why_of_environment,
    why_of_host,
    why_of_vm,
)
from borough.overview.occurrences import Context, Subject
from borough.overview.services.needs_of_fleet import OpenedFleet

LOOKED_AT: Final = 2_000
"""How many of the newest events are looked at for a thing's history."""


class VmThings:
    """Machines, by id."""

    context: Final = Context.FLEET
    kind: Final = "vm"

    def __init__(self, fleet: OpenedFleet) -> None:
        self._fleet = fleet

    async def find(self, word: str, *, limit: int) -> Sequence[Match]:
        """Return machines that a word may mean."""
        _, _, vms = await (await self._fleet()).beginning_with(word, limit=limit)
        return [Match(subject=_vm(vm), state=vm.state.value, exact=vm.id == word.casefold()) for vm in vms]

    async def explain(self, subject: Subject) -> Explanation:
        """Return why a machine is as it is."""
        fleet = await self._fleet()
        vm = await fleet.vm(VmId(subject.id))
        why, steps = why_of_vm(vm)
        return Explanation(
            subject=_vm(vm),
            state=vm.state.value,
            why=why,
            since=vm.since or vm.created_at,
            next=steps,
            related=(
                Related(subject=Subject(kind="env", id=vm.env_id, name=vm.env_id), relation="it belongs to it"),
                Related(subject=Subject(kind="host", id=vm.host_id, name=vm.host_id), relation="it is there"),
            ),
            history=await _history(fleet, "vm_id", vm.id),
        )


class EnvThings:
    """Environments, by their names."""

    context: Final = Context.FLEET
    kind: Final = "env"

    def __init__(self, fleet: OpenedFleet) -> None:
        self._fleet = fleet

    async def find(self, word: str, *, limit: int) -> Sequence[Match]:
        """Return environments that a word may mean."""
        fleet = await self._fleet()
        _, environments, _ = await fleet.beginning_with(word, limit=limit)
        states = [(await _stands(fleet, each.id)).state.value for each in environments]
        return [
            Match(subject=_env(each), state=state, exact=each.id.casefold() == word.casefold())
            for each, state in zip(environments, states, strict=True)
        ]

    async def explain(self, subject: Subject) -> Explanation:
        """Return why an environment is as it is."""
        fleet = await self._fleet()
        detail = await _stands(fleet, subject.id)
        why, steps = why_of_environment(detail.environment, detail.state, detail.vms)
        history = await _history(fleet, "env_id", subject.id)
        return Explanation(
            subject=_env(detail.environment),
            state=detail.state.value,
            why=why,
            since=history[-1].at if history else detail.environment.created_at,
            next=steps,
            related=tuple(Related(subject=_vm(vm), relation=f"its machine, {vm.state.value}") for vm in detail.vms),
            history=history,
        )


class HostThings:
    """Hosts, by id and address."""

    context: Final = Context.FLEET
    kind: Final = "host"

    def __init__(self, fleet: OpenedFleet) -> None:
        self._fleet = fleet

    async def find(self, word: str, *, limit: int) -> Sequence[Match]:
        """Return hosts that a word may mean."""
        hosts = await (await self._fleet()).hosts()
        found = [match for host in hosts if (match := matched(word, _host(host), host.state.value)) is not None]
        return sorted(found, key=lambda match: not match.exact)[:limit]

    async def explain(self, subject: Subject) -> Explanation:
        """Return why a host is as it is."""
        fleet = await self._fleet()
        host = await fleet.host(subject.id)
        why, steps = why_of_host(host)
        history = await _history(fleet, "host_id", host.id, only="host.")
        vms = (await fleet.vms_of(host.id))[:MOST_HISTORY]
        return Explanation(
            subject=_host(host),
            state=host.state.value,
            why=why,
            since=history[-1].at if history else host.registered_at,
            next=steps,
            related=tuple(Related(subject=_vm(vm), relation=f"on it, {vm.state.value}") for vm in vms),
            history=history,
        )


async def _stands(fleet: Fleet, env_id: str) -> EnvDetail:
    environment, vms = await fleet.environment(env_id)
    return detail_of(environment, vms, await fleet.waiting())


async def _history(fleet: Fleet, name: str, id_: str, *, only: str = "") -> tuple[Happened, ...]:
    _, newest = await fleet.event_bounds()
    found: list[Event] = []
    after = str(max(0, int(newest) - LOOKED_AT))
    while page := await fleet.events(after=after, limit=MAX_LIMIT):
        found += [each for each in page if each.subjects.get(name) == id_ and each.type.startswith(only)]
        after = page[-1].id
    return tuple(Happened(at=each.at, what=each.message, by=each.subjects.get("by")) for each in found[-MOST_HISTORY:])


def _vm(vm: Vm) -> Subject:
    return Subject(kind="vm", id=vm.id, name=vm.env_id)


def _env(environment: Environment) -> Subject:
    return Subject(kind="env", id=environment.id, name=environment.id)


def _host(host: Host) -> Subject:
    return Subject(kind="host", id=host.id, name=host.addr)

"""The fleet's loops: hosts are heard, ends of environments come, what is being deleted is tried again."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from borough.controllers.loops import Controller
from borough.core.clock import utc_now
from borough.core.errors import BoroughError
from borough.core.ids import derived_id
from borough.fleet.environments import WARN_BEFORE_EXPIRY, Due, Environment, due
from borough.fleet.ports.fleet import Fleet
from borough.fleet.services.environments import EnvironmentService
from borough.fleet.services.hosts import HostService
from borough.fleet.services.listening import ListeningService
from borough.fleet.services.machines import MachineService
from borough.fleet.vms import Vm, VmState

log = structlog.get_logger(__name__)

HEARTBEAT_EVERY = timedelta(seconds=15)
CLOCK_EVERY = timedelta(seconds=5)
RETRY_EVERY = timedelta(seconds=15)
RECONCILE_EVERY = timedelta(seconds=15)


def controllers(
    fleet: Fleet,
    hosts: HostService,
    environments: EnvironmentService,
    machines: MachineService,
    listening: ListeningService,
    *,
    heartbeat: timedelta = HEARTBEAT_EVERY,
    clock: timedelta = CLOCK_EVERY,
    retry: timedelta = RETRY_EVERY,
) -> tuple[Controller, ...]:
    """Return the controller's loops."""
    clock_work = _Ends(fleet, environments, machines)
    return (
        Controller(name="hear hosts", every=heartbeat, act=hosts.listen),
        Controller(name="listen to hosts", every=clock, act=listening.keep),
        Controller(name="watch the clock", every=clock, act=clock_work.watch_the_clock),
        Controller(name="delete again", every=retry, act=clock_work.delete_again, first_after=retry),
    )


def host_controllers(
    reconcile: Callable[[], Awaitable[None]], *, every: timedelta = RECONCILE_EVERY
) -> tuple[Controller, ...]:
    """Return the host daemon's loops."""
    return (Controller(name="reconcile", every=every, act=reconcile, first_after=every),)


class _Ends:
    """Brings environments and machines to the end that they are due."""

    def __init__(self, fleet: Fleet, environments: EnvironmentService, machines: MachineService) -> None:
        self._fleet = fleet
        self._environments = environments
        self._machines = machines

    async def watch_the_clock(self) -> None:
        """Warn of what ends soon, and end what is over; one environment's trouble is not the others'."""
        for environment in await self._fleet.expiring(before=utc_now() + WARN_BEFORE_EXPIRY):
            try:
                await self._due(environment)
            except BoroughError as error:
                log.warning("env.not_ended", env=environment.id, error=error.message)

    async def delete_again(self) -> None:
        """Try again what could not be deleted."""
        for environment in await self._fleet.expiring(before=utc_now()):
            if environment.deleting:
                await self._delete_again(environment)
        for host in await self._fleet.hosts():
            for vm in await self._fleet.vms_of(host.id):
                if vm.state is VmState.DELETING and not self._machines.is_busy(vm.id):
                    await self._delete_machine(vm)

    async def _due(self, environment: Environment) -> None:
        match due(environment, at=utc_now(), warned=False):
            case Due.EXPIRE:
                log.info("env.expired", env=environment.id, on_expiry=environment.on_expiry.value)
                ended = derived_id("expire", environment.id, environment.expires_at.isoformat())
                await self._environments.expire(environment, operation_id=ended)
            case Due.WARN:
                await self._fleet.warn(environment)

    async def _delete_again(self, environment: Environment) -> None:
        """Try under one id, so that there is one operation however often it takes."""
        again = derived_id("delete again", environment.id, environment.created_at.isoformat())
        try:
            await self._environments.delete(environment.id, operation_id=again)
        except BoroughError as error:
            log.warning("env.not_deleted", env=environment.id, error=error.message)

    async def _delete_machine(self, vm: Vm) -> None:
        try:
            await self._machines.delete(vm.id)
        except BoroughError as error:
            log.info("vm.not_deleted_yet", vm=vm.id, error=error.message)

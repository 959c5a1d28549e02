"""The fleet of this very process, as runs use it."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from borough.core.errors import NotFound
from borough.fleet.engines import Engine, Offer
from borough.fleet.environments import EnvState
from borough.fleet.orders import EnvDetail, EnvOrder, Ids
from borough.fleet.placement import NotPlaced, Plan
from borough.fleet.ports.engines import Chunk, ExecOrder
from borough.fleet.ports.fleet import Fleet
from borough.fleet.services.environments import EnvironmentService
from borough.fleet.services.guests import GuestService
from borough.fleet.services.machines import MachineService
from borough.fleet.services.operations import OperationService
from borough.fleet.services.waiting import WaitingService
from borough.fleet.vms import Action, Vm, VmId
from borough.runs.ports import Made, Reserved


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnHouse:
    """The port ``House`` over the fleet's services."""

    fleet: Fleet
    environments: EnvironmentService
    waiting: WaitingService
    operations: OperationService
    machines: MachineService
    guests: GuestService

    async def preview(self, order: EnvOrder) -> Plan | NotPlaced:
        """Return where machines would go, or why not and where later."""
        return await self.environments.preview(order)

    async def offers(self, engine: Engine) -> Sequence[Offer]:
        """Return what each host that has an engine can do with it."""
        hosts = await self.fleet.hosts()
        return [offer for host in hosts for offer in host.report.offers if offer.engine is engine]

    async def digests(self, image: str) -> Mapping[str, str]:
        """Return for each host the digest of an image as it is there."""
        hosts = await self.fleet.hosts()
        return {
            host.id: host.report.image_digests[image] for host in hosts if image in host.report.image_digests
        }  # fmt: skip

    async def make(self, order: EnvOrder, ids: Ids, *, reserved: Reserved) -> Made:
        """Make an environment; raises as ``WaitingService.create``."""
        begun = await self.environments.create(order, ids)
        await reserved(_made(begun))
        return _made(await self.waiting.made(begun, ids))

    async def detail(self, env_id: str) -> Made:
        """Return an environment."""
        return _made(await self.environments.detail(env_id))

    async def settles(self, operation_id: str, *, timeout_s: float) -> None:
        """Return when an operation is over, or the time is."""
        try:
            await self.operations.wait(operation_id, timeout_s=timeout_s)
        except NotFound:  # it is over, and forgotten
            return

    async def machine(self, vm_id: VmId) -> Vm:
        """Return a machine."""
        return await self.machines.get(vm_id)

    async def act(self, vm_id: VmId, action: Action) -> Vm:
        """Start or pause a machine."""
        return await self.machines.act(vm_id, action)

    async def delete(self, env_id: str, *, operation_id: str, waits: bool) -> None:
        """Have an environment deleted."""
        if waits:
            await self.waiting.delete(env_id, operation_id=operation_id)
        else:
            await self.environments.delete(env_id, operation_id=operation_id)

    async def change(
        self, env_id: str, *, lifetime_s: int, owner: str | None = None, labels: Mapping[str, str] | None = None
    ) -> None:
        """Let an environment live for so long from now, and be another owner's."""
        await self.environments.change(env_id, lifetime_s=lifetime_s, owner=owner, labels=labels)

    def execute(self, vm_id: VmId, order: ExecOrder, stdin: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
        """Run a command inside."""
        return self.guests.execute(vm_id, order, stdin)

    def read(self, vm_id: VmId, path: str, *, as_tar: bool) -> AsyncGenerator[bytes, None]:
        """Yield a file inside, or a folder as a tar archive."""
        return self.guests.read(vm_id, path, as_tar=as_tar)

    async def write(self, vm_id: VmId, path: str, content: AsyncIterator[bytes], *, from_tar: bool) -> int:
        """Write a file inside, or unpack a tar archive into a folder."""
        return await self.guests.write(vm_id, path, content, from_tar=from_tar)


def _made(detail: EnvDetail) -> Made:
    if detail.operation is None:
        return Made(state=detail.state, vms=detail.vms, warnings=detail.warnings)
    waits_for = detail.operation.warnings if detail.state is EnvState.WAITING else ()
    warnings = (*detail.warnings, *waits_for)
    return Made(state=detail.state, vms=detail.vms, warnings=warnings, operation=detail.operation.id)

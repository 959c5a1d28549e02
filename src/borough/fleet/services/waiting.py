"""The use cases of callers who wait until it is done: the operation is the same, and goes on when they leave."""

from dataclasses import replace

from borough.core.errors import NotFound
from borough.fleet.environments import EnvState
from borough.fleet.operations import Operation, OperationState, not_done
from borough.fleet.orders import EnvDetail, EnvOrder, Ids
from borough.fleet.services.environments import EnvironmentService
from borough.fleet.services.operations import OperationService
from borough.fleet.vms import Action

PATIENCE_S = 300.0
"""How long a caller is kept waiting; what is not done by then is told as still going on."""


class WaitingService:
    """Creates, deletes, stops and starts environments, and answers when it is over."""

    def __init__(
        self, environments: EnvironmentService, operations: OperationService, *, patience_s: float = PATIENCE_S
    ) -> None:
        self._environments = environments
        self._operations = operations
        self._patience_s = patience_s

    async def create(self, order: EnvOrder, ids: Ids) -> EnvDetail:
        """Create an environment and return it with what could be made; ``warnings`` tell of the rest.

        Raises:
            Unavailable: machines were asked for and none is there (``operation_failed``); neither is the environment.
        """
        return await self.made(await self._environments.create(order, ids), ids)

    async def made(self, begun: EnvDetail, ids: Ids) -> EnvDetail:
        """Return an environment that is being made as soon as it is; raises as ``create``."""
        operation = await self._operations.wait(ids.operation, timeout_s=self._patience_s)
        try:
            made = await self._environments.detail(begun.environment.id)
        except NotFound:
            raise not_done(operation) from None
        if operation.state is OperationState.FAILED and made.state is EnvState.DELETING:
            raise not_done(operation)
        going_on = operation.state is OperationState.RUNNING
        still = (f"it is still being made: GET /api/operations/{operation.id}?wait=30",) if going_on else ()
        return replace(made, warnings=(*begun.warnings, *operation.errors.values(), *still), operation=operation)

    async def delete(self, env_id: str, *, operation_id: str) -> Operation:
        """Delete an environment; return when every host has confirmed.

        Raises:
            NotFound: there is none of that id (``env_not_found``).
            Unavailable: some machine is not gone yet (``operation_failed``); it is tried again by itself.
        """
        return await self._done(await self._environments.delete(env_id, operation_id=operation_id))

    async def act(self, env_id: str, action: Action, *, operation_id: str) -> Operation:
        """Stop or start every machine of an environment; return when that is done.

        Raises:
            NotFound: there is none of that id (``env_not_found``).
            Conflict: it is being deleted (``env_deleting``).
            Unavailable: some machine is not as asked for (``operation_failed``).
        """
        return await self._done(await self._environments.act(env_id, action, operation_id=operation_id))

    async def _done(self, begun: Operation) -> Operation:
        operation = await self._operations.wait(begun.id, timeout_s=self._patience_s)
        if operation.errors:
            raise not_done(operation)
        return operation

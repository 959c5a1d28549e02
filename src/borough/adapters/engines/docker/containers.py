"""The containers of one host, known by their labels: what a runtime has besides is never touched."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from borough.adapters.engines.docker import archives
from borough.adapters.engines.docker.bodies import MARKER, VM, name_of
from borough.adapters.engines.docker.client import EngineApi
from borough.core.errors import Conflict, NotFound
from borough.fleet.vms import VmId, check_vm_id


class Containers:
    """They, by the machines' ids."""

    def __init__(self, api: EngineApi, *, marker: str) -> None:
        """``marker`` is the host's own."""
        self._api = api
        self._marker = marker

    async def all(self) -> Sequence[VmId]:
        """Return the machines of which there is one."""
        filters = json.dumps({"label": [f"{MARKER}={self._marker}"]})
        told = await self._api.ask("GET", "/containers/json", query={"all": "1", "filters": filters})
        return [check_vm_id(each["Labels"][VM]) for each in told]

    async def archive(self, vm_id: VmId, asked: str, path: str) -> AsyncIterator[bytes]:
        """Yield the archive of what is at ``asked``; raises ``NotFound`` (``file_not_found``), which names ``path``."""
        await self.inspect(vm_id)
        try:
            async with self._api.stream(
                "GET", f"/containers/{name_of(vm_id)}/archive", query={"path": asked}
            ) as response:  # fmt: skip
                async for part in self._api.chunks(response):
                    yield part
        except NotFound:
            raise archives.file_not_found(path) from None

    async def put(self, vm_id: VmId, path: str, content: object) -> None:
        """Unpack an archive into a folder; raises ``NotFound`` (``file_not_found``)."""
        try:
            await self.ask("PUT", vm_id, "/archive", query={"path": path or "/"}, body=content)
        except NotFound:
            raise archives.file_not_found(path) from None

    async def ask(
        self, method: str, vm_id: VmId, path: str, *, query: Mapping[str, str] | None = None, body: object = None
    ) -> Any:
        """Ask the runtime something of a container, and return its answer; raises as ``inspect``, and what it says."""
        await self.inspect(vm_id)
        return await self._api.ask(method, f"/containers/{name_of(vm_id)}{path}", query=query, body=body)

    async def inspect(self, vm_id: VmId) -> Mapping[str, Any]:
        """Return what the runtime knows of a machine, if its container is ours by its labels.

        Raises:
            NotFound: it is not there, or not ours (``vm_not_found``).
        """
        try:
            told: Mapping[str, Any] = await self._api.ask("GET", f"/containers/{name_of(vm_id)}/json")
        except NotFound:
            raise vm_not_found(vm_id) from None
        if told["Config"]["Labels"].get(MARKER) != self._marker:
            raise vm_not_found(vm_id)
        return told

    async def over(self, vm_id: VmId) -> None:
        """Return as soon as it does not run; raises as ``inspect``, and ``Unavailable`` when nobody answers."""
        await self.inspect(vm_id)
        query = {"condition": "not-running"}
        async with self._api.stream(
            "POST", f"/containers/{name_of(vm_id)}/wait", query=query, endless=True
        ) as response:  # fmt: skip
            await response.read()

    async def check_running(self, vm_id: VmId) -> None:
        """Raise ``Conflict`` (``not_running``) unless it runs."""
        status = (await self.inspect(vm_id))["State"]["Status"]
        if status != "running":
            raise Conflict(f"{vm_id} is {status}", code="not_running", resolution="start it first")


def vm_not_found(vm_id: VmId) -> NotFound:
    """Return the error for a machine of which there is no container."""
    return NotFound(f"there is no container of {vm_id}", code="vm_not_found", resolution="list the machines")

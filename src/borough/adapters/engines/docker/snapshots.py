"""Snapshots of containers: images of the runtime, under names that say whose they are."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from borough.adapters.engines.docker import bodies
from borough.adapters.engines.docker.bodies import name_of, origin_of, repository_of
from borough.adapters.engines.docker.client import EngineApi
from borough.adapters.engines.docker.containers import Containers
from borough.adapters.engines.refusals import no_snapshot
from borough.core.errors import NotFound
from borough.fleet.ports.engines import SnapshotInfo
from borough.fleet.vms import Origin, VmId


class ContainerSnapshots:
    """They, by machine and name."""

    def __init__(self, api: EngineApi, containers: Containers) -> None:
        self._api = api
        self._containers = containers

    async def take(self, vm_id: VmId, name: str) -> SnapshotInfo:
        """Keep the present state of the disk; raises ``NotFound`` (``vm_not_found``)."""
        told = await self._containers.inspect(vm_id)
        image = await self._api.ask("GET", f"/images/{told['Image']}/json")
        given = bodies.given_names(told["Config"], image["Config"])
        query = {"container": name_of(vm_id), "repo": repository_of(vm_id), "tag": name, "pause": "true"}
        await self._api.ask("POST", "/commit", query=query, body={"Labels": {bodies.GIVEN: ",".join(given)}})
        return next(each for each in await self.all(vm_id) if each.name == name)

    async def all(self, vm_id: VmId) -> Sequence[SnapshotInfo]:
        """Return them, oldest first."""
        found = [await self._info(tag) for tag in await self._tags(vm_id)]
        return sorted(found, key=lambda each: each.created_at)

    async def image(self, vm_id: VmId, name: str) -> str:
        """Return the image of a snapshot; raises ``NotFound`` (``snapshot_not_found``)."""
        if name not in [_name_in(tag) for tag in await self._tags(vm_id)]:
            raise no_snapshot(vm_id, name)
        return f"{repository_of(vm_id)}:{name}"

    async def named_for(self, vm_id: VmId, origin: Origin) -> str:
        """Keep a snapshot of another machine under a name of this one's, which the other's end does not take away.

        Raises:
            NotFound: there is none of this name (``snapshot_not_found``).
        """
        snapshot = await self.image(origin.vm_id, origin.snapshot)
        named, _, tag = origin_of(vm_id).partition(":")
        await self._api.ask("POST", f"/images/{snapshot}/tag", query={"repo": named, "tag": tag})
        return origin_of(vm_id)

    async def forget(self, vm_id: VmId, name: str) -> None:
        """Remove one by force: a machine that was returned to it goes on, on what is then only its own."""
        with suppress(NotFound):
            await self._api.ask("DELETE", f"/images/{repository_of(vm_id)}:{name}", query={"force": "1"})

    async def forget_all(self, vm_id: VmId) -> None:
        """Remove those of a machine that is gone, and the one that it was made from."""
        for tag in [origin_of(vm_id), *await self._tags(vm_id)]:
            with suppress(NotFound):
                await self._api.ask("DELETE", f"/images/{tag}")

    async def _tags(self, vm_id: VmId) -> Sequence[str]:
        filters = json.dumps({"reference": [repository_of(vm_id)]})
        found: Sequence[Mapping[str, Any]] = await self._api.ask("GET", "/images/json", query={"filters": filters})
        return [bodies.tag_of(vm_id, image) for image in found]

    async def _info(self, tag: str) -> SnapshotInfo:
        told = await self._api.ask("GET", f"/images/{tag}/json")
        return SnapshotInfo(
            name=_name_in(tag),
            created_at=datetime.fromisoformat(f"{str(told['Created'])[:19]}+00:00"),
            size_bytes=int(told["Size"]),
            with_memory=False,
        )


def _name_in(tag: str) -> str:
    return tag.rpartition(":")[2]

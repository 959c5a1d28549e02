"""The port ``EngineDriver`` for containers. The runtime keeps their disks, links and published ports itself."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from borough.adapters.engines.docker import archives, attaching, bodies
from borough.adapters.engines.docker.bodies import name_of
from borough.adapters.engines.docker.client import EngineApi, failed
from borough.adapters.engines.docker.containers import Containers, vm_not_found
from borough.adapters.engines.docker.executing import executed
from borough.adapters.engines.docker.images import RuntimeImages
from borough.adapters.engines.docker.networks import Closes, ContainerNetworks, is_here
from borough.adapters.engines.docker.snapshots import ContainerSnapshots
from borough.adapters.engines.refusals import not_cloned, not_closed
from borough.core.errors import BoroughError, NotFound, Unavailable
from borough.fleet.engines import Capability, Engine, Missing, Offer
from borough.fleet.names import check_name
from borough.fleet.ports.engines import (
    Chunk,
    ExecOrder,
    FileEntry,
    Finding,
    Found,
    MachineOrder,
    MachineStats,
    SnapshotInfo,
    Stream,
)
from borough.fleet.ssh_keys import is_usable
from borough.fleet.vms import Origin, VmId

_ALWAYS = frozenset(
    {
        Capability.PUBLISH_TCP, Capability.SSH_KEYS, Capability.EXEC, Capability.PTY, Capability.FILES,
        Capability.LOGS, Capability.STATS, Capability.PAUSE, Capability.SNAPSHOT, Capability.CLONE,
    }
)  # fmt: skip
_LIMITS = {Capability.MEMORY_LIMIT: "MemoryLimit", Capability.CPU_LIMIT: "CpuCfsQuota"}
_BY_SIGNAL = {137: "SIGKILL", 143: "SIGTERM"}
"""Exit codes of a command that was ended: by whom the runtime does not say."""
_SHELL_SAYS_NO = (126, 127)
_NO_CLONES = "Podman does not keep which variables a snapshot was given, and a clone would have them"


class DockerMachines:
    """Machines that are containers. Use it from one event loop; ``close`` it before the loop ends."""

    def __init__(
        self,
        socket_path: str,
        *,
        marker: str,
        closes: Closes,
        closed_bridge: str = "ttd0",
        way_prefix: str = "ttd-",
        has_proxy: bool = False,
    ) -> None:
        """``marker`` is the host's own; ``closes`` proves that nothing gets out of ``closed_bridge``, and only to its
        proxy of a bridge that begins with ``way_prefix``; ``has_proxy``: there is one at the gateway of each.
        """
        self._api = EngineApi(socket_path)
        self._containers = Containers(self._api, marker=marker)
        self._stopped: set[VmId] = set()
        """Machines that were stopped here: that they were ended is no surprise."""
        self._snapshots = ContainerSnapshots(self._api, self._containers)
        self._networks = ContainerNetworks(
            self._api, marker=marker, closes=closes, closed_bridge=closed_bridge, way_prefix=way_prefix,
            has_proxy=has_proxy,
        )  # fmt: skip

    @property
    def engine(self) -> Engine:
        """Return which one it is."""
        return Engine.DOCKER

    async def probe(self) -> Offer | Missing:
        """Return what can be done here, or why not: no runtime answers."""
        try:
            version = await self._api.version()
            info = await self._api.ask("GET", "/info")
        except BoroughError as failure:
            return Missing(engine=Engine.DOCKER, reason=f"no container runtime answers: {failure.message}")
        able, reasons = set(_ALWAYS), {}
        for capability, name in _LIMITS.items():
            if info.get(name):
                able.add(capability)
            else:
                reasons[capability] = "the runtime says that this host cannot"
        if bodies.is_podman(version):
            able.discard(Capability.CLONE)
            reasons[Capability.CLONE] = _NO_CLONES
        reasons[Capability.DISK_LIMIT] = "the layers of containers are folders of the runtime"
        reasons[Capability.PRIVATE_NETWORK] = "containers are on the runtime's own network"
        for capability, lack in (await self._networks.lacks()).items():
            if lack is None:
                able.add(capability)
            else:
                reasons[capability] = lack
        return Offer(
            engine=Engine.DOCKER, version=str(version.get("Version", "")), capabilities=frozenset(able), reasons=reasons
        )

    async def create(self, order: MachineOrder) -> None:
        """Make the container and start it; one of the same order is used."""
        origin = order.spec.origin
        image = order.spec.image if origin is None else await self._origin(order.vm_id, origin)
        await self._make(order, image=image)

    async def start(self, order: MachineOrder) -> None:
        """Start a stopped machine from its disk, or let a paused one go on."""
        found = (await self.find(order.vm_id)).found
        if found is Found.ABSENT:
            raise vm_not_found(order.vm_id)
        if found is Found.PAUSED:
            await self._containers.ask("POST", order.vm_id, "/unpause")
        elif found is not Found.RUNNING:
            await self._begin(order)

    async def stop(self, vm_id: VmId, *, grace_s: float) -> None:
        """Shut the machine down, by force after ``grace_s``; its disk stays."""
        if (await self.find(vm_id)).found is Found.PAUSED:
            await self._containers.ask("POST", vm_id, "/unpause")
        self._stopped.add(vm_id)
        await self._containers.ask("POST", vm_id, "/stop", query={"t": str(max(0, round(grace_s)))})

    async def pause(self, vm_id: VmId) -> None:
        """Freeze the machine."""
        if (await self.find(vm_id)).found is not Found.PAUSED:
            await self._containers.ask("POST", vm_id, "/pause")

    async def destroy(self, vm_id: VmId) -> None:
        """End the machine and remove all of it, its snapshots too; nothing there is no error."""
        self._stopped.discard(vm_id)
        with suppress(NotFound):
            await self._containers.ask("DELETE", vm_id, "", query={"force": "1", "v": "1"})
        await self._snapshots.forget_all(vm_id)
        await self._networks.remove(vm_id)

    async def find(self, vm_id: VmId) -> Finding:
        """Return what there is of the machine."""
        try:
            state = (await self._containers.inspect(vm_id))["State"]
        except NotFound:
            return Finding(found=Found.ABSENT)
        if state["Status"] in ("running", "restarting"):
            return Finding(found=Found.RUNNING)
        if state["Status"] == "paused":
            return Finding(found=Found.PAUSED)
        return _at_rest(state, is_stopped=vm_id in self._stopped)

    async def over(self, vm_id: VmId) -> None:
        """Return as soon as the container does not run; raises ``NotFound``, ``Unavailable``."""
        await self._containers.over(vm_id)

    async def machines(self) -> Sequence[VmId]:
        """Return every machine of which there is a container, or a network of its own, with our label."""
        return sorted({*await self._containers.all(), *await self._networks.all()})

    async def execute(self, vm_id: VmId, order: ExecOrder, stdin: AsyncIterator[bytes]) -> AsyncIterator[Chunk]:
        """Run a command inside; the last chunk has the exit code. Closing the iterator ends the command."""
        await self._containers.check_running(vm_id)
        made = await self._containers.ask("POST", vm_id, "/exec", body=bodies.execution(order))
        try:
            async with asyncio.timeout(order.timeout_s):
                async with aclosing(executed(self._api, made["Id"], order, stdin)) as chunks:
                    async for chunk in chunks:
                        yield chunk
        except TimeoutError:
            raise Unavailable(
                f"the command did not end within {order.timeout_s:g} s and was ended",
                code="exec_timeout",
                resolution="give it more time, or run it in the background",
            ) from None

    async def logs(self, vm_id: VmId, *, offset: int, follow: bool) -> AsyncIterator[bytes]:
        """Yield what the machine printed, from ``offset`` bytes on."""
        await self._containers.inspect(vm_id)
        query = {"stdout": "1", "stderr": "1", "follow": "1" if follow else "0"}
        demultiplexer = attaching.Demultiplexer()
        async with self._api.stream(
            "GET", f"/containers/{name_of(vm_id)}/logs", query=query, endless=follow
        ) as response:  # fmt: skip
            async for part in self._api.chunks(response):
                printed = demultiplexer.take(part)
                skipped = min(offset, len(printed))
                offset -= skipped
                if printed[skipped:]:
                    yield printed[skipped:]

    async def listing(self, vm_id: VmId, path: str) -> Sequence[FileEntry]:
        """Return a folder's names, asked of the image's own tools where it has them; raises ``NotFound``."""
        if (await self.find(vm_id)).found is Found.RUNNING:
            command = ExecOrder(argv=("sh", "-c", archives.LIST_SCRIPT, "sh", path))
            printed, code = b"", None
            async for chunk in self.execute(vm_id, command, _nothing()):
                printed += chunk.data if chunk.stream is Stream.STDOUT else b""
                code = chunk.exit_code
            if code == 0 or (printed and code not in _SHELL_SAYS_NO):
                return archives.entries_told(printed, path)
        packed = await archives.spooled(self.read(vm_id, path, as_tar=True))
        with packed:
            return archives.entries_packed(packed, path)

    async def read(self, vm_id: VmId, path: str, *, as_tar: bool) -> AsyncIterator[bytes]:
        """Yield a file, or a folder as a tar archive."""
        if as_tar:
            async for part in self._containers.archive(vm_id, f"{path.rstrip('/')}/.", path):
                yield part
            return
        with await archives.spooled(self._containers.archive(vm_id, path, path)) as packed:
            archive, content = archives.only_file(packed, path)
            with archive:
                while part := content.read(1 << 18):
                    yield part

    async def write(self, vm_id: VmId, path: str, content: AsyncIterator[bytes], *, from_tar: bool) -> int:
        """Write a file, or unpack a tar archive into a folder; return how many bytes came."""
        await self._containers.inspect(vm_id)
        with await archives.spooled(content) as came:
            size = came.seek(0, os.SEEK_END)
            came.seek(0)
            if from_tar:
                await self._containers.put(vm_id, "/", archives.of_folder(path)) if path.strip("/") else None
                await self._containers.put(vm_id, path, _parts_of(came))
            else:
                with archives.of_file(path, came) as packed:
                    await self._containers.put(vm_id, "/", _parts_of(packed))
        return size

    async def stats(self, vm_id: VmId) -> MachineStats:
        """Return what the machine uses now."""
        told = await self._containers.ask("GET", vm_id, "/stats", query={"stream": "false", "one-shot": "true"})
        size = await self._containers.ask("GET", vm_id, "/json", query={"size": "1"})
        networks = (told.get("networks") or {}).values()
        return MachineStats(
            cpu_seconds=told["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9,
            memory_bytes=told["memory_stats"].get("usage"),
            disk_bytes=size.get("SizeRw"),
            processes=told["pids_stats"].get("current"),
            received_bytes=sum(each["rx_bytes"] for each in networks),
            sent_bytes=sum(each["tx_bytes"] for each in networks),
        )

    async def snapshot(self, vm_id: VmId, name: str) -> SnapshotInfo:
        """Keep the present state of the disk as an image."""
        check_name(name, what="a snapshot")
        return await self._snapshots.take(vm_id, name)

    async def snapshots(self, vm_id: VmId) -> Sequence[SnapshotInfo]:
        """Return them, oldest first."""
        return await self._snapshots.all(vm_id)

    async def restore(self, order: MachineOrder, name: str) -> None:
        """Return to a snapshot: the container is made anew from its image."""
        check_name(name, what="a snapshot")
        image = await self._snapshots.image(order.vm_id, name)
        with suppress(NotFound):
            await self._containers.ask("DELETE", order.vm_id, "", query={"force": "1", "v": "1"})
        await self._make(order, image=image)

    async def delete_snapshot(self, vm_id: VmId, name: str) -> None:
        """Forget one; one that is unknown is gone already."""
        check_name(name, what="a snapshot")
        await self._snapshots.forget(vm_id, name)

    async def copy_snapshot(self, vm_id: VmId, name: str, target: Path) -> None:
        """Raise ``Conflict`` (``not_possible``): the runtime keeps disks, and ``create`` is told the snapshot."""
        raise not_cloned(vm_id, name, reason=f"containers have no disk at {target}, the runtime keeps it")

    async def way_of(self, vm_id: VmId) -> tuple[str, IPv4Address] | None:
        """Return bridge and gateway of a container's own network, ``None`` when it has none."""
        return await self._networks.way_of(vm_id)

    async def close(self) -> None:
        """Let go of connections."""
        await self._api.close()

    # -- making --------------------------------------------------------------------------------------------------------

    async def _make(self, order: MachineOrder, *, image: str) -> None:
        found = (await self.find(order.vm_id)).found
        if found is Found.RUNNING:
            return
        closed = await self._networks.network_of(order)
        if found is Found.ABSENT:
            about = {} if order.spec.origin is None else await self._api.ask("GET", f"/images/{image}/json")
            body = bodies.container(
                order,
                image=image,
                closed=closed,
                withheld=bodies.withheld(about),
                proxy=await self._networks.proxy_of(order),
            )
            await self._make_container(order.vm_id, body, image)
            keys = tuple(key for key in order.spec.ssh_keys if is_usable(key))
            if keys or order.spec.origin is not None:  # who may enter the machine it is made from may not enter it
                await self._containers.put(order.vm_id, "/", archives.of_keys(keys))
        await self._begin(order)

    async def _origin(self, vm_id: VmId, origin: Origin) -> str:
        if bodies.is_podman(await self._api.version()):
            raise not_cloned(origin.vm_id, origin.snapshot, reason=_NO_CLONES)
        return await self._snapshots.named_for(vm_id, origin)

    async def _make_container(self, vm_id: VmId, body: Mapping[str, object], image: str) -> None:
        query = {"name": name_of(vm_id)}
        try:
            await self._api.ask("POST", "/containers/create", query=query, body=body)
        except NotFound as missing:
            if "image" not in missing.message.lower():
                raise failed(missing.message) from missing
            await RuntimeImages(self._api).pull(image)
            await self._api.ask("POST", "/containers/create", query=query, body=body)

    async def _begin(self, order: MachineOrder) -> None:
        """Start the container, and see whether it stays."""
        closed = await self._networks.network_of(order)
        self._stopped.discard(order.vm_id)
        await self._containers.ask("POST", order.vm_id, "/start")
        if closed is not None and not is_here(closed.bridge):
            await self._containers.ask("POST", order.vm_id, "/kill")
            raise not_closed("the runtime's networks are not on this host")
        finding = await self.find(order.vm_id)
        if finding.found in (Found.FAILED, Found.GONE):
            last = b"".join([part async for part in self.logs(order.vm_id, offset=0, follow=False)])[-500:]
            raise failed(f"{finding.detail}: {last.decode(errors='replace').strip()}")


def _at_rest(state: Mapping[str, Any], *, is_stopped: bool) -> Finding:
    code = state.get("ExitCode", 0)
    if state.get("OOMKilled"):
        return Finding(found=Found.FAILED, detail="it used up its memory")
    if state["Status"] == "created":
        return Finding(found=Found.STOPPED, detail=state.get("Error") or None)
    if code in _BY_SIGNAL and not is_stopped:
        return Finding(found=Found.GONE, detail=f"its command was ended by {_BY_SIGNAL[code]}")
    is_in_order = code == 0 or code in _BY_SIGNAL
    detail = f"its command ended with exit status {code}"
    return Finding(found=Found.STOPPED if is_in_order else Found.FAILED, detail=detail)


async def _nothing() -> AsyncIterator[bytes]:
    for part in _NO_PARTS:
        yield part


_NO_PARTS: tuple[bytes, ...] = ()


async def _parts_of(file: Any) -> AsyncIterator[bytes]:
    while part := await asyncio.to_thread(file.read, 1 << 18):
        yield part

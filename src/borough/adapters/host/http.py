"""A host over HTTPS or HTTP: the port ``HostAgent``."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import ClassVar, Final

import msgspec

from borough.adapters.host import terminals, wire
from borough.adapters.host.connection import HostConnection, Once, encoded, lines_of
from borough.fleet.hosts import HostReport
from borough.fleet.images import Image
from borough.fleet.ports.engines import Chunk, ExecOrder, FileEntry, MachineStats, SnapshotInfo
from borough.fleet.ports.host_agent import CreateOrder
from borough.fleet.vms import Vm, VmId

ANSWER_S: Final = 30.0
ACT_S: Final = 360.0
"""For what may take long on a host: making a machine, ending it, a snapshot."""
SILENT_S: Final = 60.0
"""After how long a host that tells nothing, and that it has nothing to tell, has gone without a word."""
_PART_BYTES: Final = 65_536
_DATA: Final = b"data: "


class HttpHost:
    """One host at an address."""

    connects_by: ClassVar[type[HostConnection]] = HostConnection

    def __init__(
        self,
        addr: str,
        *,
        credential: str | None,
        fingerprint: str | None = None,
        act_s: float = ACT_S,
        answer_s: float = ANSWER_S,
    ) -> None:
        """``fingerprint`` is the SHA-256 of the host's certificate (DER), in hexadecimal; ``None``: plain HTTP."""
        self._host = self.connects_by(addr, credential=credential, fingerprint=fingerprint, answer_s=answer_s)
        self._act_s = act_s

    def __repr__(self) -> str:
        return f"HttpHost({self._host.addr!r})"

    async def report(self) -> HostReport:
        """Return what the host says of itself."""
        return self._host.meant(wire.report_of, await self._host.get("/api/info", wire.SaidInfo))

    async def join(self, token: str) -> wire.SaidJoined:
        """Exchange the host's join token for a credential; a token is good once, so this is not repeated."""
        return await self._host.call("POST", "/api/join", wire.SaidJoined, json={"token": token}, again=False)

    async def create(self, order: CreateOrder) -> Vm:
        """Make and start a machine, or return the one that was made by the same order before."""
        body = wire.order_body(order)
        made = await self._host.call("POST", "/api/vms", wire.SaidCreated, json=body, within_s=self._act_s)
        return self._host.meant(wire.vm_of, made.vm)

    async def machines(self) -> Sequence[Vm]:
        """Return every machine of the host."""
        return [self._host.meant(wire.vm_of, each) for each in await self._host.get("/api/vms", list[wire.SaidVm])]

    async def changes(self) -> AsyncGenerator[VmId | None, None]:
        """Yield machines that changed without being asked to, ``None`` as soon as the host tells us."""
        async with self._host.stream("GET", "/api/changes", silent_s=SILENT_S) as response:
            yield None
            async for line in lines_of(response):
                if line.startswith(_DATA):
                    yield self._host.meant(wire.changed_of, line.removeprefix(_DATA))

    async def machine(self, vm_id: VmId) -> Vm:
        """Return one."""
        return self._host.meant(wire.vm_of, await self._host.get(f"/api/vms/{vm_id}", wire.SaidVm))

    async def destroy(self, vm_id: VmId) -> None:
        """End a machine with everything of it; one that is unknown is gone already."""
        await self._host.call("DELETE", f"/api/vms/{vm_id}", msgspec.Raw, within_s=self._act_s)

    async def stop(self, vm_id: VmId) -> Vm:
        """Shut a machine down and keep its disk."""
        return await self._act(vm_id, "stop")

    async def start(self, vm_id: VmId) -> Vm:
        """Start a stopped machine from its disk, or let a paused one go on."""
        return await self._act(vm_id, "start")

    async def pause(self, vm_id: VmId) -> Vm:
        """Freeze a machine."""
        return await self._act(vm_id, "pause")

    async def execute(self, vm_id: VmId, order: ExecOrder, stdin: AsyncIterator[bytes]) -> AsyncGenerator[Chunk, None]:
        """Run a command inside; the last chunk has the exit code. Closing the iterator ends the command."""
        if order.tty is not None:
            path = f"/api/vms/{vm_id}/exec"
            async with self._host.socket(path) as socket, aclosing(terminals.executed(socket, order, stdin)) as chunks:
                async for chunk in chunks:
                    yield chunk
                    if chunk.exit_code is not None:
                        return
            raise self._host.unreachable("it went away while the command ran")
        body = wire.exec_body(order, b"".join([part async for part in stdin]))
        decoder = msgspec.json.Decoder(wire.SaidChunk)
        async with self._host.stream("POST", f"/api/vms/{vm_id}/exec", data=encoded(body)) as response:
            async for line in lines_of(response):
                chunk = wire.chunk_of(decoder.decode(line))
                yield chunk
                if chunk.exit_code is not None:
                    return
        raise self._host.unreachable("it went away while the command ran")

    async def logs(self, vm_id: VmId, *, offset: int, follow: bool) -> AsyncGenerator[bytes, None]:
        """Yield what the machine printed, from ``offset`` bytes on."""
        params = {"offset": str(offset), "follow": str(int(follow))}
        async with self._host.stream("GET", f"/api/vms/{vm_id}/logs", params=params) as response:
            async for part in response.content.iter_any():
                yield part

    async def console(self, vm_id: VmId, keys: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Yield what the machine prints from now on, ``b""`` as soon as its console is open; ``keys`` are typed."""
        path = f"/api/vms/{vm_id}/console"
        async with self._host.socket(path) as socket, aclosing(terminals.console(socket, keys)) as parts:
            async for part in parts:
                yield part

    async def listing(self, vm_id: VmId, path: str) -> Sequence[FileEntry]:
        """Return a folder's names."""
        found = await self._host.get(f"/api/vms/{vm_id}/files/list", list[wire.SaidFile], params={"path": path})
        return [self._host.meant(wire.file_of, each) for each in found]

    async def read(self, vm_id: VmId, path: str, *, as_tar: bool) -> AsyncGenerator[bytes, None]:
        """Yield a file, or a folder as a tar archive."""
        params = {"path": path, "tar": str(int(as_tar))}
        async with self._host.stream("GET", f"/api/vms/{vm_id}/files", params=params) as response:
            async for part in response.content.iter_chunked(_PART_BYTES):
                yield part

    async def write(self, vm_id: VmId, path: str, content: AsyncIterator[bytes], *, from_tar: bool) -> int:
        """Write a file, or unpack a tar archive into a folder; return how many bytes came."""
        params = {"path": path, "tar": str(int(from_tar))}
        async with self._host.stream("PUT", f"/api/vms/{vm_id}/files", params=params, data=Once(content)) as response:
            return self._host.said(response.status, await response.read(), wire.SaidWritten).bytes

    async def stats(self, vm_id: VmId) -> MachineStats:
        """Return what the machine uses now."""
        return await self._host.get(f"/api/vms/{vm_id}/stats", MachineStats)

    async def snapshot(self, vm_id: VmId, name: str) -> SnapshotInfo:
        """Keep the present state under a name."""
        path = f"/api/vms/{vm_id}/snapshots"
        return self._host.meant(
            wire.snapshot_of,
            await self._host.call("POST", path, wire.SaidSnapshot, json={"name": name}, within_s=self._act_s),
        )

    async def snapshots(self, vm_id: VmId) -> Sequence[SnapshotInfo]:
        """Return them, oldest first."""
        return [
            self._host.meant(wire.snapshot_of, each)
            for each in await self._host.get(f"/api/vms/{vm_id}/snapshots", list[wire.SaidSnapshot])
        ]

    async def restore(self, vm_id: VmId, name: str) -> Vm:
        """Return to a snapshot."""
        path = f"/api/vms/{vm_id}/snapshots/{name}/restore"
        return self._host.meant(wire.vm_of, await self._host.call("POST", path, wire.SaidVm, within_s=self._act_s))

    async def delete_snapshot(self, vm_id: VmId, name: str) -> None:
        """Forget one; one that is unknown is gone already."""
        await self._host.call("DELETE", f"/api/vms/{vm_id}/snapshots/{name}", msgspec.Raw, within_s=self._act_s)

    async def images(self) -> Sequence[Image]:
        """Return the images of the host."""
        found = await self._host.get("/api/images", list[wire.SaidImage], params={"detail": "1"})
        return [self._host.meant(wire.image_of, each) for each in found]

    async def put_image(self, image: Image, content: AsyncIterator[bytes]) -> Image:
        """Take an image in; what arrives is compared with its digest."""
        params = {
            "form": image.form.value,
            "digest": image.digest,
            "size_bytes": str(image.size_bytes),
            "created_at": str(int(image.created_at.timestamp())),
        }
        listed = [*params.items(), *(("engine", engine.value) for engine in sorted(image.engines))]
        async with self._host.stream("PUT", f"/api/images/{image.name}", params=listed, data=Once(content)) as response:
            return self._host.meant(
                wire.image_of, self._host.said(response.status, await response.read(), wire.SaidImage)
            )

    async def image_content(self, name: str) -> AsyncGenerator[bytes, None]:
        """Yield an image as it travels between hosts."""
        async with self._host.stream("GET", f"/api/images/{name}") as response:
            async for part in response.content.iter_chunked(_PART_BYTES):
                yield part

    async def close(self) -> None:
        """Let go of connections."""
        await self._host.close()

    async def _act(self, vm_id: VmId, word: str) -> Vm:
        said = await self._host.call("POST", f"/api/vms/{vm_id}/{word}", msgspec.Raw, within_s=self._act_s)
        if bytes(said) == b"null":  # hosts of the reference only say that it is done
            return await self.machine(vm_id)
        return self._host.meant(wire.vm_of, msgspec.json.decode(said, type=wire.SaidVm))

"""A host over HTTPS or HTTP: the port ``HostAgent``.

With a fingerprint the host has to show the certificate that has it, before anything is sent to it.

A call whose answer does not come has perhaps been carried out: that is ``Unavailable`` with ``host_unreachable``. What
may be sent twice without harm is sent again once when its connection breaks; a command is not.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, TypeVar

import aiohttp
import msgspec

from borough.adapters.host import terminals, wire
from borough.core.errors import Unavailable
from borough.fleet.hosts import HostReport
from borough.fleet.images import Image
from borough.fleet.ports.host_agent import CreateOrder
from borough.fleet.ports.machines import Chunk, ExecOrder, FileEntry, MachineStats, SnapshotInfo
from borough.fleet.vms import Vm, VmId

CONNECT_S: Final = 5.0
ANSWER_S: Final = 30.0
ACT_S: Final = 360.0
"""For what may take long on a host: making a machine, ending it, a snapshot."""
SILENT_S: Final = 60.0
"""After how long a host that tells nothing, and that it has nothing to tell, has gone without a word."""
MOST_LINE_BYTES: Final = 16 * 1_048_576
_PART_BYTES: Final = 65_536
_DATA: Final = b"data: "
_OK: Final = 200
_FIRST_ERROR: Final = 400
_NOT_IT: Final = (aiohttp.ServerFingerprintMismatch, aiohttp.ClientSSLError)
_BROKEN: Final = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError)

Answer = TypeVar("Answer")
Wire = TypeVar("Wire")


class HttpHost:
    """One host at an address."""

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
        self._addr = addr
        self._credential = credential
        self._fingerprint = fingerprint
        self._act_s = act_s
        self._answer_s = answer_s
        self._opened: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"HttpHost({self._addr!r})"

    async def report(self) -> HostReport:
        """Return what the host says of itself."""
        return self._meant(wire.report_of, await self._get("/api/info", wire.SaidInfo))

    async def join(self, token: str) -> wire.SaidJoined:
        """Exchange the host's join token for a credential; a token is good once, so this is not repeated."""
        return await self._call("POST", "/api/join", wire.SaidJoined, json={"token": token}, again=False)

    async def create(self, order: CreateOrder) -> Vm:
        """Make and start a machine, or return the one that was made by the same order before."""
        body = wire.order_body(order)
        made = await self._call("POST", "/api/vms", wire.SaidCreated, json=body, within_s=self._act_s)
        return self._meant(wire.vm_of, made.vm)

    async def machines(self) -> Sequence[Vm]:
        """Return every machine of the host."""
        return [self._meant(wire.vm_of, each) for each in await self._get("/api/vms", list[wire.SaidVm])]

    async def changes(self) -> AsyncGenerator[VmId | None, None]:
        """Yield machines that changed without being asked to, ``None`` as soon as the host tells us."""
        async with self._stream("GET", "/api/changes", silent_s=SILENT_S) as response:
            yield None
            async for line in _lines(response):
                if line.startswith(_DATA):
                    yield self._meant(wire.changed_of, line.removeprefix(_DATA))

    async def machine(self, vm_id: VmId) -> Vm:
        """Return one."""
        return self._meant(wire.vm_of, await self._get(f"/api/vms/{vm_id}", wire.SaidVm))

    async def destroy(self, vm_id: VmId) -> None:
        """End a machine with everything of it; one that is unknown is gone already."""
        await self._call("DELETE", f"/api/vms/{vm_id}", msgspec.Raw, within_s=self._act_s)

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
            async with self._socket(path) as socket, aclosing(terminals.executed(socket, order, stdin)) as chunks:
                async for chunk in chunks:
                    yield chunk
                    if chunk.exit_code is not None:
                        return
            raise self._unreachable("it went away while the command ran")
        body = wire.exec_body(order, b"".join([part async for part in stdin]))
        decoder = msgspec.json.Decoder(wire.SaidChunk)
        async with self._stream("POST", f"/api/vms/{vm_id}/exec", data=_json(body)) as response:
            async for line in _lines(response):
                chunk = wire.chunk_of(decoder.decode(line))
                yield chunk
                if chunk.exit_code is not None:
                    return
        raise self._unreachable("it went away while the command ran")

    async def logs(self, vm_id: VmId, *, offset: int, follow: bool) -> AsyncGenerator[bytes, None]:
        """Yield what the machine printed, from ``offset`` bytes on."""
        params = {"offset": str(offset), "follow": str(int(follow))}
        async with self._stream("GET", f"/api/vms/{vm_id}/logs", params=params) as response:
            async for part in response.content.iter_any():
                yield part

    async def console(self, vm_id: VmId, keys: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Yield what the machine prints from now on, ``b""`` as soon as its console is open; ``keys`` are typed."""
        path = f"/api/vms/{vm_id}/console"
        async with self._socket(path) as socket, aclosing(terminals.console(socket, keys)) as parts:
            async for part in parts:
                yield part

    async def listing(self, vm_id: VmId, path: str) -> Sequence[FileEntry]:
        """Return a folder's names."""
        found = await self._get(f"/api/vms/{vm_id}/files/list", list[wire.SaidFile], params={"path": path})
        return [self._meant(wire.file_of, each) for each in found]

    async def read(self, vm_id: VmId, path: str, *, as_tar: bool) -> AsyncGenerator[bytes, None]:
        """Yield a file, or a folder as a tar archive."""
        params = {"path": path, "tar": str(int(as_tar))}
        async with self._stream("GET", f"/api/vms/{vm_id}/files", params=params) as response:
            async for part in response.content.iter_chunked(_PART_BYTES):
                yield part

    async def write(self, vm_id: VmId, path: str, content: AsyncIterator[bytes], *, from_tar: bool) -> int:
        """Write a file, or unpack a tar archive into a folder; return how many bytes came."""
        params = {"path": path, "tar": str(int(from_tar))}
        async with self._stream("PUT", f"/api/vms/{vm_id}/files", params=params, data=_Once(content)) as response:
            return self._said(response.status, await response.read(), wire.SaidWritten).bytes

    async def stats(self, vm_id: VmId) -> MachineStats:
        """Return what the machine uses now."""
        return await self._get(f"/api/vms/{vm_id}/stats", MachineStats)

    async def snapshot(self, vm_id: VmId, name: str) -> SnapshotInfo:
        """Keep the present state under a name."""
        path = f"/api/vms/{vm_id}/snapshots"
        return self._meant(
            wire.snapshot_of,
            await self._call("POST", path, wire.SaidSnapshot, json={"name": name}, within_s=self._act_s),
        )

    async def snapshots(self, vm_id: VmId) -> Sequence[SnapshotInfo]:
        """Return them, oldest first."""
        return [
            self._meant(wire.snapshot_of, each)
            for each in await self._get(f"/api/vms/{vm_id}/snapshots", list[wire.SaidSnapshot])
        ]

    async def restore(self, vm_id: VmId, name: str) -> Vm:
        """Return to a snapshot."""
        path = f"/api/vms/{vm_id}/snapshots/{name}/restore"
        return self._meant(wire.vm_of, await self._call("POST", path, wire.SaidVm, within_s=self._act_s))

    async def delete_snapshot(self, vm_id: VmId, name: str) -> None:
        """Forget one; one that is unknown is gone already."""
        await self._call("DELETE", f"/api/vms/{vm_id}/snapshots/{name}", msgspec.Raw, within_s=self._act_s)

    async def images(self) -> Sequence[Image]:
        """Return the images of the host."""
        found = await self._get("/api/images", list[wire.SaidImage], params={"detail": "1"})
        return [self._meant(wire.image_of, each) for each in found]

    async def put_image(self, image: Image, content: AsyncIterator[bytes]) -> Image:
        """Take an image in; what arrives is compared with its digest."""
        params = {
            "form": image.form.value,
            "digest": image.digest,
            "size_bytes": str(image.size_bytes),
            "created_at": str(int(image.created_at.timestamp())),
        }
        listed = [*params.items(), *(("engine", engine.value) for engine in sorted(image.engines))]
        async with self._stream("PUT", f"/api/images/{image.name}", params=listed, data=_Once(content)) as response:
            return self._meant(wire.image_of, self._said(response.status, await response.read(), wire.SaidImage))

    async def image_content(self, name: str) -> AsyncGenerator[bytes, None]:
        """Yield an image as it travels between hosts."""
        async with self._stream("GET", f"/api/images/{name}") as response:
            async for part in response.content.iter_chunked(_PART_BYTES):
                yield part

    async def close(self) -> None:
        """Let go of connections."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    # -- calls ---------------------------------------------------------------------------------------------------------

    async def _act(self, vm_id: VmId, word: str) -> Vm:
        said = await self._call("POST", f"/api/vms/{vm_id}/{word}", msgspec.Raw, within_s=self._act_s)
        if bytes(said) == b"null":  # hosts of the reference only say that it is done
            return await self.machine(vm_id)
        return self._meant(wire.vm_of, msgspec.json.decode(said, type=wire.SaidVm))

    async def _get(self, path: str, wanted: type[Answer], *, params: Mapping[str, str] | None = None) -> Answer:
        return await self._call("GET", path, wanted, params=params)

    async def _call(
        self,
        method: str,
        path: str,
        wanted: type[Answer],
        *,
        params: Mapping[str, str] | None = None,
        json: object = None,
        within_s: float | None = None,
        again: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        body = None if json is None else _json(json)
        limit_s = self._answer_s if within_s is None else within_s
        timeout = aiohttp.ClientTimeout(total=limit_s, sock_connect=CONNECT_S)
        sent = ({} if body is None else {"content-type": "application/json"}) | dict(headers or {})
        again = again and method == "POST"  # the client does so by itself for methods that are idempotent
        while True:
            try:
                async with self._session.request(
                    method, path, params=params, data=body, headers=sent, timeout=timeout, allow_redirects=False
                ) as response:
                    return self._said(response.status, await response.read(), wanted)
            except TimeoutError:
                raise self._unreachable(f"no answer within {limit_s:g} s") from None
            except _NOT_IT as error:
                raise self._not_it(error) from None
            except _BROKEN as error:
                if not again:
                    raise self._unreachable(str(error) or type(error).__name__) from error
                again = False

    @asynccontextmanager
    async def _stream(
        self, method: str, path: str, *, silent_s: float | None = None, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield an answer that lasts, once it is known to be one; ``silent_s``: how long nothing of it may come."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=silent_s)
        headers = {"content-type": "application/json"} if isinstance(more.get("data"), bytes) else {}
        try:
            async with self._session.request(
                method, path, headers=headers, timeout=timeout, allow_redirects=False, **more
            ) as response:
                if response.status >= _FIRST_ERROR:
                    self._said(response.status, await response.read(), msgspec.Raw)
                yield response
        except TimeoutError:
            raise self._unreachable("no answer in time") from None
        except _NOT_IT as error:
            raise self._not_it(error) from None
        except _BROKEN as error:
            raise self._unreachable(str(error) or type(error).__name__) from error

    @asynccontextmanager
    async def _socket(self, path: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Yield a WebSocket; leaving the context closes it, which ends what was begun over it."""
        try:
            async with self._session.ws_connect(
                path, max_msg_size=terminals.MOST_MESSAGE_BYTES, heartbeat=terminals.HEARTBEAT_S
            ) as socket:
                yield socket
        except aiohttp.WSServerHandshakeError as error:
            # A handshake that is refused has no body: the plain request is refused for the same reason, and says it.
            await self._call("GET", path, msgspec.Raw)
            raise self._unreachable(f"it answered {error.status} and opened no terminal") from error
        except TimeoutError:
            raise self._unreachable("no answer in time") from None
        except _BROKEN as error:
            raise self._unreachable(str(error) or type(error).__name__) from error

    def _said(self, status: int, body: bytes, wanted: type[Answer]) -> Answer:
        """Return what the host says; what is no answer of a host is told as such."""
        try:
            said = msgspec.json.decode(body, type=wire.Said)
            refused = not said.ok or status >= _FIRST_ERROR
            found: Any = said.data if refused or wanted is msgspec.Raw else msgspec.json.decode(said.data, type=wanted)
        except (msgspec.MsgspecError, ValueError):
            raise self._no_host(status) from None
        if said.code in wire.OF_ANOTHER_SERVER:
            raise self._no_host(status)
        if refused:
            raise wire.refusal(status, said)
        answer: Answer = found
        return answer

    def _meant(self, read: Callable[[Wire], Answer], said: Wire) -> Answer:
        """Return what an answer means; one whose values cannot be is no answer of a host."""
        try:
            return read(said)
        except (ValueError, OverflowError):
            raise self._no_host(_OK) from None

    def _no_host(self, status: int) -> Unavailable:
        return Unavailable(
            f"what answers at {self._addr} is no host",
            code="not_a_host",
            reason=f"it answered {status}, and not as a host does",
            resolution="check the address: it is that of a tt-agent, as in 10.0.0.2:9100",
        )

    def _not_it(self, error: aiohttp.ServerFingerprintMismatch | aiohttp.ClientSSLError) -> Unavailable:
        anew = f"if its certificate is another on purpose: tt-agent --invite there, then tt host add {self._addr} again"
        if isinstance(error, aiohttp.ServerFingerprintMismatch):
            return Unavailable(
                f"what answers at {self._addr} is not the host that was joined there",
                code="host_certificate_changed",
                reason=f"its certificate is {error.got.hex()}, and not {self._fingerprint}",
                resolution=f"see who answers there; {anew}",
            )
        return Unavailable(
            f"what answers at {self._addr} does not speak TLS as the host does that was joined there",
            code="host_tls_failed",
            reason=" ".join(str(error).split()),
            resolution=f"see who answers there; {anew}",
        )

    def _unreachable(self, reason: str) -> Unavailable:
        return Unavailable(
            f"the host at {self._addr} does not answer",
            code="host_unreachable",
            reason=reason,
            resolution="see whether its tt-agent runs and can be reached; it is asked again by itself",
        )

    @property
    def _pin(self) -> aiohttp.Fingerprint | bool:
        return True if self._fingerprint is None else aiohttp.Fingerprint(bytes.fromhex(self._fingerprint))

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            headers = {} if self._credential is None else {"authorization": f"Bearer {self._credential}"}
            self._opened = aiohttp.ClientSession(
                f"{'http' if self._fingerprint is None else 'https'}://{self._addr}",
                headers=headers,
                connector=aiohttp.TCPConnector(limit=0, limit_per_host=64, ssl=self._pin),
                auto_decompress=False,
                trust_env=False,
            )
        return self._opened


class _Once:
    """Content that is sent once: what is left of it after a broken connection must not be taken for all of it."""

    def __init__(self, content: AsyncIterator[bytes]) -> None:
        self._content: AsyncIterator[bytes] | None = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        content, self._content = self._content, None
        if content is None:
            raise ConnectionError("the connection broke while the content was sent")
        return content


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield whole lines, however the connection cuts them."""
    rest = b""
    async for part in response.content.iter_any():
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            if line:
                yield line
        if len(rest) > MOST_LINE_BYTES:
            raise aiohttp.ClientPayloadError("a line of the answer is too long")

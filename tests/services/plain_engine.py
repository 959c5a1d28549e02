"""An engine for tests: a machine is a process that sleeps, its disk the folder that the store made for it.

Everything about it is real but the wall: processes with start times and markers, files, exit codes, signals.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import tarfile
import termios
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from borough.adapters import process
from borough.adapters.network.host import LinuxNetwork, NetworkSettings
from borough.adapters.process import Child, Marker, ProcessRef
from borough.adapters.storage.files import FileStore
from borough.bootstrap.host import HostParts
from borough.config.fleet import HostSettings
from borough.core.errors import Conflict, NotFound, Unavailable
from borough.fleet.engines import Capability, Engine, Missing, Offer
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
from borough.fleet.vms import VmId

MARKER = "BOROUGH_TEST_MACHINE"
_STOPPED_LETTER = "T"
_ASKED = "asked-to-stop"
_KEPT: list[Child] = []
"""Machines outlive the engine that started them; their exit status is collected at the end of the process."""
_ABILITIES = frozenset(Capability) - {Capability.KERNEL, Capability.SNAPSHOT_MEMORY}


@dataclass(slots=True)
class Trouble:
    """What is to go wrong: a step's name → the error that it raises, once for each time it is in the list."""

    errors: dict[str, list[Exception]] = field(default_factory=dict)
    stalls: dict[str, asyncio.Event] = field(default_factory=dict)

    async def at(self, step: str) -> None:
        if step in self.stalls:
            await self.stalls[step].wait()
        if self.errors.get(step):
            raise self.errors[step].pop(0)


class PlainEngine:
    """The port ``EngineDriver``, with processes that sleep."""

    def __init__(self, folder: Path, marker: str, engine: Engine = Engine.BUBBLEWRAP) -> None:
        self.engine = engine
        self.trouble = Trouble()
        self._folder = folder
        self._marker = marker
        self._children: dict[VmId, Child] = {}
        folder.mkdir(parents=True, exist_ok=True)

    async def probe(self) -> Offer | Missing:
        await self.trouble.at("probe")
        return Offer(engine=self.engine, version="1", capabilities=_ABILITIES)

    async def create(self, order: MachineOrder) -> None:
        await self.trouble.at("create")
        (self._own(order.vm_id)).mkdir(exist_ok=True)
        assert order.disk is not None
        (self._own(order.vm_id) / "root").write_text(str(order.disk.path / "upper"))
        keys = self._root(order.vm_id) / "root" / ".ssh" / "authorized_keys"
        keys.parent.mkdir(parents=True, exist_ok=True)
        keys.write_text("".join(f"{key}\n" for key in order.spec.ssh_keys))
        await self.start(order)
        await self.trouble.at("created")

    async def start(self, order: MachineOrder) -> None:
        await self.trouble.at("start")
        ref = self._ref(order.vm_id)
        if ref is not None and process.is_alive(ref):
            await _signalled(ref, signal.SIGCONT, paused=False)
            return
        (self._own(order.vm_id) / _ASKED).unlink(missing_ok=True)
        log = self._own(order.vm_id) / "log"
        with log.open("ab") as printed:
            printed.write(f"booted {order.vm_id}\n".encode())
        marked = {MARKER: f"{self._marker}/{order.vm_id}"}
        # One that was started when the daemon was killed, before it could note which it is.
        await asyncio.to_thread(process.reap, Marker(MARKER, marked[MARKER]), grace_s=0.0)
        child = process.start(["sleep", "86400"], env=marked, cwd=self._root(order.vm_id))
        self._children[order.vm_id] = child
        _KEPT.append(child)
        written = self._own(order.vm_id) / "process.new"
        written.write_text(json.dumps([child.ref.pid, child.ref.started_ticks]))
        written.rename(self._own(order.vm_id) / "process")

    async def stop(self, vm_id: VmId, *, grace_s: float) -> None:  # noqa: ARG002 - it ends at once
        await self.trouble.at("stop")
        self._must(vm_id)
        (self._own(vm_id) / _ASKED).touch()
        await self._end(vm_id)

    async def last_process(self, vm_id: VmId) -> ProcessRef | None:
        ref = self._ref(vm_id)
        return ref if ref is not None and process.is_alive(ref) else None

    async def pause(self, vm_id: VmId) -> None:
        ref = self._ref(vm_id)
        if ref is None or not process.is_alive(ref):
            raise _absent(vm_id)
        await _signalled(ref, signal.SIGSTOP, paused=True)

    async def destroy(self, vm_id: VmId) -> None:
        await self.trouble.at("destroy")
        await self._end(vm_id)
        shutil.rmtree(self._own(vm_id), ignore_errors=True)

    async def find(self, vm_id: VmId) -> Finding:
        if not self._own(vm_id).is_dir():
            return Finding(found=Found.ABSENT)
        child = self._children.get(vm_id)
        if child is not None:
            child.poll()
        ref = self._ref(vm_id)
        if ref is None or not process.is_alive(ref):
            asked = (self._own(vm_id) / _ASKED).exists()
            return Finding(found=Found.STOPPED) if asked else Finding(found=Found.GONE, detail="it was killed")
        return Finding(found=Found.PAUSED if _is_paused(ref) else Found.RUNNING)

    async def machines(self) -> Sequence[VmId]:
        return [VmId(each.name) for each in sorted(self._folder.iterdir())]

    async def execute(self, vm_id: VmId, order: ExecOrder, stdin: AsyncIterator[bytes]) -> AsyncIterator[Chunk]:
        if order.tty is not None:
            async for chunk in self._at_terminal(vm_id, order, stdin):
                yield chunk
            return
        given = b"".join([part async for part in stdin])
        root = self._root(vm_id)
        try:
            started = await asyncio.create_subprocess_exec(
                *order.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=root / (order.cwd or "/").lstrip("/"),
                env={"PATH": "/usr/bin:/bin", **order.env},
            )
        except FileNotFoundError as error:
            raise NotFound(str(error), code="file_not_found") from None
        assert started.stdin is not None
        assert started.stdout is not None
        assert started.stderr is not None
        try:
            started.stdin.write(given)
            await started.stdin.drain()
            started.stdin.close()
            while part := await started.stdout.read(65_536):
                yield Chunk(stream=Stream.STDOUT, data=part)
            if said := await started.stderr.read():
                yield Chunk(stream=Stream.STDERR, data=said)
            yield Chunk(stream=Stream.EXIT, exit_code=await started.wait())
        finally:
            if started.returncode is None:
                started.kill()
                await started.wait()

    async def _at_terminal(self, vm_id: VmId, order: ExecOrder, stdin: AsyncIterator[bytes]) -> AsyncIterator[Chunk]:
        outer, inner = os.openpty()
        termios.tcsetwinsize(outer, order.tty or (24, 80))
        started = await asyncio.create_subprocess_exec(
            *order.argv, stdin=inner, stdout=inner, stderr=inner, start_new_session=True,
            cwd=self._root(vm_id), env={"PATH": "/usr/bin:/bin", **order.env},
        )  # fmt: skip
        os.close(inner)
        tasks = [asyncio.ensure_future(_typed(outer, stdin))]
        if order.sizes is not None:
            tasks.append(asyncio.ensure_future(_sized(outer, started, order.sizes)))
        try:
            while part := await _printed(outer):
                yield Chunk(stream=Stream.STDOUT, data=part)
            yield Chunk(stream=Stream.EXIT, exit_code=await started.wait())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if started.returncode is None:
                started.kill()
                await started.wait()
            os.close(outer)

    async def console(self, vm_id: VmId, keys: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """A console that says what is typed at it, and who is there."""
        self._must(vm_id)
        yield b""
        yield f"{vm_id} console\r\n".encode()
        async for part in keys:
            yield part

    async def logs(self, vm_id: VmId, *, offset: int, follow: bool) -> AsyncIterator[bytes]:
        self._must(vm_id)
        while True:
            with (self._own(vm_id) / "log").open("rb") as printed:
                printed.seek(offset)
                part = printed.read()
            offset += len(part)
            if part:
                yield part
            if not follow:
                return
            await asyncio.sleep(0.02)

    async def listing(self, vm_id: VmId, path: str) -> Sequence[FileEntry]:
        folder = self._inside(vm_id, path)
        if not folder.is_dir():
            raise _no_file(path)
        return [
            FileEntry(
                name=each.name,
                path=f"{path.rstrip('/')}/{each.name}",
                is_dir=each.is_dir(),
                size=each.stat().st_size,
                modified=datetime.fromtimestamp(int(each.stat().st_mtime), UTC),
            )
            for each in sorted(folder.iterdir())
        ]

    async def read(self, vm_id: VmId, path: str, *, as_tar: bool) -> AsyncIterator[bytes]:
        place = self._inside(vm_id, path)
        if not place.exists():
            raise _no_file(path)
        if not as_tar:
            yield place.read_bytes()
            return
        packed = BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(place, arcname=".")
        yield packed.getvalue()

    async def write(self, vm_id: VmId, path: str, content: AsyncIterator[bytes], *, from_tar: bool) -> int:
        whole = b"".join([part async for part in content])
        place = self._inside(vm_id, path)
        if from_tar:
            place.mkdir(parents=True, exist_ok=True)
            with tarfile.open(fileobj=BytesIO(whole)) as archive:
                archive.extractall(place, filter="data")
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(whole)
        return len(whole)

    async def stats(self, vm_id: VmId) -> MachineStats:
        self._must(vm_id)
        return MachineStats(processes=1, memory_bytes=4096)

    async def snapshot(self, vm_id: VmId, name: str) -> SnapshotInfo:
        place = self._own(vm_id) / "snapshots" / name
        if not place.is_dir():
            shutil.copytree(self._root(vm_id), place)
        return _snapshot(place)

    async def snapshots(self, vm_id: VmId) -> Sequence[SnapshotInfo]:
        self._must(vm_id)
        place = self._own(vm_id) / "snapshots"
        return [_snapshot(each) for each in sorted(place.iterdir())] if place.is_dir() else []

    async def restore(self, order: MachineOrder, name: str) -> None:
        place = self._own(order.vm_id) / "snapshots" / name
        if not place.is_dir():
            raise NotFound(f"there is no snapshot {name}", code="snapshot_not_found")
        root = self._root(order.vm_id)
        shutil.rmtree(root)
        shutil.copytree(place, root)

    async def delete_snapshot(self, vm_id: VmId, name: str) -> None:
        shutil.rmtree(self._own(vm_id) / "snapshots" / name, ignore_errors=True)

    async def copy_snapshot(self, vm_id: VmId, name: str, target: Path) -> None:
        await self.trouble.at("copy_snapshot")
        place = self._own(vm_id) / "snapshots" / name
        if not place.is_dir():
            raise NotFound(f"there is no snapshot {name}", code="snapshot_not_found")
        target.mkdir()
        (target / "lower").symlink_to((self._root(vm_id).parent / "lower").readlink())
        (target / "work").mkdir()
        shutil.copytree(place, target / "upper")

    async def _end(self, vm_id: VmId) -> None:
        ref = self._ref(vm_id)
        if ref is not None and process.is_alive(ref):
            os.kill(ref.pid, signal.SIGKILL)
        child = self._children.pop(vm_id, None)
        if child is not None:
            await asyncio.to_thread(child.wait, 5)
        while ref is not None and process.is_alive(ref):
            await asyncio.sleep(0.01)
        for ended in [each for each in _KEPT if each.poll() is not None]:
            _KEPT.remove(ended)

    def _own(self, vm_id: VmId) -> Path:
        return self._folder / vm_id

    def _root(self, vm_id: VmId) -> Path:
        self._must(vm_id)
        return Path((self._own(vm_id) / "root").read_text())

    def _inside(self, vm_id: VmId, path: str) -> Path:
        if ".." in path:
            raise Conflict(f"{path} leads out", code="not_possible")
        return self._root(vm_id) / path.lstrip("/")

    def _must(self, vm_id: VmId) -> None:
        if not self._own(vm_id).is_dir():
            raise _absent(vm_id)

    def _ref(self, vm_id: VmId) -> ProcessRef | None:
        kept = self._own(vm_id) / "process"
        if not kept.is_file():  # whoever started it was killed before this was written: it is known by its mark
            found = process.owned(Marker(MARKER, f"{self._marker}/{vm_id}"))
            return found[0] if found else None
        pid, start_ticks = json.loads(kept.read_text())
        return ProcessRef(pid, start_ticks)


async def _signalled(ref: ProcessRef, number: signal.Signals, *, paused: bool) -> None:
    """Signal a process, and return when it has taken effect, which is later than the call on a busy machine."""
    os.kill(ref.pid, number)
    while _is_paused(ref) is not paused:
        await asyncio.sleep(0.001)


def _is_paused(ref: ProcessRef) -> bool:
    return Path(f"/proc/{ref.pid}/stat").read_text().rpartition(")")[2].split()[0] == _STOPPED_LETTER


def _snapshot(place: Path) -> SnapshotInfo:
    made = datetime.fromtimestamp(int(place.stat().st_mtime), UTC)
    return SnapshotInfo(name=place.name, created_at=made, size_bytes=0, with_memory=False)


def _absent(vm_id: VmId) -> NotFound:
    return NotFound(f"the engine has nothing of {vm_id}", code="vm_not_found")


def _no_file(path: str) -> NotFound:
    return NotFound(f"there is no {path}", code="file_not_found")


def failed(what: str) -> Unavailable:
    return Unavailable(what, code="engine_failed")


def plain_image(images: Path, name: str = "base") -> None:
    """Put a folder there that is an image."""
    (images / name / "etc").mkdir(parents=True)
    (images / name / "etc" / "hostname").write_text("plain\n")


@asynccontextmanager
async def plain_parts(settings: HostSettings, marker: str) -> AsyncIterator[HostParts]:
    """Yield the parts of a host that needs no privilege: real disks, user-mode networking, processes that sleep."""
    runtime = Path(settings.runtime_dir)
    network = LinuxNetwork(NetworkSettings(marker=marker, privileged=False))
    await network.open()
    engine = PlainEngine(runtime.parent / "engine", marker)
    yield HostParts(
        disks=FileStore(images=Path(settings.image_dir), runtime=runtime),
        network=network,
        drivers={Engine.BUBBLEWRAP: engine},
    )


async def _typed(terminal: int, keys: AsyncIterator[bytes]) -> None:
    async for part in keys:
        await asyncio.to_thread(os.write, terminal, part)


async def _sized(terminal: int, started: asyncio.subprocess.Process, sizes: AsyncIterator[tuple[int, int]]) -> None:
    async for size in sizes:
        termios.tcsetwinsize(terminal, size)
        if started.returncode is None:
            # Not by the transport, which would collect one that has ended under the watcher's hands.
            os.kill(started.pid, signal.SIGWINCH)


async def _printed(terminal: int) -> bytes:
    """Return what a terminal prints next, nothing when nobody is at it any more."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(terminal, lambda: ready.done() or ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(terminal)
    try:
        return os.read(terminal, 65_536)
    except OSError:
        return b""

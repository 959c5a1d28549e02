"""A host, in this process, over HTTP and over HTTPS: the same promises."""

import asyncio
import hashlib
import io
import tarfile
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest

from borough.adapters.host.http import HttpHost
from borough.core.clock import utc_now
from borough.core.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from borough.fleet.engines import Capability, Engine
from borough.fleet.images import Image, ImageForm
from borough.fleet.ports.engines import Chunk, ExecOrder, Stream
from borough.fleet.ports.host_agent import CreateOrder, HostAgent
from borough.fleet.vms import Origin, VmId, VmState
from tests.contracts.fleet_kit import a_spec, fresh_vm_id
from tests.services.fleet_house import end_machines, opened_host, running_host, settings_of_host, with_key
from tests.services.plain_engine import PlainEngine, failed

pytestmark = pytest.mark.anyio
Item = TypeVar("Item")


@dataclass(slots=True)
class Host:
    agent: HostAgent
    engine: PlainEngine


@pytest.fixture(params=["in-process", "http", "https"])
async def host(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Host]:
    settings = settings_of_host(tmp_path)
    if request.param == "in-process":
        async with opened_host(settings) as (opened, engine):
            yield Host(agent=opened.daemon, engine=engine)
            await end_machines(engine)
        return
    if request.param == "https":
        settings = replace(settings, listening=replace(settings.listening, tls=True))
    async with running_host(settings) as running:
        certificate = running.opened.certificate
        fingerprint = None if certificate is None else certificate.fingerprint
        agent = HttpHost(running.addr, credential=None, fingerprint=fingerprint)
        yield Host(agent=agent, engine=running.engine)
        await agent.close()


def an_order(**other: object) -> CreateOrder:
    spec = a_spec(**{"engine": Engine.BUBBLEWRAP, "mem_mib": 64, **other})
    return CreateOrder(vm_id=fresh_vm_id(), env_id="e1", spec=spec)


async def feed(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def chunks_of(host: Host, order: CreateOrder, *argv: str, stdin: bytes = b"") -> list[Chunk]:
    command = ExecOrder(argv=argv, env={"WORD": "spoken"})
    return [chunk async for chunk in host.agent.execute(order.vm_id, command, feed(stdin))]


def said(chunks: Iterable[Chunk], stream: Stream) -> bytes:
    return b"".join(chunk.data for chunk in chunks if chunk.stream is stream)


async def whole(parts: AsyncIterator[bytes]) -> bytes:
    return b"".join([part async for part in parts])


async def test_a_host_says_what_it_has(host: Host) -> None:
    report = await host.agent.report()
    assert report.resource.cpu_total == 8
    assert report.images == ("base",)
    assert report.image_digests["base"]
    (offer,) = report.offers
    assert offer.engine is Engine.BUBBLEWRAP
    assert Capability.EXEC in offer.capabilities
    assert report.pressure.memory_available_mib is not None


async def test_a_machine_is_made_once_however_often_it_is_ordered(host: Host) -> None:
    order = an_order(ports=(80,), deny_outgoing=True)
    vms = await asyncio.gather(*(host.agent.create(order) for _ in range(3)))
    first = vms[0]
    assert (first.state, first.env_id) == (VmState.RUNNING, "e1")
    assert sorted(first.port_map) == [22, 80]
    assert first.spec.deny_outgoing
    assert {(vm.id, vm.ip, tuple(vm.port_map.items())) for vm in vms} == {
        (first.id, first.ip, tuple(first.port_map.items()))
    }
    assert [vm.id for vm in await host.agent.machines()] == [order.vm_id]
    assert (await host.agent.machine(order.vm_id)).ip == first.ip
    assert (await host.agent.report()).resource.vm_count == 1


async def test_another_order_of_the_same_id_is_refused(host: Host) -> None:
    order = an_order()
    await host.agent.create(order)
    with pytest.raises(Conflict) as refused:
        await host.agent.create(replace(order, env_id="other"))
    assert refused.value.code == "vm_exists"


async def test_what_the_host_does_not_have_is_refused_by_name(host: Host) -> None:
    with pytest.raises(Invalid) as engine:
        await host.agent.create(an_order(engine=Engine.FIRECRACKER))
    assert engine.value.code == "engine_missing"
    with pytest.raises(Conflict) as room:
        await host.agent.create(an_order(cpu=9))
    assert room.value.code == "no_room"
    assert "cpu 8" in str(room.value.reason)
    with pytest.raises((Invalid, NotFound)) as image:
        await host.agent.create(an_order(image="absent"))
    assert image.value.code in {"image_missing", "image_not_found"}
    assert await host.agent.machines() == []


async def test_a_machine_that_cannot_be_made_leaves_nothing_and_the_engine_is_heard(host: Host) -> None:
    order = an_order()
    host.engine.trouble.errors["create"] = [failed("out of luck")]
    with pytest.raises(Unavailable) as refused:
        await host.agent.create(order)
    assert refused.value.code == "create_failed"
    assert "out of luck" in refused.value.message
    assert await host.agent.machines() == []
    assert (await host.agent.report()).resource.disk_used == 0
    assert (await host.agent.create(order)).state is VmState.RUNNING


async def test_a_machine_is_stopped_started_paused_and_ended(host: Host) -> None:
    order = an_order()
    await host.agent.create(order)
    assert (await host.agent.stop(order.vm_id)).state is VmState.STOPPED
    assert (await host.agent.report()).resource.cpu_used == 0
    assert (await host.agent.stop(order.vm_id)).state is VmState.STOPPED
    assert (await host.agent.start(order.vm_id)).state is VmState.RUNNING
    assert (await host.agent.pause(order.vm_id)).state is VmState.PAUSED
    assert (await host.agent.start(order.vm_id)).state is VmState.RUNNING
    await host.agent.destroy(order.vm_id)
    await host.agent.destroy(order.vm_id)
    assert await host.agent.machines() == []
    assert await host.engine.machines() == []
    with pytest.raises(NotFound) as gone:
        await host.agent.machine(order.vm_id)
    assert gone.value.code == "vm_not_found"
    with pytest.raises(NotFound):
        await host.agent.stop(order.vm_id)


async def test_an_order_that_comes_after_the_end_was_asked_for_makes_nothing(host: Host) -> None:
    order = an_order()
    await host.agent.destroy(order.vm_id)
    with pytest.raises(Conflict) as refused:
        await host.agent.create(order)
    assert refused.value.code == "vm_deleted"


async def test_what_cannot_be_removed_stays_and_says_why(host: Host) -> None:
    order = an_order()
    await host.agent.create(order)
    host.engine.trouble.errors["destroy"] = [failed("it clings")]
    with pytest.raises(Unavailable) as refused:
        await host.agent.destroy(order.vm_id)
    assert refused.value.code == "not_yet_removed"
    vm = await host.agent.machine(order.vm_id)
    assert vm.state is VmState.DELETING
    assert "it clings" in str(vm.error)
    await host.agent.destroy(order.vm_id)
    assert await host.agent.machines() == []


async def test_a_command_is_heard_and_its_exit_code_known(host: Host) -> None:
    order = an_order()
    await host.agent.create(order)
    script = 'cat; printf " %s" "$WORD"; printf oops >&2; exit 3'
    chunks = await chunks_of(host, order, "sh", "-c", script, stdin=b"\x00\xffgiven")
    assert said(chunks, Stream.STDOUT) == b"\x00\xffgiven spoken"
    assert said(chunks, Stream.STDERR) == b"oops"
    assert chunks[-1].exit_code == 3


async def test_much_output_comes_whole(host: Host) -> None:
    order = an_order()
    await host.agent.create(order)
    chunks = await chunks_of(host, order, "sh", "-c", "head -c 3000000 /dev/zero")
    assert len(said(chunks, Stream.STDOUT)) == 3_000_000
    assert chunks[-1].exit_code == 0


async def test_a_command_that_nobody_listens_to_is_ended(host: Host, tmp_path: Path) -> None:
    order = an_order()
    await host.agent.create(order)
    told = tmp_path / "pid"
    command = ExecOrder(argv=("sh", "-c", f"echo $$ > {told}; echo begun; exec sleep 1000"))
    async with aclosing(host.agent.execute(order.vm_id, command, feed())) as chunks:
        assert (await anext(chunks)).data == b"begun\n"
    pid = int(told.read_text())
    async with asyncio.timeout(60):
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.01)


async def test_a_command_at_a_terminal_is_typed_at_and_resized(host: Host) -> None:
    vm = await host.agent.create(an_order())
    keys, sizes = asyncio.Queue[bytes](), asyncio.Queue[tuple[int, int]]()
    typed = "stty size; read name; echo hello $name"
    script = f"{typed}; trap 'stty size; exit 5' WINCH; echo armed; while :; do sleep 0.1; done"
    wanted = ExecOrder(argv=("sh", "-c", script), tty=(40, 100), sizes=_taken(sizes))
    printed, code = b"", None
    keys.put_nowait(b"ada\r")
    async with asyncio.timeout(60), aclosing(host.agent.execute(vm.id, wanted, _taken(keys))) as chunks:
        async for chunk in chunks:
            printed, code = printed + chunk.data, chunk.exit_code
            if b"armed" in printed and sizes.empty():
                sizes.put_nowait((23, 71))
    assert code == 5
    for told in (b"40 100\r\n", b"hello ada\r\n", b"23 71\r\n"):
        assert told in printed


async def test_a_console_is_typed_at_where_there_is_one(host: Host) -> None:
    vm = await host.agent.create(an_order())
    keys = asyncio.Queue[bytes]()
    async with asyncio.timeout(60), aclosing(host.agent.console(vm.id, _taken(keys))) as parts:
        assert await anext(parts) == b""
        assert (await anext(parts)).startswith(vm.id.encode())
        keys.put_nowait(b"typed")
        assert await anext(parts) == b"typed"
    with pytest.raises(NotFound) as unknown:
        await anext(host.agent.console(VmId("none"), _taken(keys)))
    assert unknown.value.code == "vm_not_found"


async def _taken(queue: asyncio.Queue[Item]) -> AsyncIterator[Item]:
    while True:
        yield await queue.get()


async def test_commands_need_a_machine_that_runs(host: Host) -> None:
    order = an_order()
    with pytest.raises(NotFound) as absent:
        await chunks_of(host, order, "true")
    assert absent.value.code == "vm_not_found"
    await host.agent.create(order)
    await host.agent.stop(order.vm_id)
    with pytest.raises(Conflict) as stopped:
        await chunks_of(host, order, "true")
    assert stopped.value.code == "vm_not_running"


async def test_files_go_in_and_out(host: Host) -> None:
    order = an_order()
    await host.agent.create(order)
    content = bytes(range(256)) * 4000
    assert await host.agent.write(order.vm_id, "/srv/a b.bin", feed(content[:10], content[10:]), from_tar=False) == len(
        content
    )
    assert await whole(host.agent.read(order.vm_id, "/srv/a b.bin", as_tar=False)) == content
    (entry,) = await host.agent.listing(order.vm_id, "/srv")
    assert (entry.name, entry.path, entry.is_dir, entry.size) == ("a b.bin", "/srv/a b.bin", False, len(content))
    packed = await whole(host.agent.read(order.vm_id, "/srv", as_tar=True))
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert "./a b.bin" in archive.getnames()
    assert await host.agent.write(order.vm_id, "/copy", feed(packed), from_tar=True) == len(packed)
    assert await whole(host.agent.read(order.vm_id, "/copy/a b.bin", as_tar=False)) == content
    with pytest.raises(NotFound) as absent:
        await whole(host.agent.read(order.vm_id, "/nothing", as_tar=False))
    assert absent.value.code == "file_not_found"
    with pytest.raises(NotFound):
        await host.agent.listing(order.vm_id, "/nothing")


async def test_what_a_machine_prints_can_be_read_and_followed(host: Host) -> None:
    order = an_order()
    await host.agent.create(order)
    booted = f"booted {order.vm_id}\n".encode()
    assert await whole(host.agent.logs(order.vm_id, offset=0, follow=False)) == booted
    assert await whole(host.agent.logs(order.vm_id, offset=7, follow=False)) == booted[7:]
    async with aclosing(host.agent.logs(order.vm_id, offset=0, follow=True)) as parts:
        assert await anext(parts) == booted
        await host.agent.stop(order.vm_id)
        await host.agent.start(order.vm_id)
        assert await anext(parts) == booted


async def test_a_snapshot_is_returned_to(host: Host) -> None:
    order = an_order()
    await host.agent.create(order)
    await host.agent.write(order.vm_id, "/f", feed(b"before"), from_tar=False)
    taken = await host.agent.snapshot(order.vm_id, "s1")
    assert taken == await host.agent.snapshot(order.vm_id, "s1")
    await host.agent.write(order.vm_id, "/f", feed(b"after"), from_tar=False)
    assert [each.name for each in await host.agent.snapshots(order.vm_id)] == ["s1"]
    assert (await host.agent.restore(order.vm_id, "s1")).id == order.vm_id
    assert await whole(host.agent.read(order.vm_id, "/f", as_tar=False)) == b"before"
    with pytest.raises(NotFound) as absent:
        await host.agent.restore(order.vm_id, "s2")
    assert absent.value.code == "snapshot_not_found"
    await host.agent.delete_snapshot(order.vm_id, "s1")
    await host.agent.delete_snapshot(order.vm_id, "s1")
    assert await host.agent.snapshots(order.vm_id) == []


async def test_a_machine_is_made_from_a_snapshot_of_another(host: Host) -> None:
    first, agent = an_order(env={"SECRET": "s"}), host.agent
    await agent.create(first)
    await agent.write(first.vm_id, "/note", feed(b"kept"), from_tar=False)
    await agent.snapshot(first.vm_id, "first")
    await agent.write(first.vm_id, "/note", feed(b"later"), from_tar=False)
    clone = an_order(origin=Origin(vm_id=first.vm_id, snapshot="first"))
    made = await agent.create(clone)
    source = await agent.machine(first.vm_id)
    assert made.state is VmState.RUNNING
    assert made.ip != source.ip
    assert not set(made.port_map.values()) & set(source.port_map.values())
    assert await whole(agent.read(clone.vm_id, "/note", as_tar=False)) == b"kept"
    await agent.destroy(first.vm_id)
    assert (await agent.create(clone)).id == clone.vm_id, "the same order again, although its source is gone"
    assert await whole(agent.read(clone.vm_id, "/note", as_tar=False)) == b"kept"


async def test_what_cannot_be_made_from_a_snapshot_leaves_nothing(host: Host) -> None:
    first, agent = an_order(), host.agent
    await agent.create(first)
    await agent.snapshot(first.vm_id, "first")
    none = an_order(origin=Origin(vm_id=first.vm_id, snapshot="none"))
    with pytest.raises(NotFound) as refused:
        await agent.create(none)
    assert refused.value.code == "snapshot_not_found"
    nobody = an_order(origin=Origin(vm_id=none.vm_id, snapshot="first"))
    with pytest.raises(NotFound) as refused:
        await agent.create(nobody)
    assert refused.value.code == "vm_not_found"
    host.engine.trouble.errors["create"] = [failed("no")]
    with pytest.raises(Unavailable):
        await agent.create(an_order(origin=Origin(vm_id=first.vm_id, snapshot="first")))
    assert [vm.id for vm in await agent.machines()] == [first.vm_id]
    assert list(await host.engine.machines()) == [first.vm_id]
    assert (await agent.create(an_order(origin=Origin(vm_id=first.vm_id, snapshot="first")))).state is VmState.RUNNING


async def test_what_a_machine_uses_is_told_as_far_as_it_is_known(host: Host) -> None:
    order = an_order()
    await host.agent.create(order)
    stats = await host.agent.stats(order.vm_id)
    assert stats.processes == 1
    assert stats.cpu_seconds is None


async def test_an_image_travels_and_a_wrong_one_is_refused(host: Host) -> None:
    content = b"disk" * 100_000
    image = Image(
        name="disk.raw",
        form=ImageForm.RAW,
        digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
        size_bytes=len(content),
        created_at=utc_now(),
    )
    taken = await host.agent.put_image(image, feed(content[:7], content[7:]))
    assert (taken.name, taken.digest) == (image.name, image.digest)
    assert await whole(host.agent.image_content("disk.raw")) == content
    assert "disk.raw" in [each.name for each in await host.agent.images()]
    with pytest.raises(Conflict) as wrong:
        await host.agent.put_image(replace(image, name="other.raw"), feed(b"something else"))
    assert wrong.value.code == "digest_mismatch"
    with pytest.raises(NotFound):
        await whole(host.agent.image_content("other.raw"))


# -- over HTTP only ----------------------------------------------------------------------------------------------------


async def test_nobody_there_and_somebody_else_there_are_told_apart() -> None:
    nobody = HttpHost("127.0.0.1:1", credential=None)
    with pytest.raises(Unavailable) as unreachable:
        await nobody.report()
    assert unreachable.value.code == "host_unreachable"
    await nobody.close()

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(other, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    somebody = HttpHost(f"127.0.0.1:{port}", credential=None)
    with pytest.raises(Unavailable) as wrong:
        await somebody.report()
    assert wrong.value.code == "not_a_host"
    await somebody.close()
    server.close()
    await server.wait_closed()


async def test_a_host_that_stalls_or_breaks_off_is_unknown_and_asked_twice_at_most() -> None:
    asked = 0
    hang = asyncio.Event()

    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/api/vms/x/pause" in head:
            await hang.wait()
        writer.close()

    server = await asyncio.start_server(broken, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    host = HttpHost(f"127.0.0.1:{port}", credential=None, act_s=0.2)
    with pytest.raises(Unavailable) as gone:
        await host.report()
    assert gone.value.code == "host_unreachable"
    assert asked == 2
    with pytest.raises(Unavailable):
        await host.stop(VmId("x"))
    assert asked == 4
    with pytest.raises(Unavailable) as stalled:
        await host.pause(VmId("x"))
    assert (stalled.value.code, stalled.value.reason) == ("host_unreachable", "no answer within 0.2 s")
    assert asked == 5
    with pytest.raises(Unavailable):
        _ = [chunk async for chunk in host.execute(VmId("x"), ExecOrder(argv=("true",)), feed())]
    assert asked == 6, "a command is not sent twice"
    with pytest.raises(Unavailable):
        await host.write(VmId("x"), "/f", feed(b"a" * 100_000), from_tar=False)
    assert asked == 7, "half a file is not sent as a whole one"
    hang.set()
    await host.close()
    server.close()
    await server.wait_closed()


async def test_a_wrong_key_is_told(tmp_path: Path) -> None:
    async with running_host(settings_of_host(tmp_path, listening=with_key("secret"))) as running:
        for credential in (None, "guess"):
            host = HttpHost(running.addr, credential=credential)
            with pytest.raises(Forbidden) as refused:
                await host.report()
            assert refused.value.code == "host_refused_key"
            await host.close()
        host = HttpHost(running.addr, credential="secret")
        assert (await host.report()).host_id
        await host.close()

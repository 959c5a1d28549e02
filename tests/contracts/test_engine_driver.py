"""What holds of every engine's machines."""

import asyncio
import io
import os
import shutil
import signal
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from borough.adapters.engines.endings import EngineEndings
from borough.core.errors import BoroughError, Conflict, NotFound
from borough.fleet.engines import Capability, Engine, Offer
from borough.fleet.ports.engines import ExecOrder, Found, MachineOrder
from borough.fleet.vms import Origin
from tests.conftest import eventually, need
from tests.contracts.engine_kit import ENGINES, KEY, SERVE, SERVICE, Bench, bench_of, run, sent
from tests.contracts.fleet_kit import a_vm
from tests.services.spaces import Echo, outside, own_network, udp, within
from tests.services.spaces import tcp as tcp_echo

pytestmark = pytest.mark.anyio
Item = TypeVar("Item")
HOST, WORLD = "192.0.2.1", "192.0.2.2"


@pytest.fixture
def world() -> Iterator[str]:
    need(os.geteuid() == 0, "the right to make network namespaces", "run the tests as root")
    need(shutil.which("nft"), "nft", "apt-get install nftables")
    with own_network(), outside(HOST, WORLD) as space:
        yield space


@pytest.fixture(params=sorted(ENGINES))
async def bench(request: pytest.FixtureRequest, world: str, tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench_of(request.param, tmp_path, world) as made:
        yield made


async def answers(space: str | None, address: str, port: int) -> str:
    """Return what a service says; nothing if it does not."""

    def call() -> str:
        import socket  # noqa: PLC0415 - in another namespace's thread

        try:
            with socket.create_connection((address, port), 2.0) as caller:
                caller.settimeout(2.0)
                return caller.recv(64).decode(errors="replace").strip()
        except OSError:
            return ""

    return await asyncio.to_thread(within, space, call)


async def found(bench: Bench, order: MachineOrder) -> Found:
    return (await bench.driver.find(order.vm_id)).found


async def test_it_tells_what_it_can_do_here(bench: Bench) -> None:
    offer = await bench.driver.probe()
    assert isinstance(offer, Offer)
    assert offer.engine is bench.driver.engine
    assert {Capability.EXEC, Capability.FILES, Capability.LOGS, Capability.PUBLISH_TCP} <= offer.capabilities
    assert not offer.capabilities & set(offer.reasons), "what it can needs no excuse"
    assert (Capability.MEMORY_LIMIT in offer.capabilities) is bench.bridged
    assert Capability.DENY_OUTGOING in offer.capabilities
    assert not await bench.driver.machines(), "nothing is left of the look"


async def test_a_service_is_reached_through_its_published_port(bench: Bench) -> None:
    order = await bench.made(command=SERVE, env={"NAME": "the machine"})
    port = order.link.port_map[SERVICE]

    async def answered() -> bool:
        return await answers(None, "127.0.0.1", port) == "hello from the machine"

    await eventually(answered)

    async def heard_outside() -> bool:
        return await answers(bench.world, HOST, port) == "hello from the machine"

    await eventually(heard_outside)


async def test_a_command_has_input_output_errors_and_an_end(bench: Bench) -> None:
    order = await bench.made(env={"GIVEN": "yes"})
    said = await run(bench.driver, order.vm_id, "sh", "-c", "cat; echo $GIVEN $MORE; echo oh >&2; exit 3",
                     stdin=(b"one ", b"two\n"), env={"MORE": "too"})  # fmt: skip
    assert (said.code, said.out, said.err) == (3, "one two\nyes too\n", "oh\n")
    assert (await run(bench.driver, order.vm_id, "pwd", cwd="/tmp")).out == "/tmp\n"
    assert (await run(bench.driver, order.vm_id, "id", "-u")).out == "0\n"
    assert (await run(bench.driver, order.vm_id, "hostname")).out.strip() == order.vm_id
    assert (await run(bench.driver, order.vm_id, "no-such-program")).code in (126, 127)
    killed = await run(bench.driver, order.vm_id, "sh", "-c", "kill -9 $$")
    assert killed.code == 128 + signal.SIGKILL


async def test_a_command_may_say_much(bench: Bench) -> None:
    order = await bench.made()
    said = await run(bench.driver, order.vm_id, "head", "-c", "3000000", "/dev/zero")
    assert (said.code, len(said.out)) == (0, 3_000_000)


async def test_a_command_ends_with_whoever_listens_and_with_its_time(bench: Bench) -> None:
    order = await bench.made()
    command = ExecOrder(argv=("sh", "-c", "echo begun; sleep 1000"))
    running = bench.driver.execute(order.vm_id, command, sent())
    assert (await anext(running)).data == b"begun\n"
    await running.aclose()  # type: ignore[attr-defined]  # an iterator that can be closed

    async def is_gone() -> bool:
        return "sleep 1000" not in (await run(bench.driver, order.vm_id, "ps")).out

    await eventually(is_gone)
    with pytest.raises(BoroughError) as late:
        await run(bench.driver, order.vm_id, "sleep", "1000", timeout_s=0.5)
    assert late.value.code == "exec_timeout"
    await eventually(is_gone)


async def test_a_command_may_have_a_terminal(bench: Bench) -> None:
    order = await bench.made()
    said = await run(bench.driver, order.vm_id, "sh", "-c", "tty; stty size", tty=(40, 100))
    assert "/dev/" in said.out
    if bench.driver.engine.value != "docker":  # a container's size is set once it runs, which may be after the question
        assert "40 100" in said.out


async def test_a_terminal_is_typed_at_and_resized(bench: Bench) -> None:
    vm_id = (await bench.made()).vm_id
    keys, sizes = asyncio.Queue[bytes](), asyncio.Queue[tuple[int, int]]()
    script = "read name; echo hello $name; trap 'stty size; exit 5' WINCH; echo armed; while :; do sleep 0.1; done"
    order = ExecOrder(argv=("sh", "-c", script), tty=(40, 100), sizes=_taken(sizes))
    printed, code = b"", None
    keys.put_nowait(b"ada\r")
    async with asyncio.timeout(60), aclosing(bench.driver.execute(vm_id, order, _taken(keys))) as chunks:
        async for chunk in chunks:
            printed, code = printed + chunk.data, chunk.exit_code
            if b"armed" in printed and sizes.empty():
                sizes.put_nowait((23, 71))
    assert b"hello ada\r\n" in printed
    assert b"23 71\r\n" in printed
    assert code == 5


async def test_a_terminal_that_is_left_ends_its_command(bench: Bench) -> None:
    vm_id = (await bench.made()).vm_id
    order = ExecOrder(argv=("sh", "-c", "echo begun; exec sleep 7000"), tty=(24, 80))
    async with asyncio.timeout(60), aclosing(bench.driver.execute(vm_id, order, _taken(asyncio.Queue()))) as chunks:
        async for chunk in chunks:
            if b"begun" in chunk.data:
                break

    async def is_gone() -> bool:
        return "sleep 7000" not in (await run(bench.driver, vm_id, "ps", "-o", "args")).out

    await eventually(is_gone)


async def _taken(queue: asyncio.Queue[Item]) -> AsyncIterator[Item]:
    """Yield what is put into ``queue``, as long as somebody wants it."""
    while True:
        yield await queue.get()


async def test_files_go_in_and_come_out(bench: Bench) -> None:
    order = await bench.made()
    driver, vm_id = bench.driver, order.vm_id
    content = os.urandom(400_000)
    assert await driver.write(vm_id, "/root/a/b.bin", sent(content[:1000], content[1000:]), from_tar=False) == 400_000
    assert b"".join([part async for part in driver.read(vm_id, "/root/a/b.bin", as_tar=False)]) == content
    [entry] = await driver.listing(vm_id, "/root/a")
    assert (entry.name, entry.path, entry.is_dir, entry.size) == ("b.bin", "/root/a/b.bin", False, 400_000)
    assert "bin" in [each.name for each in await driver.listing(vm_id, "/") if each.is_dir]
    packed = b"".join([part async for part in driver.read(vm_id, "/root/a", as_tar=True)])
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert [member.name.removeprefix("./") for member in archive if member.isfile()] == ["b.bin"]
    await driver.write(vm_id, "/root/copy", sent(packed), from_tar=True)
    assert (await run(driver, vm_id, "cmp", "/root/a/b.bin", "/root/copy/b.bin")).code == 0
    for missing in (driver.read(vm_id, "/root/none", as_tar=False), driver.read(vm_id, "/none", as_tar=True)):
        with pytest.raises(NotFound) as refused:
            await anext(missing)
        assert refused.value.code == "file_not_found"
    with pytest.raises(NotFound):
        await driver.listing(vm_id, "/root/none")


async def test_links_of_a_machine_lead_nowhere_else(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host")
    order = await bench.made()
    await run(bench.driver, order.vm_id, "ln", "-s", str(tmp_path / "secret"), "/root/link")
    with pytest.raises(BoroughError):
        assert not [part async for part in bench.driver.read(order.vm_id, "/root/link", as_tar=False)]


async def test_what_it_prints_is_kept_and_followed(bench: Bench) -> None:
    order = await bench.made(command=("sh", "-c", "echo one; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo two"))
    seen = b""
    async with asyncio.timeout(60):
        async for part in bench.driver.logs(order.vm_id, offset=0, follow=True):
            seen += part
            if seen == b"one\n":
                await bench.driver.write(order.vm_id, "/tmp/go", sent(b"x"), from_tar=False)
    assert seen == b"one\ntwo\n"
    again = b"".join([part async for part in bench.driver.logs(order.vm_id, offset=4, follow=False)])
    assert again == b"two\n"


async def test_a_machine_that_ends_by_itself_says_how(bench: Bench) -> None:
    order = await bench.made(command=("sh", "-c", "sleep 0.3; exit 3"))

    async def failed() -> bool:
        return await found(bench, order) is Found.FAILED

    await eventually(failed)
    assert "3" in ((await bench.driver.find(order.vm_id)).detail or "")


async def test_a_machine_that_was_killed_is_not_as_one_that_was_stopped(bench: Bench) -> None:
    killed = 128 + signal.SIGKILL
    order = await bench.made(command=("sh", "-c", f"until [ -e /tmp/go ]; do sleep 0.05; done; exit {killed}"))
    await bench.driver.write(order.vm_id, "/tmp/go", sent(b"x"), from_tar=False)

    async def ended() -> bool:
        return await found(bench, order) in {Found.FAILED, Found.GONE}

    await eventually(ended)


async def test_its_end_is_told_when_it_can_be_said_how_it_was(bench: Bench) -> None:
    """Nothing looks meanwhile, and who is told sees no machine that still runs."""
    order = await bench.made(command=("sh", "-c", "until [ -e /tmp/go ]; do sleep 0.05; done; exit 3"))
    vm = replace(a_vm("e1", "", order.spec), id=order.vm_id)
    told: list[str] = []
    is_told = asyncio.Event()

    def ended(vm_id: str) -> None:
        told.append(vm_id)
        is_told.set()

    endings = EngineEndings({bench.driver.engine: bench.driver})
    for _ in range(2):
        await endings.watch(vm, ended)
    assert endings.watched == {order.vm_id}
    await bench.driver.write(order.vm_id, "/tmp/go", sent(b"x"), from_tar=False)
    async with asyncio.timeout(60):
        await is_told.wait()
    finding = await bench.driver.find(order.vm_id)
    assert finding.found is Found.FAILED
    assert "3" in (finding.detail or "")
    assert endings.watched == frozenset()
    assert told == [order.vm_id]


async def test_who_stops_watching_is_told_nothing(bench: Bench) -> None:
    order = await bench.made()
    told: list[str] = []
    endings = EngineEndings({bench.driver.engine: bench.driver})
    await endings.watch(replace(a_vm("e1", "", order.spec), id=order.vm_id), told.append)
    endings.close()
    await bench.driver.stop(order.vm_id, grace_s=0.1)
    assert await found(bench, order) is Found.STOPPED
    assert endings.watched == frozenset()
    assert told == []


async def test_a_command_that_is_not_there_is_told(bench: Bench) -> None:
    order = await bench.order(command=("/no/such/program",))
    # One engine refuses to begin, another begins and finds it missing: both say so.
    refused = (await asyncio.gather(bench.driver.create(order), return_exceptions=True))[0]
    if refused is not None:
        assert isinstance(refused, BoroughError)
        assert refused.code == "engine_failed"
        return

    async def failed() -> bool:
        return await found(bench, order) is Found.FAILED

    await eventually(failed)


async def test_a_machine_is_made_once(bench: Bench) -> None:
    order = await bench.made()
    await run(bench.driver, order.vm_id, "touch", "/root/mine")
    await bench.driver.create(order)
    assert (await run(bench.driver, order.vm_id, "ls", "/root/mine")).code == 0
    assert list(await bench.driver.machines()) == [order.vm_id]


async def test_stop_keeps_the_disk_and_start_goes_on_from_it(bench: Bench) -> None:
    order = await bench.made()
    await run(bench.driver, order.vm_id, "sh", "-c", "echo kept > /root/file; rm /etc/group")
    await bench.driver.stop(order.vm_id, grace_s=0.5)
    await bench.driver.stop(order.vm_id, grace_s=0.5)
    assert await found(bench, order) is Found.STOPPED
    with pytest.raises(BoroughError):
        await run(bench.driver, order.vm_id, "true")
    await bench.driver.start(order)
    await bench.driver.start(order)
    assert await found(bench, order) is Found.RUNNING
    assert (await run(bench.driver, order.vm_id, "cat", "/root/file")).out == "kept\n"
    assert (await run(bench.driver, order.vm_id, "ls", "/etc/group")).code != 0


async def test_pause_freezes_and_start_lets_go_on(bench: Bench) -> None:
    order = await bench.made(command=("sh", "-c", "while true; do date +%s%N > /tmp/now; sleep 0.02; done"))
    await bench.driver.pause(order.vm_id)
    await bench.driver.pause(order.vm_id)
    assert await found(bench, order) is Found.PAUSED
    await bench.driver.start(order)
    assert await found(bench, order) is Found.RUNNING
    first = (await run(bench.driver, order.vm_id, "cat", "/tmp/now")).out

    async def goes_on() -> bool:
        return (await run(bench.driver, order.vm_id, "cat", "/tmp/now")).out != first

    await eventually(goes_on)
    await bench.driver.pause(order.vm_id)
    await bench.driver.stop(order.vm_id, grace_s=0.2)
    assert await found(bench, order) is Found.STOPPED


async def test_after_a_restart_every_machine_is_found_again(bench: Bench) -> None:
    runs, paused, stopped = [await bench.made() for _ in range(3)]
    await bench.driver.pause(paused.vm_id)
    await bench.driver.stop(stopped.vm_id, grace_s=0.1)
    again = bench.restarted()
    states = [(await again.find(order.vm_id)).found for order in (runs, paused, stopped)]
    # Who ended a container its runtime does not say: that it was asked for is in the machine's row.
    end = Found.GONE if bench.driver.engine is Engine.DOCKER else Found.STOPPED
    assert states == [Found.RUNNING, Found.PAUSED, end]
    assert sorted(await again.machines()) == sorted(order.vm_id for order in bench.orders)
    assert (await run(again, runs.vm_id, "echo", "here")).out == "here\n"
    await again.start(paused)
    await again.destroy(runs.vm_id)
    assert (await bench.driver.find(runs.vm_id)).found is Found.ABSENT


async def test_a_destroyed_machine_is_gone(bench: Bench) -> None:
    order = await bench.made(command=SERVE, env={"NAME": "x"})
    await bench.driver.destroy(order.vm_id)
    await bench.driver.destroy(order.vm_id)
    assert await found(bench, order) is Found.ABSENT
    assert not await bench.driver.machines()
    with pytest.raises(NotFound) as refused:
        await bench.driver.stop(order.vm_id, grace_s=0.0)
    assert refused.value.code == "vm_not_found"


async def test_a_snapshot_is_returned_to(bench: Bench) -> None:
    order = await bench.made()
    driver, vm_id = bench.driver, order.vm_id
    await run(driver, vm_id, "sh", "-c", "echo before > /root/file; rm /etc/group; mkdir /root/folder")
    info = await driver.snapshot(vm_id, "first")
    assert (info.name, info.with_memory) == ("first", False)
    await run(driver, vm_id, "sh", "-c", "echo after > /root/file; rmdir /root/folder; touch /etc/group")
    assert [each.name for each in await driver.snapshots(vm_id)] == ["first"]
    await driver.restore(order, "first")
    assert await found(bench, order) is Found.RUNNING
    assert (await run(driver, vm_id, "cat", "/root/file")).out == "before\n"
    assert (await run(driver, vm_id, "ls", "/root/folder")).code == 0
    assert (await run(driver, vm_id, "ls", "/etc/group")).code != 0
    with pytest.raises(NotFound) as refused:
        await driver.restore(order, "none")
    assert refused.value.code == "snapshot_not_found"
    await driver.delete_snapshot(vm_id, "first")
    await driver.delete_snapshot(vm_id, "first")
    assert not await driver.snapshots(vm_id)


async def test_another_machine_is_made_from_a_snapshot(bench: Bench) -> None:
    offer = await bench.driver.probe()
    assert offer is not None
    assert Capability.CLONE in offer.capabilities
    source = await bench.made(command=SERVE, env={"NAME": "the first", "SECRET": "s"}, ssh_keys=(KEY,))
    driver = bench.driver
    await run(driver, source.vm_id, "sh", "-c", "echo kept > /root/file; rm /etc/group")
    await driver.snapshot(source.vm_id, "first")
    await run(driver, source.vm_id, "sh", "-c", "echo later > /root/file")

    clone = await bench.made(
        command=SERVE, env={"NAME": "the clone"}, origin=Origin(vm_id=source.vm_id, snapshot="first")
    )
    assert (await run(driver, clone.vm_id, "cat", "/root/file")).out == "kept\n"
    assert (await run(driver, clone.vm_id, "ls", "/etc/group")).code != 0
    assert (await run(driver, clone.vm_id, "hostname")).out.strip() == clone.vm_id
    told = await run(driver, clone.vm_id, "sh", "-c", "echo $NAME/$SECRET; cat /root/.ssh/authorized_keys")
    assert told.out == "the clone/\n", "what was given to the first is not the clone's"
    port = clone.link.port_map[SERVICE]

    async def answered() -> bool:
        return await answers(None, "127.0.0.1", port) == "hello from the clone"

    await eventually(answered)
    await run(driver, clone.vm_id, "sh", "-c", "echo mine > /root/file")
    assert (await run(driver, source.vm_id, "cat", "/root/file")).out == "later\n"
    assert not await driver.snapshots(clone.vm_id), "the snapshot stays with the first"
    with pytest.raises(NotFound) as refused:
        await bench.made(origin=Origin(vm_id=source.vm_id, snapshot="none"))
    assert refused.value.code == "snapshot_not_found"

    await driver.destroy(source.vm_id)
    if bench.disks is not None:
        await bench.disks.remove(source.vm_id)
    await driver.stop(clone.vm_id, grace_s=0.1)
    await driver.start(clone)
    assert (await run(driver, clone.vm_id, "cat", "/root/file")).out == "mine\n", "it does not need the first"


async def test_it_tells_what_a_machine_uses(bench: Bench) -> None:
    order = await bench.made()
    await run(bench.driver, order.vm_id, "sh", "-c", "head -c 1000000 /dev/urandom > /root/file")
    stats = await bench.driver.stats(order.vm_id)
    assert stats.cpu_seconds is not None
    assert stats.memory_bytes is not None
    assert stats.memory_bytes > 0
    assert stats.disk_bytes is not None
    assert stats.disk_bytes > 900_000
    assert stats.processes is not None
    assert stats.processes >= 1


async def test_memory_is_limited(bench: Bench) -> None:
    order = await bench.made()
    # What tail keeps is its memory; 300 MB are more than the machine's 128.
    said = await run(bench.driver, order.vm_id, "sh", "-c", "head -c 300000000 /dev/zero | tail -c 290000000 | wc -c")
    assert said.out.strip() != "290000000"
    small = await run(bench.driver, order.vm_id, "sh", "-c", "head -c 3000000 /dev/zero | tail -c 2900000 | wc -c")
    assert small.out.strip() == "2900000", "the control: less is possible"


async def test_keys_are_where_a_server_looks_for_them(bench: Bench) -> None:
    order = await bench.made(ssh_keys=(KEY, "ssh-ed25519 AAAA... alice@laptop"))
    said = await run(bench.driver, order.vm_id, "sh", "-c", "cat /root/.ssh/authorized_keys; stat -c %a /root/.ssh /root/.ssh/authorized_keys")  # fmt: skip  # noqa: E501 - one command
    assert said.out == f"{KEY}\n700\n600\n"


async def test_a_machine_that_may_not_call_out_calls_nobody_and_still_answers(bench: Bench) -> None:
    denied = await bench.made(command=SERVE, env={"NAME": "denied"}, deny_outgoing=True)
    calls = {
        "tcp": f"echo hello | nc -w 1 {WORLD} {SERVICE}",
        "udp": f"echo hello | nc -u -w 1 {WORLD} {SERVICE}",
        "the host": f"echo hello | nc -w 1 {HOST} 5353",
        "dns": f"nslookup example.org {WORLD}",
        "ping": f"ping -c 1 -W 1 {WORLD}",
    }
    with Echo(bench.world, SERVICE), Echo(None, 5353), Echo(bench.world, 53):
        assert await asyncio.to_thread(tcp_echo, None, WORLD, SERVICE), "the control: the world is there"
        assert await asyncio.to_thread(udp, None, WORLD, SERVICE)
        for what, command in calls.items():
            said = await run(bench.driver, denied.vm_id, "sh", "-c", command, timeout_s=20.0)
            assert "hello" not in said.out, what
            assert "bytes from" not in said.out, what
            assert "Address 1" not in said.out, what
        if bench.bridged:
            free = await bench.made()
            for what in ("tcp", "the host"):
                said = await run(bench.driver, free.vm_id, "sh", "-c", calls[what], timeout_s=20.0)
                assert "hello" in said.out, f"the control: {what}"

    async def answered() -> bool:
        return await answers(bench.world, HOST, denied.link.port_map[SERVICE]) == "hello from denied"

    await eventually(answered)


async def test_another_hosts_machine_is_not_ours(bench: Bench) -> None:
    order = await bench.made()
    with pytest.raises((NotFound, Conflict)):
        await bench.driver.stop(type(order.vm_id)("00000000-000"), grace_s=0.0)
    assert await found(bench, order) is Found.RUNNING

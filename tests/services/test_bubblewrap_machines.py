"""What is particular to machines that are processes: who they are on the host, and what is left when something dies."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from borough.adapters import procfs
from borough.adapters.engines.bubblewrap_machines import calling
from borough.adapters.engines.bubblewrap_machines.nursery import UNBORN
from borough.adapters.engines.bubblewrap_machines.plans import owner_of
from borough.adapters.engines.bubblewrap_machines.state import MachineState
from borough.adapters.process import OWNER, Marker
from borough.fleet.engines import Offer
from borough.fleet.ports.engines import ExecOrder, Finding, Found
from tests.conftest import eventually, need
from tests.contracts.engine_kit import Bench, bubblewrap, run
from tests.services.spaces import own_network

pytestmark = pytest.mark.anyio


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    need(os.geteuid() == 0, "the right to make network namespaces", "run the tests as root")
    with own_network():
        async with bubblewrap(tmp_path, "", bridged=False) as made:
            yield made


def state_of(bench: Bench, tmp_path: Path) -> MachineState:
    return MachineState(tmp_path / "state", bench.orders[0].vm_id, marker=bench.marker)


async def test_a_machines_root_is_nobody_on_the_host(bench: Bench, tmp_path: Path) -> None:
    order = await bench.made()
    await run(bench.driver, order.vm_id, "touch", "/root/made")
    lives = state_of(bench, tmp_path).lives()
    assert lives is not None
    assert Path(f"/proc/{lives.inner.pid}").stat().st_uid >= 1 << 16
    assert order.disk is not None
    assert (order.disk.path / "upper/root/made").stat().st_uid == 0, "a disk fits every machine"


async def test_nothing_outlives_its_warden(bench: Bench, tmp_path: Path) -> None:
    order = await bench.made(command=("sh", "-c", "sleep 1000 & setsid sleep 1000 & sleep 1000"))
    marker = Marker(OWNER, owner_of(bench.marker, order.vm_id))
    lives = state_of(bench, tmp_path).lives()
    assert lives is not None
    os.kill(lives.warden.pid, signal.SIGKILL)

    async def nothing_left() -> bool:
        return not await asyncio.to_thread(procfs.owned, marker)

    await eventually(nothing_left)
    finding = await bench.driver.find(order.vm_id)
    assert finding.found is Found.GONE
    assert finding.detail == "its processes are gone, and did not say how they ended"
    await bench.driver.start(order)
    assert (await run(bench.driver, order.vm_id, "true")).code == 0


async def test_how_a_machine_ended_is_not_told_before_its_warden_has_said_it(bench: Bench, tmp_path: Path) -> None:
    order = await bench.made()
    lives = state_of(bench, tmp_path).lives()
    assert lives is not None
    os.kill(lives.warden.pid, signal.SIGSTOP)
    os.kill(lives.inner.pid, signal.SIGKILL)
    assert not await asyncio.to_thread(procfs.wait_gone, [lives.inner], within_s=10.0)
    looking = asyncio.create_task(bench.driver.find(order.vm_id))
    done, _ = await asyncio.wait({looking}, timeout=0.05)
    os.kill(lives.warden.pid, signal.SIGCONT)
    assert not done
    assert await looking == Finding(found=Found.FAILED, detail="it was ended by force")
    assert await bench.driver.last_process(order.vm_id) is None


async def test_an_order_of_another_version_does_not_end_a_machine(bench: Bench, tmp_path: Path) -> None:
    order = await bench.made()
    state = state_of(bench, tmp_path)
    async with calling.ordered(state.folder, {"do": "what a later version asks for"}) as call:
        with pytest.raises(OSError, match="knows no order"):
            await call.hear()
    assert state.lives() is not None
    assert (await run(bench.driver, order.vm_id, "true")).code == 0


async def made_ahead_of(bench: Bench) -> list[procfs.ProcessRef]:
    """Return the nursery, and then the warden that it made ahead with what that has started; waits for it."""
    marker = Marker(OWNER, owner_of(bench.marker, "", first=UNBORN))
    found: list[procfs.ProcessRef] = []

    async def both_there() -> bool:
        found[:] = await asyncio.to_thread(procfs.owned, marker)
        nursery = [ref for ref in found if {each.pid for each in procfs.descendants(ref.pid)} >= pids_but(found, ref)]
        found.sort(key=lambda ref: ref not in nursery)
        return len(found) >= MADE_AHEAD and len(nursery) == 1

    await eventually(both_there)
    return found


MADE_AHEAD = 5
"""The nursery, a warden, its doorman, who becomes bubblewrap, and the first process of who translates owners."""


def pids_but(refs: list[procfs.ProcessRef], one: procfs.ProcessRef) -> set[int]:
    return {ref.pid for ref in refs} - {one.pid}


async def test_a_warden_that_was_made_ahead_becomes_the_next_machines(bench: Bench, tmp_path: Path) -> None:
    await bench.made()
    before = await made_ahead_of(bench)
    order = await bench.made()
    lives = MachineState(tmp_path / "state", order.vm_id, marker=bench.marker).lives()
    assert lives is not None
    assert lives.warden in before
    marked = await asyncio.to_thread(procfs.owned, Marker(OWNER, owner_of(bench.marker, order.vm_id)))
    assert {lives.warden, doorman_of(MachineState(tmp_path / "state", order.vm_id, marker=bench.marker))} <= set(marked)
    became = [Path(f"/proc/{ref.pid}/comm").read_text() for ref in set(before) & set(marked)]
    assert "bwrap\n" in became, "who waited has become bubblewrap, and carries the mark"


async def test_a_network_made_ahead_is_the_machines_alone(bench: Bench, tmp_path: Path) -> None:
    orders = [await bench.made()]
    await made_ahead_of(bench)
    orders.append(await bench.made())
    seen = {Path("/proc/self/ns/net").readlink()}
    for order in orders:
        lives = MachineState(tmp_path / "state", order.vm_id, marker=bench.marker).lives()
        assert lives is not None
        seen.add(Path(f"/proc/{lives.inner.pid}/ns/net").readlink())
        # From a file, which is read at once: a listener that sees the other end closed first would end without a word.
        listen = "echo heard >/run/heard; nc -l -p 80 </run/heard &"
        heard = f"{listen} until nc 127.0.0.1 80 </dev/null; do :; done; cat /proc/net/dev | wc -l"
        assert (await run(bench.driver, order.vm_id, "sh", "-c", heard)).out.split() == ["heard", "3"]
    assert len(seen) == 1 + len(orders), "each has its own"


async def test_a_machine_is_made_though_the_warden_made_ahead_was_killed(bench: Bench) -> None:
    await bench.made()
    nursery, *made_ahead = await made_ahead_of(bench)
    procfs.tell(made_ahead, signal.SIGKILL)
    assert not await asyncio.to_thread(procfs.wait_gone, made_ahead, within_s=60)
    order = await bench.made()
    assert (await run(bench.driver, order.vm_id, "true")).code == 0
    assert procfs.is_alive(nursery)


async def test_machines_outlive_the_nursery_and_another_takes_its_place(bench: Bench) -> None:
    first = await bench.made()
    await made_ahead_of(bench)
    of_warden_made_ahead = await bench.made()
    nursery, *made_ahead = await made_ahead_of(bench)
    os.kill(nursery.pid, signal.SIGKILL)
    left = await asyncio.to_thread(procfs.wait_gone, [nursery, *made_ahead], within_s=60)
    assert not left, "what was made ahead is nobody's without it"
    second = await bench.made()
    for order in (first, of_warden_made_ahead, second):
        assert (await run(bench.driver, order.vm_id, "true")).code == 0
        carry_its_mark = await asyncio.to_thread(procfs.owned, Marker(OWNER, owner_of(bench.marker, order.vm_id)))
        assert len(carry_its_mark) >= 2, "its warden and its box"


@pytest.mark.parametrize("orders_wait_at", ["the nursery", "the warden made ahead"])
async def test_a_machine_is_made_though_all_was_killed_that_had_its_order(
    bench: Bench, tmp_path: Path, orders_wait_at: str
) -> None:
    await bench.made()
    nursery, *made_ahead = await made_ahead_of(bench)
    [warden] = [ref for ref in made_ahead if len(procfs.descendants(ref.pid)) == len(made_ahead) - 1]
    procfs.tell([nursery if orders_wait_at == "the nursery" else warden], signal.SIGSTOP)
    making = asyncio.ensure_future(bench.made())

    async def is_ordered() -> bool:
        return len(list((tmp_path / "state").glob("*/warden.log"))) == 2

    await eventually(is_ordered)
    procfs.tell([nursery], signal.SIGKILL)
    order = await making
    assert (await run(bench.driver, order.vm_id, "true")).code == 0


def doorman_of(state: MachineState) -> procfs.ProcessRef:
    """Return a machine's doorman: the child of its warden that is no bubblewrap."""
    lives = state.lives()
    assert lives is not None
    below = procfs.descendants(lives.warden.pid)
    [found] = [ref for ref in below if b"python" in Path(f"/proc/{ref.pid}/cmdline").read_bytes()]
    return found


async def test_who_starts_commands_is_confined_like_them(bench: Bench, tmp_path: Path) -> None:
    order = await bench.made()
    status = Path(f"/proc/{doorman_of(state_of(bench, tmp_path)).pid}/status").read_text()
    told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert (int(told["CapEff"], 16), int(told["CapBnd"], 16)) == (0, 0)
    assert (told["NoNewPrivs"], told["Seccomp"]) == ("1", "2")
    inside = (await run(bench.driver, order.vm_id, "cat", "/proc/self/status")).out
    for name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp"):
        assert f"{name}:\t{told[name]}" in inside
    assert (await run(bench.driver, order.vm_id, "sh", "-c", "ls /proc/self/fd | wc -l")).out.strip() == "4"


async def test_another_doorman_takes_the_place_of_one_that_was_killed(bench: Bench, tmp_path: Path) -> None:
    order = await bench.made()
    state = state_of(bench, tmp_path)
    script = "echo begun; read line; echo $line; exit 9"
    keys: asyncio.Queue[bytes] = asyncio.Queue()

    async def typed() -> AsyncIterator[bytes]:
        yield await keys.get()

    running = bench.driver.execute(order.vm_id, ExecOrder(argv=("sh", "-c", script)), typed())
    assert (await anext(running)).data == b"begun\n"
    first = doorman_of(state)
    os.kill(first.pid, signal.SIGKILL)
    await asyncio.to_thread(procfs.wait_gone, [first], within_s=60)
    assert (await run(bench.driver, order.vm_id, "echo", "again")).out == "again\n"
    assert doorman_of(state) != first
    keys.put_nowait(b"and on\n")
    rest = [chunk async for chunk in running]
    assert (rest[0].data, rest[-1].exit_code) == (b"and on\n", 9), "what the first had started goes on"


async def test_another_process_under_the_same_number_is_not_taken_for_it(bench: Bench, tmp_path: Path) -> None:
    order = await bench.made()
    state = state_of(bench, tmp_path)
    told = (state.folder / "running.json").read_text()
    lives = state.lives()
    assert lives is not None
    stranger = procfs.myself()
    forged = told.replace(
        f"[{lives.warden.pid}, {lives.warden.started_ticks}]", f"[{stranger.pid}, {stranger.started_ticks}]"
    )
    (state.folder / "running.json").write_text(forged)
    assert (await bench.driver.find(order.vm_id)).found is Found.GONE
    await bench.driver.destroy(order.vm_id)
    assert not procfs.is_alive(lives.warden), "found by its mark"


async def test_a_machine_sees_nothing_of_the_host(bench: Bench, tmp_path: Path) -> None:
    order = await bench.made()
    (tmp_path / "secret").write_text("of the host")
    assert (await run(bench.driver, order.vm_id, "cat", str(tmp_path / "secret"))).code != 0
    processes = (await run(bench.driver, order.vm_id, "ps")).out.splitlines()
    assert len(processes) < 8
    for command in ("mount -t tmpfs none /tmp", "echo x > /proc/sys/kernel/core_pattern", "unshare -U true"):
        assert (await run(bench.driver, order.vm_id, "sh", "-c", command)).code != 0, command
    assert "0000000000000000" in (await run(bench.driver, order.vm_id, "grep", "CapEff", "/proc/self/status")).out


async def test_an_image_without_a_shell_is_told(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "images" / "tiny" / "bin" / "sh").unlink()
    order = await bench.order()
    refused = (await asyncio.gather(bench.driver.create(order), return_exceptions=True))[0]
    assert "sh" in str(refused)
    assert not await asyncio.to_thread(procfs.owned, Marker(OWNER, owner_of(bench.marker, order.vm_id)))


async def test_with_a_list_the_way_out_is_named(bench: Bench) -> None:
    order = await bench.order()
    order = replace(order, spec=replace(order.spec, egress_allowlist=("example.org:443",)))
    await bench.driver.create(order)
    at = "127.0.0.1" if order.link.namespace is None else "10.10.0.1"
    assert (await run(bench.driver, order.vm_id, "sh", "-c", "echo $https_proxy")).out == f"http://{at}:3128\n"


async def test_an_ordinary_user_has_machines_too(tmp_path: Path) -> None:
    """In a user namespace of its own this program is a user like any other: no right of root is left to it."""
    need(shutil.which("unshare"), "unshare", "apt-get install util-linux")
    finished = await asyncio.to_thread(
        subprocess.run,
        ["unshare", "--user", "--net", "--map-user=1000", "--map-group=1000", sys.executable, "-m", __name__,
         str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert finished.stdout.splitlines()[-1:] == ["1000 sees 0"], finished.stderr[-3000:]


async def _as_user(folder: Path) -> None:
    async with bubblewrap(folder, "", bridged=False) as bench:
        offer = await bench.driver.probe()
        assert isinstance(offer, Offer)
        order = await bench.made()
        said = await run(bench.driver, order.vm_id, "sh", "-c", "echo kept > /etc/mine; rm /etc/group; id -u")
        await bench.driver.snapshot(order.vm_id, "one")
        await bench.driver.restore(order, "one")
        assert (await run(bench.driver, order.vm_id, "cat", "/etc/mine")).out == "kept\n"
        print(os.getuid(), "sees", said.out.strip())  # noqa: T201 - what the test reads


if __name__ == "__main__":
    asyncio.run(_as_user(Path(sys.argv[1])))

"""Finding out which engines a host has, while everything else goes on."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from borough.adapters.engines.bhyve.driver import BhyveMachines, BhyveSettings
from borough.adapters.engines.surroundings import surroundings
from borough.adapters.host.signs import nameservers
from borough.adapters.network.host import LinuxNetwork, NetworkSettings
from borough.adapters.storage.files import FileStore
from borough.bootstrap.engines import Surroundings, drivers_of
from borough.bootstrap.host import HostParts, OpenHost, open_host
from borough.config.fleet import HostSettings
from borough.core.errors import Invalid, Unavailable
from borough.fleet.engines import Engine, Missing, Offer
from borough.fleet.ports.engines import EngineDriver
from borough.fleet.ports.host_agent import CreateOrder
from borough.fleet.services import host_engines
from borough.fleet.services.host_engines import HostEngines
from borough.fleet.vms import VmState
from tests.conftest import eventually
from tests.contracts.fleet_kit import a_spec, fresh_vm_id
from tests.services.fleet_house import settings_of_host
from tests.services.plain_engine import PlainEngine, plain_image

pytestmark = pytest.mark.anyio


class Probed:
    """As much of an engine as is asked of it here."""

    def __init__(self, engine: Engine, *, after: asyncio.Event | None = None, fails: Exception | None = None) -> None:
        self.engine = engine
        self.asked = asyncio.Event()
        self.missing: str | None = None
        self._after = after
        self._fails = fails

    async def probe(self) -> Offer | Missing:
        self.asked.set()
        if self._after is not None:
            await self._after.wait()
        if self._fails is not None:
            raise self._fails
        if self.missing is not None:
            return Missing(engine=self.engine, reason=self.missing)
        return Offer(engine=self.engine)


def engines_of(*drivers: object, within_s: float = 10.0, remembered_within_s: float = 0.05) -> HostEngines:
    listed = [cast("EngineDriver", each) for each in drivers]
    return HostEngines(
        {each.engine: each for each in listed},
        within_s=within_s, remembered_within_s=remembered_within_s, again_after_s=0.0,
    )  # fmt: skip


class Came:
    """Hears of engines that are here only now."""

    def __init__(self) -> None:
        self.engines: list[Engine] = []

    async def __call__(self, engine: Engine) -> None:
        self.engines.append(engine)


def offered(engines: HostEngines) -> list[Engine]:
    return [offer.engine for offer in engines.offers]


async def test_all_are_asked_at_once_and_one_that_is_not_there_says_why(tmp_path: Path) -> None:
    docker = Probed(Engine.DOCKER)
    # This one answers only once the other was asked: one after the other would never end.
    jail = Probed(Engine.JAIL, after=docker.asked)
    absent = BhyveMachines(BhyveSettings(state=tmp_path, marker="m"), bridged=True)
    engines = engines_of(jail, absent, docker)
    await engines.open(came=Came())
    assert offered(engines) == [Engine.JAIL, Engine.DOCKER]
    [warning] = engines.warnings
    assert warning.startswith("engine=bhyve is not offered: it is part of FreeBSD")
    with pytest.raises(Invalid) as refused:
        await engines.offered(Engine.BHYVE)
    assert refused.value.code == "engine_missing"
    assert "part of FreeBSD" in (refused.value.reason or "")
    await engines.close()


async def test_one_that_fails_or_says_nothing_keeps_nobody_else_from_being_offered() -> None:
    silent = Probed(Engine.BHYVE, after=asyncio.Event())
    broken, odd = Probed(Engine.JAIL, fails=Unavailable("it broke")), Probed(Engine.BUBBLEWRAP, fails=KeyError("x"))
    engines = engines_of(silent, broken, odd, Probed(Engine.DOCKER), within_s=0.05)
    await engines.open(came=Came())
    assert offered(engines) == [Engine.DOCKER]
    told = dict(zip((Engine.BHYVE, Engine.JAIL, Engine.BUBBLEWRAP), engines.warnings, strict=True))
    assert "within 0.05 s" in told[Engine.BHYVE]
    assert told[Engine.JAIL].endswith("it broke")
    assert told[Engine.BUBBLEWRAP].endswith("an internal error: KeyError")
    await engines.close()


async def test_one_that_boots_a_guest_is_offered_when_it_has_found_out() -> None:
    booted = asyncio.Event()
    came = Came()
    engines = engines_of(Probed(Engine.QEMU, after=booted), Probed(Engine.DOCKER))
    await engines.open(came=came)
    assert offered(engines) == [Engine.DOCKER]
    assert not engines.is_known(Engine.QEMU)
    assert "still being found out" in engines.warnings[0]
    wanted = asyncio.create_task(engines.offered(Engine.QEMU))
    booted.set()
    assert (await wanted).engine is Engine.QEMU
    assert offered(engines) == [Engine.QEMU, Engine.DOCKER]
    assert not engines.warnings

    async def heard() -> bool:
        return came.engines == [Engine.QEMU]

    await eventually(heard)
    await engines.close()


async def test_one_that_is_not_there_is_asked_again_and_one_that_others_run_may_go() -> None:
    docker, bubblewrap = Probed(Engine.DOCKER), Probed(Engine.BUBBLEWRAP)
    docker.missing = "nobody listens"
    came = Came()
    engines = engines_of(docker, bubblewrap)
    await engines.open(came=came)
    assert engines.warnings == ("engine=docker is not offered: nobody listens",)
    docker.missing = None
    bubblewrap.asked.clear()
    await _asked_until(engines, [Engine.DOCKER, Engine.BUBBLEWRAP])
    assert came.engines == [Engine.DOCKER]
    docker.missing = "it went away"
    await _asked_until(engines, [Engine.BUBBLEWRAP])
    assert not bubblewrap.asked.is_set(), "what is here by itself is not asked again"
    await engines.close()


async def _asked_until(engines: HostEngines, wanted: list[Engine]) -> None:
    async def settled() -> bool:
        engines.ask_again()
        return sorted(offered(engines)) == sorted(wanted)

    await eventually(settled)


@asynccontextmanager
async def host_with_qemu(folder: Path, *, booted: asyncio.Event | None) -> AsyncIterator[tuple[OpenHost, PlainEngine]]:
    """Open a host one of whose engines boots a guest to find out what it can do; until then it never answers."""
    engines: list[PlainEngine] = []

    @asynccontextmanager
    async def parts(settings: HostSettings, marker: str) -> AsyncIterator[HostParts]:
        engine = PlainEngine(folder / "engine", marker, Engine.QEMU)
        if booted is not None:
            engine.trouble.stalls["probe"] = booted
        engines.append(engine)
        network = LinuxNetwork(NetworkSettings(marker=marker, privileged=False))
        await network.open()
        disks = FileStore(images=Path(settings.image_dir), runtime=Path(settings.runtime_dir))
        yield HostParts(disks=disks, network=network, drivers={Engine.QEMU: engine})

    async with open_host(settings_of_host(folder), parts=parts) as opened:
        yield opened, engines[0]


@pytest.mark.parametrize("restarted", [False, True])
async def test_machines_are_not_judged_before_their_engine_has_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, restarted: bool
) -> None:
    monkeypatch.setattr(host_engines, "REMEMBERED_WITHIN_S", 0.05)
    plain_image(tmp_path / "images")
    order = CreateOrder(vm_id=fresh_vm_id(), env_id="e1", spec=a_spec(engine=Engine.QEMU, mem_mib=64))
    async with host_with_qemu(tmp_path, booted=None) as (host, engine):
        await host.daemon.create(order)
        if restarted:
            await host.daemon._store.booted("before the power went")
    if restarted:
        await engine._end(order.vm_id)
    booted = asyncio.Event()
    async with host_with_qemu(tmp_path, booted=booted) as (host, engine):
        report = await host.daemon.report()
        assert report.engines == ()
        assert "engine=qemu" in report.warnings[-1]
        await host.daemon.reconcile()
        vm = await host.daemon.machine(order.vm_id)
        assert (vm.state, vm.error) == (VmState.RUNNING, None)
        late = replace(order, vm_id=fresh_vm_id())
        making = asyncio.create_task(host.daemon.create(late))
        booted.set()
        assert (await making).state is VmState.RUNNING, "an order waits until it is known whether the engine is here"

        async def runs() -> bool:
            return (await engine.find(order.vm_id)).found.value == "running"

        await eventually(runs)
        assert (await host.daemon.report()).engines == (Engine.QEMU,)
        for vm_id in await engine.machines():
            await host.daemon.destroy(vm_id)


@pytest.mark.parametrize(
    ("system", "engines"),
    [
        ("linux", [Engine.QEMU, Engine.FIRECRACKER, Engine.DOCKER, Engine.BUBBLEWRAP]),
        ("freebsd14", [Engine.BHYVE, Engine.JAIL]),
    ],
)
def test_each_system_has_its_engines(tmp_path: Path, system: str, engines: list[Engine]) -> None:
    async def closes(bridge: str) -> bool:
        return bool(bridge)

    here = Surroundings(marker="m", bridged=True, has_proxy=True, publish_on="127.0.0.1", closes=closes)
    made = drivers_of(settings_of_host(tmp_path), here, system=system)
    assert [(engine, driver.engine) for engine, driver in made.items()] == [(engine, engine) for engine in engines]


def test_what_was_found_out_counts_until_the_host_is_another(tmp_path: Path) -> None:
    program, device = tmp_path / "program", tmp_path / "kvm"
    program.write_text("one")
    program.chmod(0o755)
    seen = [surroundings(str(program), "1", device)]
    assert surroundings(str(program), "1", device) == seen[0]
    device.touch()
    seen.append(surroundings(str(program), "1", device))
    program.write_text("another")
    seen.append(surroundings(str(program), "1", device))
    os.utime(program, (1, 1))
    seen.append(surroundings(str(program), "1", device))
    seen.append(surroundings(str(program), "2", device))
    assert len(set(seen)) == len(seen), json.dumps(seen, indent=1)


def test_only_name_servers_that_others_reach_are_for_machines(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("# none\nnameserver 127.0.0.53\nsearch a\nnameserver 10.0.0.1\nnameserver\nnameserver ::1\n")
    assert nameservers(file) == ("10.0.0.1",)
    assert nameservers(tmp_path / "none") == ()

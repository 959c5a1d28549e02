"""bhyve's machines and jails as far as they can be seen without FreeBSD: every command, whole, and what follows it."""

import os
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from borough.adapters.engines.bhyve.argv import find_process
from borough.adapters.engines.bhyve.driver import BhyveMachines, BhyveSettings, seconds
from borough.adapters.engines.jail.driver import JailMachines, JailSettings
from borough.adapters.network import pf
from borough.core.errors import BoroughError, Conflict, NotFound
from borough.fleet.addresses import link_name, mac_of
from borough.fleet.engines import Capability, Engine, Missing, Offer
from borough.fleet.images import ImageForm
from borough.fleet.ports.disks import Disk
from borough.fleet.ports.engines import Found, MachineOrder
from borough.fleet.ports.network import Link
from borough.fleet.rulesets import Forward, Neighbour, Ruleset
from borough.fleet.vms import VmId, vm_spec
from tests.contracts.engine_kit import run, sent
from tests.contracts.freebsd_stand_in import FreeBsd

pytestmark = pytest.mark.anyio
VM = VmId("1b9d6bcd-bbf")
ADDRESS = IPv4Address("10.10.0.5")
LINK = Link(
    address=ADDRESS, network=IPv4Network("10.10.0.0/16"), gateway=IPv4Address("10.10.0.1"), mac=mac_of(ADDRESS),
    device="tap7", port_map={22: 20_000},
)  # fmt: skip


@pytest.fixture
def freebsd(monkeypatch: pytest.MonkeyPatch) -> FreeBsd:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return FreeBsd()


def bhyve_order(folder: Path, form: ImageForm = ImageForm.RAW) -> MachineOrder:
    disk = folder / "disk"
    disk.touch()
    return MachineOrder(
        vm_id=VM, env_id="e", link=LINK, marker="m", disk=Disk(path=disk, form=form, enforced=True),
        spec=vm_spec(image="freebsd", engine=Engine.BHYVE, cpu=2, mem_mib=512, disk_mib=1024),
    )  # fmt: skip


def bhyve(folder: Path, host: FreeBsd, *, firmware: Path | None = None) -> BhyveMachines:
    settings = BhyveSettings(state=folder / "state", marker="m", firmware=firmware or folder / "none")
    return BhyveMachines(settings, bridged=True, runner=host)


async def test_bhyve_is_called_as_its_manual_says(tmp_path: Path, freebsd: FreeBsd) -> None:
    driver, order = bhyve(tmp_path, freebsd), bhyve_order(tmp_path)
    await driver.create(order)
    await driver.create(order)
    folder = tmp_path / "state" / "machines" / VM
    [name] = freebsd.kernel
    assert len(name) < 32
    assert freebsd.named("bhyveload") == [
        ["bhyveload", "-m", "512M", "-d", str(tmp_path / "disk"), "-c", "/dev/null", name]
    ]
    assert freebsd.named("daemon") == [
        [
            "daemon", "-f", "-p", f"{folder}/bhyve.pid", "-o", f"{folder}/console.log", "bhyve", "-A", "-H", "-P",
            "-c", "cpus=2", "-m", "512M", "-s", "0:0,hostbridge", "-s", f"3:0,virtio-blk,{tmp_path}/disk",
            "-s", "4:0,virtio-net,tap7,mac=02:54:0a:0a:00:05", "-s", f"5:0,virtio-blk,{folder}/seed.img,ro",
            "-s", "6:0,virtio-rnd", "-s", "31:0,lpc", "-l", "com1,stdio", name,
        ]
    ]  # fmt: skip
    assert (await driver.find(VM)).found is Found.RUNNING
    assert list(await bhyve(tmp_path, freebsd).machines()) == [VM]
    stats = await driver.stats(VM)
    assert (stats.cpu_seconds, stats.memory_bytes) == (93_784.5, 2048 << 10)
    assert b"".join([part async for part in driver.logs(VM, offset=0, follow=False)]).startswith(b"the console")


async def test_bhyve_boots_other_systems_by_firmware(tmp_path: Path, freebsd: FreeBsd) -> None:
    firmware = tmp_path / "BHYVE_UEFI.fd"
    firmware.touch()
    await bhyve(tmp_path, freebsd, firmware=firmware).create(bhyve_order(tmp_path, ImageForm.VOLUME))
    assert not freebsd.named("bhyveload")
    [called] = freebsd.named("daemon")
    assert called[called.index("31:0,lpc") + 1 :][:2] == ["-l", f"bootrom,{firmware}"]


@pytest.mark.parametrize("stubborn", [False, True])
async def test_bhyve_is_stopped_and_started_again_from_its_disk(
    tmp_path: Path, freebsd: FreeBsd, *, stubborn: bool
) -> None:
    driver, order = bhyve(tmp_path, freebsd), bhyve_order(tmp_path)
    await driver.create(order)
    freebsd.stubborn = stubborn
    await driver.stop(VM, grace_s=0.05)
    assert [words[1] for words in freebsd.named("kill")] == (["-TERM", "-KILL"] if stubborn else ["-TERM"])
    assert not freebsd.kernel
    assert (await driver.find(VM)).found is Found.STOPPED
    await driver.stop(VM, grace_s=0.05)
    await driver.start(order)
    assert (await driver.find(VM)).found is Found.RUNNING
    await driver.destroy(VM)
    await driver.destroy(VM)
    assert (await driver.find(VM)).found is Found.ABSENT
    assert not freebsd.kernel
    assert not freebsd.processes
    with pytest.raises(NotFound):
        await driver.stop(VM, grace_s=0.0)


async def test_what_a_host_restart_or_a_kill_left_in_the_kernel_goes_first(tmp_path: Path, freebsd: FreeBsd) -> None:
    driver, order = bhyve(tmp_path, freebsd), bhyve_order(tmp_path)
    await driver.create(order)
    freebsd.processes.clear()
    assert (await driver.find(VM)).found is Found.STOPPED
    freebsd.ran.clear()
    await driver.start(order)
    done = [words[0] for words in freebsd.ran if words[0] in ("bhyvectl", "bhyveload", "daemon")]
    assert done == ["bhyvectl", "bhyveload", "daemon"]
    await driver.stop(VM, grace_s=0.0)
    freebsd.kernel.add(next(iter(freebsd.named("daemon")))[-1])
    await driver.destroy(VM)
    assert not freebsd.kernel


async def test_bhyve_that_ends_at_once_is_told_with_its_words(
    tmp_path: Path, freebsd: FreeBsd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("borough.adapters.engines.bhyve.driver._STARTS_WITHIN_S", 0.2)
    freebsd.dead_on_arrival = True
    with pytest.raises(BoroughError) as failed:
        await bhyve(tmp_path, freebsd).create(bhyve_order(tmp_path))
    assert "the console of" in failed.value.message
    assert not freebsd.kernel


async def test_bhyve_says_what_it_cannot(tmp_path: Path, freebsd: FreeBsd) -> None:
    driver, order = bhyve(tmp_path, freebsd), bhyve_order(tmp_path)
    offer = await driver.probe()
    assert isinstance(offer, Offer)
    assert offer.version == "14.3-RELEASE"
    assert {Capability.PAUSE, Capability.SNAPSHOT} <= offer.reasons.keys()
    assert not offer.capabilities & offer.reasons.keys()
    await driver.create(order)
    for refused in (driver.pause(VM), driver.snapshot(VM, "one")):
        with pytest.raises(Conflict) as error:
            await refused
        assert error.value.code == "not_possible"
    assert not await driver.snapshots(VM)
    assert order.disk is not None
    for wrong in (replace(order, disk=replace(order.disk, form=ImageForm.QCOW2)), replace(order, link=replace(LINK, device=None))):  # fmt: skip  # noqa: E501 - two of a kind
        with pytest.raises(Conflict):
            await bhyve(tmp_path / "x", freebsd).create(replace(wrong, vm_id=VmId("00000000-000")))
    assert "part of FreeBSD" in await why_not(BhyveMachines(driver._settings, bridged=True))


def test_a_process_is_the_machine_only_if_it_is_exactly() -> None:
    row = "{} {} Fri Nov 20 10:00:00 2026 {}\n"
    mine = [
        row.format(5, 0, "bhyve: bo-1-vm (bhyve)"),
        row.format(6, 0, "/usr/sbin/bhyve -A -H -P -c cpus=1 bo-1-vm"),
    ]
    others = [
        row.format(7, 0, "bhyve: bo-1-vm2 (bhyve)"), row.format(7, 0, "vi bo-1-vm"),
        row.format(7, 0, "bhyve bo-1-vm x"), row.format(7, 1001, "bhyve: bo-1-vm (bhyve)"), "7 0 short\n",
    ]  # fmt: skip
    for line in mine:
        found = find_process("".join(others) + line, "bo-1-vm", user=0)
        assert found is not None
        assert found.started == "Fri Nov 20 10:00:00 2026"
    assert find_process("".join(others), "bo-1-vm", user=0) is None
    assert seconds("1:02.50") == 62.5


# -- jails -------------------------------------------------------------------------------------------------------------

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJvcm91Z2gtdGVzdHMtYXJlLWZvci1ldmVyeW9uZQAA nobody"


def jail_order(folder: Path, **asked: object) -> MachineOrder:
    root = folder / "root"
    root.mkdir(exist_ok=True)
    return MachineOrder(
        vm_id=VM, env_id="e", link=LINK, marker="m", disk=Disk(path=root, form=ImageForm.FOLDER, enforced=False),
        spec=vm_spec(image="base", engine=Engine.JAIL, cpu=2, mem_mib=512, ssh_keys=(KEY,), **asked),  # type: ignore[arg-type]  # passed on
    )  # fmt: skip


def jail(folder: Path, host: FreeBsd) -> JailMachines:
    folder.mkdir(exist_ok=True)
    jexec = folder / "jexec"
    # In the place of the jail's shell, this host's: what is told to it is what counts.
    jexec.write_text('#!/bin/sh\nshift 4\nexec "$@"\n')
    jexec.chmod(0o755)
    settings = JailSettings(state=folder / "state", marker="m", jexec=str(jexec))
    return JailMachines(settings, bridged=True, runner=host)


async def test_a_jail_is_made_as_its_manual_says(tmp_path: Path, freebsd: FreeBsd) -> None:
    driver, order = jail(tmp_path, freebsd), jail_order(tmp_path)
    await driver.create(order)
    await driver.create(order)
    [(name, called)] = freebsd.jails.items()
    folder = tmp_path / "state" / "machines" / VM
    assert "." not in name
    assert called == [
        "jail", "-c", f"name={name}", f"path={tmp_path}/root", f"host.hostname={VM}", "ip4.addr=tt0|10.10.0.5/32",
        "ip6=disable", "persist", "mount.devfs", "devfs_ruleset=4", "enforce_statfs=2", "children.max=0",
        "securelevel=2", "sysvmsg=new", "sysvsem=new", "sysvshm=new", "allow.noraw_sockets", "allow.nomount",
        "exec.clean", f"exec.consolelog={folder}/console.log", "exec.start=/bin/sh /etc/rc",
        "exec.stop=/bin/sh /etc/rc.shutdown jail", "stop.timeout=10",
    ]  # fmt: skip
    assert freebsd.limits == [f"jail:{name}:memoryuse:deny=512M", f"jail:{name}:pcpu:deny=200"]
    assert (tmp_path / "root/root/.ssh/authorized_keys").read_text() == f"{KEY}\n"
    assert (await driver.find(VM)).found is Found.RUNNING
    assert list(await jail(tmp_path, freebsd).machines()) == [VM]
    assert (await driver.stats(VM)).processes == 1


async def test_a_jail_may_be_told_what_to_run(tmp_path: Path, freebsd: FreeBsd) -> None:
    await jail(tmp_path, freebsd).create(jail_order(tmp_path, command=("serve", "a b"), env={"NAME": "it's"}))
    [called] = freebsd.jails.values()
    assert "exec.start=/usr/bin/env NAME='it'\"'\"'s' serve 'a b' &" in called


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_jail_is_stopped_and_made_again(tmp_path: Path, freebsd: FreeBsd, *, stubborn: bool) -> None:
    driver, order = jail(tmp_path, freebsd), jail_order(tmp_path)
    await driver.create(order)
    freebsd.stubborn = stubborn
    await driver.stop(VM, grace_s=5.0)
    assert [words[1] for words in freebsd.named("jail")] == (["-c", "-r", "-R"] if stubborn else ["-c", "-r"])
    assert not freebsd.limits
    assert (await driver.find(VM)).found is Found.STOPPED
    with pytest.raises(Conflict):
        await run(driver, VM, "true")
    await driver.start(order)
    assert (await driver.find(VM)).found is Found.RUNNING
    await driver.destroy(VM)
    assert (await driver.find(VM)).found is Found.ABSENT
    assert not freebsd.jails
    assert not await driver.machines()


async def test_commands_and_files_go_through_its_shell(tmp_path: Path, freebsd: FreeBsd) -> None:
    driver = jail(tmp_path, freebsd)
    await driver.create(jail_order(tmp_path))
    said = await run(driver, VM, "sh", "-c", "cat; echo $MORE; exit 3", stdin=(b"in\n",), env={"MORE": "it's"})
    assert (said.code, said.out) == (3, "in\nit's\n")
    place = tmp_path / "inside"
    assert await driver.write(VM, f"{place}/a", sent(b"one", b"two"), from_tar=False) == 6
    assert [(entry.name, entry.size) for entry in await driver.listing(VM, str(place))] == [("a", 6)]
    assert b"".join([part async for part in driver.read(VM, f"{place}/a", as_tar=False)]) == b"onetwo"
    with pytest.raises(NotFound):
        await driver.listing(VM, f"{place}/none")
    with pytest.raises(Conflict):
        await run(driver, VM, "true", tty=(1, 1))


async def test_a_jail_that_cannot_be_is_not_offered(tmp_path: Path, freebsd: FreeBsd) -> None:
    driver = jail(tmp_path, freebsd)
    offer = await driver.probe()
    assert isinstance(offer, Offer)
    assert Capability.MEMORY_LIMIT in offer.capabilities
    freebsd.racct = False
    offer = await driver.probe()
    assert isinstance(offer, Offer)
    assert "kern.racct.enable" in offer.reasons[Capability.MEMORY_LIMIT]
    assert "part of FreeBSD" in await why_not(JailMachines(driver._settings, bridged=True))
    assert "no bridge" in await why_not(JailMachines(driver._settings, bridged=False, runner=freebsd))


async def why_not(driver: BhyveMachines | JailMachines) -> str:
    missing = await driver.probe()
    assert isinstance(missing, Missing)
    return missing.reason


async def test_a_link_in_an_image_leads_no_key_out_of_it(tmp_path: Path, freebsd: FreeBsd) -> None:
    order = jail_order(tmp_path)
    (tmp_path / "root/root").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(OSError, match="root"):
        await jail(tmp_path, freebsd).create(order)
    assert not [*(tmp_path / "elsewhere").iterdir()]
    assert not freebsd.jails


# -- the firewall ------------------------------------------------------------------------------------------------------


def test_the_anchor_is_rendered_whole() -> None:
    denied = Neighbour(vm_id="1b9d6bcd-bbf", env_id="a", address=ADDRESS, deny_outgoing=True, listed=True)
    private = [
        Neighbour(vm_id=f"0000000{number}-000", env_id="b", address=ADDRESS + number, private=True) for number in (1, 2)
    ]
    rules = Ruleset(
        bridge="tt0", network=IPv4Network("10.10.0.0/16"), neighbours=(denied, *private), proxy_port=3128,
        forwards=(Forward(host_port=20_000, address=ADDRESS, guest_port=22),),
    )  # fmt: skip
    links = [link_name(each.vm_id) for each in (denied, *private)]
    assert pf.render_pf(rules, outside="em0").splitlines() == [
        "table <denied> { 10.10.0.5 }",
        "table <listed> { 10.10.0.5 }",
        "table <private> { 10.10.0.6, 10.10.0.7 }",
        "nat on em0 inet from 10.10.0.0/16 to ! 10.10.0.0/16 -> (em0)",
        "rdr on ! tt0 inet proto tcp from any to (self) port 20000 -> 10.10.0.5 port 22",
        f"block drop in quick on {links[0]} inet from ! 10.10.0.5 to any",
        f"block drop in quick on {links[1]} inet from ! 10.10.0.6 to any",
        f"block drop in quick on {links[2]} inet from ! 10.10.0.7 to any",
        *(f"block drop in quick on {link} inet6 all" for link in links),
        "pass in quick on tt0 inet proto tcp from <listed> to (self) port 3128 keep state",
        "block drop in quick on tt0 inet from <denied> to any",
        "pass in quick on tt0 inet from 10.10.0.6 to 10.10.0.7 keep state",
        "pass in quick on tt0 inet from 10.10.0.7 to 10.10.0.6 keep state",
        "pass in quick on tt0 inet from <private> to (self) keep state",
        "block drop in quick on tt0 inet from 10.10.0.0/16 to <private>",
        "block drop in quick on tt0 inet from <private> to 10.10.0.0/16",
        "pass in quick on tt0 inet from 10.10.0.0/16 to any keep state",
        "pass out quick on tt0 inet from any to 10.10.0.0/16 keep state",
    ]
    empty = pf.render_pf(Ruleset(bridge="tt0", network=IPv4Network("10.10.0.0/16")), outside="em0")
    assert "table <denied> persist\n" in empty
    assert pf.load_argv("tt0") == ["pfctl", "-a", "borough/tt0", "-f", "-"]
    assert pf.flush_argv("tt0") == ["pfctl", "-a", "borough/tt0", "-F", "all"]


def test_devices_are_made_and_removed() -> None:
    device = link_name(VM)
    assert pf.tap_commands(VM, "tap7", "tt0") == [
        ["ifconfig", "tap7", "name", device],
        ["ifconfig", device, "description", f"borough:{VM}", "up"],
        ["ifconfig", "tt0", "addm", device, "private", device],
    ]
    assert pf.remove_commands(VM) == [["ifconfig", device, "destroy"]]
    [bridge, *_] = pf.bridge_commands("tt0", IPv4Address("10.10.0.1"), IPv4Network("10.10.0.0/16"))
    assert bridge == ["ifconfig", "tt0", "inet", "10.10.0.1/16", "ether", "02:54:0a:0a:00:01", "up"]

"""Machines of this host's own programs: what runs in them, and what of the host they cannot see."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from borough.adapters.images.host_root import HostRoot, shown_in
from borough.adapters.storage.files import FileStore
from borough.bootstrap.host import OpenHost, open_host
from borough.config.fleet import HostSettings
from borough.core.errors import Conflict
from borough.fleet.engines import Engine
from borough.fleet.host_image import HOST_IMAGE, OWN_PROGRAMS
from borough.fleet.images import Image, ImageForm
from borough.fleet.ports.engines import ExecOrder
from borough.fleet.ports.host_agent import CreateOrder
from borough.fleet.vms import Origin, VmId, VmState, vm_spec
from tests.contracts.engine_kit import sent
from tests.contracts.fleet_kit import fresh_vm_id
from tests.services.fleet_house import settings_of_host

pytestmark = pytest.mark.anyio
OWN_PYTHON = f"{OWN_PROGRAMS}/python3"


@pytest.fixture
def settings(tmp_path: Path) -> HostSettings:
    return replace(settings_of_host(tmp_path), change_network=False, host_image=True)


@asynccontextmanager
async def daemon(settings: HostSettings) -> AsyncIterator[OpenHost]:
    async with open_host(settings) as opened:
        try:
            yield opened
        finally:
            for vm in await opened.daemon.machines():
                await opened.daemon.destroy(vm.id)


def order(**other: object) -> CreateOrder:
    spec = vm_spec(image=HOST_IMAGE, engine=Engine.BUBBLEWRAP, cpu=1, mem_mib=1024, disk_mib=256)
    return CreateOrder(vm_id=fresh_vm_id(), env_id="e", spec=replace(spec, **other))


async def says(host: OpenHost, vm_id: VmId, *argv: str) -> tuple[int | None, str]:
    """Return exit code and what a command in a machine prints."""
    chunks = [chunk async for chunk in host.daemon.execute(vm_id, ExecOrder(argv=argv, timeout_s=60), sent())]
    return chunks[-1].exit_code, b"".join(chunk.data for chunk in chunks).decode(errors="replace").strip()


async def test_a_machine_runs_this_host_s_programs_and_sees_none_of_its_secrets(
    settings: HostSettings, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("of the host")
    async with daemon(settings) as host:
        [image] = [each for each in await host.daemon.images() if each.name == HOST_IMAGE]
        assert (image.form, image.travels, len(image.digest)) == (ImageForm.FOLDER, False, len("sha256:") + 64)
        report = await host.daemon.report()
        assert report.image_digests[HOST_IMAGE] == image.digest
        assert report.own_images == {HOST_IMAGE}
        assert not [warning for warning in report.warnings if "not shown" in warning]

        made = order()
        assert (await host.daemon.create(made)).state is VmState.RUNNING
        for python in ("python3", OWN_PYTHON):
            assert await says(host, made.vm_id, python, "-c", "print(6 * 7)") == (0, "42"), python
        code = "import borough.agent, borough.worker, sys; print(sys.prefix)"
        assert await says(host, made.vm_id, OWN_PYTHON, "-c", code) == (0, sys.prefix)
        assert (await says(host, made.vm_id, "borough", "--help"))[0] == 0
        for path in ("/etc/shadow", "/etc/ssh", "/root/.ssh", str(tmp_path / "secret"), str(settings.data_dir)):
            assert (await says(host, made.vm_id, "ls", path))[0] != 0, path
        homes = (await says(host, made.vm_id, "sh", "-c", "ls /home; ls -A /root; cat /etc/passwd"))[1].splitlines()
        shown = {part for each in (sys.prefix, sys.base_prefix) for part in Path(each).parts}
        assert {line for line in homes if ":" not in line} <= shown, "nothing but the way to Python"
        assert [line.partition(":")[0] for line in homes if ":" in line] == ["root", "nobody"]
        for path in ("/usr/bin/mine", f"{sys.prefix}/mine"):
            assert (await says(host, made.vm_id, "touch", path))[0] != 0, path
        for path in ("/workspace/mine", "/etc/mine", "/root/mine", "/tmp/mine", "/opt/mine"):
            assert (await says(host, made.vm_id, "touch", path))[0] == 0, path
        assert not Path("/workspace/mine").exists()
        assert not Path("/etc/mine").exists()


async def test_snapshots_and_clones_of_such_a_machine_are_as_of_any_other(settings: HostSettings) -> None:
    async with daemon(settings) as host:
        first = order()
        await host.daemon.create(first)
        await says(host, first.vm_id, "sh", "-c", "echo before > /workspace/state")
        await host.daemon.snapshot(first.vm_id, "good")
        await says(host, first.vm_id, "sh", "-c", "echo after > /workspace/state")
        clone = order(origin=Origin(vm_id=first.vm_id, snapshot="good"))
        await host.daemon.create(clone)
        await host.daemon.restore(first.vm_id, "good")
        for each in (first, clone):
            assert await says(host, each.vm_id, "cat", "/workspace/state") == (0, "before")
            assert (await says(host, each.vm_id, OWN_PYTHON, "-c", "import borough"))[0] == 0
        await host.daemon.destroy(first.vm_id)
        assert (await says(host, clone.vm_id, "python3", "-c", "pass"))[0] == 0
    async with daemon(settings) as again:
        await again.daemon.create(order())


async def test_it_is_carried_nowhere_and_nothing_takes_its_name(tmp_path: Path) -> None:
    own = HostRoot(tmp_path / "own")
    image = own.make()
    store = FileStore(images=tmp_path / "images", runtime=tmp_path / "runtime", own=own)
    with pytest.raises(Conflict) as stays:
        _ = [part async for part in store.content(HOST_IMAGE)]
    assert stays.value.code == "image_stays"
    forged = Image(
        name=HOST_IMAGE, form=ImageForm.FOLDER, digest=image.digest, size_bytes=0, created_at=image.created_at
    )
    with pytest.raises(Conflict) as taken:
        await store.put(forged, sent(b""))
    assert taken.value.code == "image_name_taken"


def test_only_what_was_made_here_has_anything_shown_in_it(tmp_path: Path) -> None:
    own = HostRoot(tmp_path / "own")
    own.make()
    assert shown_in(own.path, tmp_path / "own")["/usr"] == "/usr"
    forged = tmp_path / "images" / own.path.name
    forged.mkdir(parents=True)
    forged.with_name(f"{forged.name}.json").write_text('{"/secrets": "/root"}')
    assert shown_in(forged, tmp_path / "own") == {}
    assert shown_in(own.path, None) == {}


def test_the_digest_is_that_of_the_host_as_it_is(tmp_path: Path) -> None:
    own = HostRoot(tmp_path / "own")
    first = own.make()
    assert own.make() == first
    assert HostRoot(tmp_path / "other").make().digest == first.digest
    older = tmp_path / "own" / "sha256-of-before"
    older.mkdir()
    own.keep_only(frozenset({older.name}))
    assert older.exists(), "a disk stands on it"
    own.keep_only(frozenset())
    assert [each.name for each in own.path.parent.iterdir() if each.is_dir()] == [own.path.name]
    assert (own.path / "root").stat().st_mode & 0o777 == 0o700

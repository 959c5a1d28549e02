"""What holds of every place for images and disks, and what each kind of it does in its own way."""

import asyncio
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from borough.adapters.storage import trees
from borough.adapters.storage.bases import LOWER
from borough.adapters.storage.catalogue import digest_of
from borough.adapters.storage.files import UPPER, FileStore
from borough.adapters.storage.zvol import ZvolStore
from borough.core.errors import Conflict, NotFound
from borough.fleet.engines import Engine
from borough.fleet.images import Image, ImageForm
from borough.fleet.ports.disks import DiskStore
from borough.fleet.vms import VmId
from tests.conftest import need
from tests.contracts.scripted_zfs import ScriptedZfs

pytestmark = pytest.mark.anyio
ONE, OTHER = VmId("11111111-111"), VmId("22222222-222")
MIB = 1 << 20


@dataclass(frozen=True)
class Place:
    store: DiskStore
    content: bytes


@pytest.fixture(params=["file", "zvol"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A store with one image ``disk`` of 2 MiB."""
    content = os.urandom(MIB) + b"\0" * MIB
    if request.param == "zvol":
        zfs = ScriptedZfs(tmp_path, ["tank/images", "tank/run"])
        zfs.add("tank/images/disk", content)
        store: DiskStore = ZvolStore(images="tank/images", runtime="tank/run", marker="m", run=zfs.run, nodes=tmp_path)
        return Place(store, content)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "disk").write_bytes(content)
    return Place(FileStore(images=tmp_path / "images", runtime=tmp_path / "run"), content)


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 300_000):
        yield content[start : start + 300_000]


async def whole(parts: AsyncIterator[bytes]) -> bytes:
    return b"".join([part async for part in parts])


def announced(name: str, content: bytes) -> Image:
    return Image(
        name=name, form=ImageForm.RAW, digest=f"sha256:{hashlib.sha256(content).hexdigest()}", size_bytes=len(content),
        created_at=datetime.now(UTC),
    )  # fmt: skip


async def test_an_image_is_known_by_what_is_in_it(place: Place) -> None:
    [image] = await place.store.images()
    assert image == await place.store.image("disk")
    assert image.digest == f"sha256:{hashlib.sha256(place.content).hexdigest()}"
    assert image.size_bytes == len(place.content)
    assert await whole(place.store.content("disk")) == place.content
    with pytest.raises(NotFound) as refused:
        await place.store.image("other")
    assert refused.value.code == "image_not_found"
    with pytest.raises(NotFound):
        await whole(place.store.content("other"))


async def test_a_disk_is_as_large_as_asked_for_and_the_image_stays_as_it_was(place: Place) -> None:
    disk = await place.store.clone("disk", ONE, size_mib=5)
    assert disk.enforced
    assert disk.path.stat().st_size == 5 * MIB
    assert disk.path.read_bytes()[: 2 * MIB] == place.content
    disk.path.write_bytes(b"changed")
    assert await whole(place.store.content("disk")) == place.content


async def test_a_disk_is_made_once(place: Place) -> None:
    disk = await place.store.clone("disk", ONE, size_mib=5)
    with disk.path.open("r+b") as device:
        device.write(b"mine")
    assert await place.store.clone("disk", ONE, size_mib=5) == disk == await place.store.disk(ONE)
    assert disk.path.read_bytes()[:4] == b"mine"
    await place.store.clone("disk", OTHER, size_mib=2)
    assert list(await place.store.disks()) == [ONE, OTHER]


async def test_an_image_that_is_larger_than_the_disk_is_refused(place: Place) -> None:
    with pytest.raises(Conflict) as refused:
        await place.store.clone("disk", ONE, size_mib=1)
    assert refused.value.code == "image_too_large"
    assert "2 MiB" in (refused.value.resolution or "")
    with pytest.raises(NotFound):
        await place.store.clone("other", ONE, size_mib=5)
    assert not await place.store.disks()


async def test_a_removed_disk_is_gone(place: Place) -> None:
    disk = await place.store.clone("disk", ONE, size_mib=2)
    await place.store.remove(ONE)
    await place.store.remove(ONE)
    assert not disk.path.exists()
    assert not await place.store.disks()
    with pytest.raises(NotFound) as refused:
        await place.store.disk(ONE)
    assert refused.value.code == "disk_not_found"


async def test_an_image_comes_whole_or_not_at_all(place: Place) -> None:
    content = os.urandom(MIB)
    image = announced("new", content)
    with pytest.raises(Conflict) as refused:
        await place.store.put(image, chunks(content[:-1] + b"x"))
    assert refused.value.code == "digest_mismatch"

    async def broken() -> AsyncIterator[bytes]:
        yield content[:1000]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await place.store.put(image, broken())
    assert [each.name for each in await place.store.images()] == ["disk"]
    assert (await place.store.put(image, chunks(content))).digest == image.digest
    assert await whole(place.store.content("new")) == content


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> FileStore:
    return FileStore(images=tmp_path / "images", runtime=tmp_path / "run")


LONG_AGO = 1_000_000_000


def root_folder(path: Path) -> Path:
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "tool").write_bytes(b"#!/bin/sh\n")
    (path / "bin" / "tool").chmod(0o4755)
    (path / "bin" / "sh").symlink_to("/bin/tool")
    os.link(path / "bin" / "tool", path / "bin" / "twin")
    (path / "private").mkdir(mode=0o700)
    for entry in (path / "bin" / "sh", path / "bin" / "tool", path / "bin"):
        os.utime(entry, (LONG_AGO, LONG_AGO), follow_symlinks=False)
    return path


async def test_a_root_folder_travels_and_is_the_same_on_another_host(files: FileStore, tmp_path: Path) -> None:
    root_folder(tmp_path / "images" / "root")
    [image] = await files.images()
    assert image.form is ImageForm.FOLDER
    assert Engine.BUBBLEWRAP in image.engines
    there = FileStore(images=tmp_path / "there", runtime=tmp_path / "there-run")
    arrived = await there.put(image, files.content("root"))
    assert (arrived.digest, arrived.form) == (image.digest, ImageForm.FOLDER)
    disk = await there.clone("root", ONE, size_mib=10)
    lower = (disk.path / LOWER).resolve()
    assert digest_of(lower) == image.digest
    assert (lower / "bin" / "sh").readlink() == Path("/bin/tool")
    assert (lower / "bin" / "tool").stat().st_mode & 0o7777 == 0o4755
    assert (lower / "bin" / "tool").stat().st_nlink == 2
    assert not disk.enforced, "the size of a layer is advice here"
    assert not list((disk.path / UPPER).iterdir())


async def test_what_a_disk_stands_on_stays_until_the_disk_goes(files: FileStore, tmp_path: Path) -> None:
    root_folder(tmp_path / "root")
    with (tmp_path / "images" / "root").open("wb") as archive:
        trees.pack(tmp_path / "root", archive)
    disk = await files.clone("root", ONE, size_mib=10)
    lower = (disk.path / LOWER).resolve()
    (tmp_path / "images" / "root").unlink()
    await files.remove(OTHER)
    assert (lower / "bin" / "tool").exists()
    await files.remove(ONE)
    assert not lower.exists()


async def test_many_disks_are_removed_at_once(files: FileStore, tmp_path: Path) -> None:
    root_folder(tmp_path / "root")
    with (tmp_path / "images" / "root").open("wb") as archive:
        trees.pack(tmp_path / "root", archive)
    many = [VmId(f"{number:08x}-111") for number in range(60)]
    for vm_id in many:
        await files.clone("root", vm_id, size_mib=10)
    # Each looks at what is there while the others take theirs away.
    await asyncio.gather(*(files.remove(vm_id) for vm_id in many))
    assert not await files.disks()
    assert not [*(tmp_path / "run").iterdir()]


async def test_an_image_that_changed_is_known_anew(files: FileStore, tmp_path: Path) -> None:
    (tmp_path / "images" / "disk").write_bytes(b"1" * MIB)
    before = (await files.image("disk")).digest
    (tmp_path / "images" / "disk").write_bytes(b"2" * MIB)
    after = (await files.image("disk")).digest
    assert before != after
    assert after == digest_of(tmp_path / "images" / "disk")
    root_folder(tmp_path / "images" / "root")
    before = (await files.image("root")).digest
    (tmp_path / "images" / "root" / "bin" / "tool").write_bytes(b"#!/bin/no\n")
    assert (await files.image("root")).digest != before


async def test_a_thin_layer_is_as_large_as_asked_for_on_a_base_that_stays(files: FileStore, tmp_path: Path) -> None:
    need(shutil.which("qemu-img"), "qemu-img", "apt-get install qemu-utils")
    image = tmp_path / "images" / "cloud"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "8M"], check=True)
    disk = await files.clone("cloud", ONE, size_mib=64)
    assert disk.form is ImageForm.QCOW2
    assert disk.enforced
    told = subprocess.run(["qemu-img", "info", "--output=json", disk.path], check=True, capture_output=True).stdout
    assert f'"virtual-size": {64 * MIB}'.encode() in told
    assert disk.path.stat().st_size < MIB
    # Another image of the same name does not change what the disk stands on.
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", f"{image}.new", "16M"], check=True)
    Path(f"{image}.new").replace(image)
    await files.remove(OTHER)
    subprocess.run(["qemu-img", "check", "-q", disk.path], check=True)
    with pytest.raises(Conflict):
        await files.clone("cloud", OTHER, size_mib=8)


async def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    need(os.geteuid() == 0, "the right to mount", "run the tests as root")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small], check=True)
    try:
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "disk").write_bytes(os.urandom(4 * MIB))
        store = FileStore(images=tmp_path / "images", runtime=small)
        with pytest.raises(Conflict) as refused:
            await store.clone("disk", ONE, size_mib=8)
        assert refused.value.code == "disk_full"
        assert not list(small.iterdir())
    finally:
        subprocess.run(["umount", small], check=True)


async def test_folders_without_rights_are_removed_too(files: FileStore, tmp_path: Path) -> None:
    root_folder(tmp_path / "images" / "root")
    disk = await files.clone("root", ONE, size_mib=10)
    (disk.path / "work" / "work").mkdir(mode=0o000)
    await files.remove(ONE)
    assert not disk.path.exists()


@pytest.mark.parametrize("name", ["../out", "a/../../out"])
async def test_an_archive_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(trees.Unpackable):
        trees.unpack(_archive(tarfile.TarInfo(name)), tmp_path / "in")
    assert not (tmp_path / "out").exists()


async def test_an_archive_does_not_write_through_its_own_links(tmp_path: Path) -> None:
    link = tarfile.TarInfo("a")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
    with pytest.raises(trees.Unpackable):
        trees.unpack(_archive(link, tarfile.TarInfo("a/out")), tmp_path / "in")
    assert not (tmp_path / "out").exists()


async def test_the_index_is_no_secret_of_the_images(files: FileStore, tmp_path: Path) -> None:
    (tmp_path / "images" / "disk").write_bytes(b"1" * MIB)
    image = await files.image("disk")
    (tmp_path / "images" / ".images.json").write_text("broken")
    assert await files.image("disk") == replace(image)


def _archive(*entries: tarfile.TarInfo) -> io.BytesIO:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for entry in entries:
            archive.addfile(entry, io.BytesIO(b""))
    made.seek(0)
    return made

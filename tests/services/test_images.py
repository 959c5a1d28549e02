"""Images made from recipes: fetched from a server of the test's own, or put together from packages."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from borough.adapters.engines.docker.client import EngineApi
from borough.adapters.engines.docker.images import RuntimeImages
from borough.adapters.images import local_root, local_vm
from borough.adapters.images.fetching import Progress, fetch
from borough.adapters.images.making import ImageMaker
from borough.adapters.storage.bases import LOWER
from borough.adapters.storage.files import FileStore
from borough.core.errors import Conflict, Invalid, Unavailable
from borough.fleet.engines import Engine
from borough.fleet.images import Download, ImageForm, Recipe, recipe
from borough.fleet.vms import VmId
from tests.conftest import need

pytestmark = pytest.mark.anyio
VM = VmId("11111111-111")


class Publisher:
    """Serves files, each beside a list of checksums."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.url = ""

    async def serve(self, request: web.Request) -> web.Response:
        name = request.path.lstrip("/")
        if name == "SHA256SUMS":
            return web.Response(
                text="".join(f"{hashlib.sha256(body).hexdigest()}  {each}\n" for each, body in self.files.items())
            )
        if name == "WRONG":
            return web.Response(text="".join(f"{'0' * 64}  {each}\n" for each in self.files))
        if name not in self.files:
            raise web.HTTPNotFound
        return web.Response(body=self.files[name])

    def download(self, name: str, sums: str | None = "SHA256SUMS") -> Download:
        return Download(url=f"{self.url}/{name}", sums_url=None if sums is None else f"{self.url}/{sums}")


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    made = Publisher()
    application = web.Application()
    application.router.add_get("/{name:.*}", made.serve)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(images=tmp_path / "images", runtime=tmp_path / "run")


@pytest.fixture
def maker(store: FileStore, tmp_path: Path) -> ImageMaker:
    return ImageMaker(store, scratch=tmp_path / "scratch")


def quiet(what: str, done: int, of: int | None) -> None:
    """Hear no progress."""


async def test_a_file_is_fetched_and_proven(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["disk"] = os.urandom(1_000_000)
    heard: list[tuple[int, int | None]] = []
    found = await fetch(
        publisher.download("disk"), tmp_path / "disk", progress=lambda _what, done, of: heard.append((done, of))
    )
    assert (tmp_path / "disk").read_bytes() == publisher.files["disk"]
    assert found.value == hashlib.sha256(publisher.files["disk"]).hexdigest()
    assert heard[-1] == (1_000_000, 1_000_000)


async def test_what_is_not_as_published_is_not_kept(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["disk"] = b"changed on the way"
    with pytest.raises(Conflict) as refused:
        await fetch(publisher.download("disk", "WRONG"), tmp_path / "disk", progress=quiet)
    assert refused.value.code == "digest_mismatch"
    publisher.files["disk"] = b"x" * 5000
    with pytest.raises(Conflict) as refused:
        await fetch(publisher.download("disk"), tmp_path / "disk", progress=quiet, most_bytes=1000)
    assert refused.value.code == "too_large"
    for name, sums in (("none", None), ("disk", "none")):
        with pytest.raises(Unavailable) as failed:
            await fetch(publisher.download(name, sums), tmp_path / "disk", progress=quiet)
        assert failed.value.code == "download_failed"
    assert not (tmp_path / "disk").exists()


async def test_a_cloud_image_becomes_an_image_once(
    publisher: Publisher, maker: ImageMaker, store: FileStore, tmp_path: Path
) -> None:
    need(shutil.which("qemu-img"), "qemu-img", "apt-get install qemu-utils")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "disk", "8M"], check=True)
    publisher.files["disk"] = (tmp_path / "disk").read_bytes()
    wanted = Recipe(name="cloud", engine=Engine.QEMU, description="", downloads={"disk": publisher.download("disk")})
    image = await maker.make(wanted, progress=quiet)
    assert image is not None
    assert image.form is ImageForm.QCOW2
    publisher.files.clear()
    assert await maker.make(wanted, progress=quiet) == image, "it is there already"
    assert (await store.clone("cloud", VM, size_mib=16)).enforced
    assert not list((tmp_path / "scratch").iterdir())


async def test_a_kernel_and_a_root_become_what_firecracker_starts_from(
    publisher: Publisher, maker: ImageMaker, store: FileStore
) -> None:
    need(shutil.which("mke2fs"), "mke2fs", "apt-get install e2fsprogs")
    publisher.files |= {"vmlinux": b"\x7fELF kernel", "root.tar.gz": _archive({"etc/os-release": b"ID=test\n"})}
    wanted = Recipe(
        name="fc", engine=Engine.FIRECRACKER, description="",
        downloads={"kernel": publisher.download("vmlinux", None), "root": publisher.download("root.tar.gz")},
    )  # fmt: skip
    image = await maker.make(wanted, progress=quiet)
    assert image is not None
    assert image.engines == {Engine.FIRECRACKER}
    disk = await store.clone("fc", VM, size_mib=512)
    assert (disk.path / "vmlinux").read_bytes() == b"\x7fELF kernel"
    shown = subprocess.run(
        ["debugfs", "-R", "cat /etc/os-release", disk.path / "rootfs.ext4"], check=True, capture_output=True
    ).stdout
    assert shown == b"ID=test\n"


async def test_a_root_for_jails_is_made_of_its_archive(publisher: Publisher, store: FileStore, tmp_path: Path) -> None:
    publisher.files["14.3-RELEASE/base.txz"] = _archive({"bin/sh": b"#!"}, mode="w:xz")
    publisher.files["base.txz"] = publisher.files["14.3-RELEASE/base.txz"]
    wanted = Recipe(
        name="base", engine=Engine.JAIL, description="",
        downloads={
            "base": Download(url=f"{publisher.url}/{{release}}/base.txz", sums_url=f"{publisher.url}/SHA256SUMS")
        },
    )  # fmt: skip
    image = await ImageMaker(store, scratch=tmp_path / "scratch").make(wanted, progress=quiet)
    assert image is not None
    assert Engine.JAIL in image.engines
    lower = (await store.clone("base", VM, size_mib=64)).path / LOWER
    assert "sshd_enable" in (lower / "etc/rc.conf").read_text()


async def test_containers_images_are_the_runtimes(maker: ImageMaker, store: FileStore, tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as refused:
        await maker.make(recipe("alpine"), progress=quiet)
    assert refused.value.code == "engine_missing"
    runtime = Runtime()
    with_runtime = ImageMaker(store, scratch=tmp_path / "scratch", containers=runtime)
    for _ in range(2):
        assert await with_runtime.make(recipe("alpine"), progress=quiet) is None
    assert runtime.fetched == [("alpine:3.21", "alpine")], "what is there is not fetched again"


class Runtime:
    """A container runtime that has what it fetched."""

    def __init__(self) -> None:
        self.fetched: list[tuple[str, str]] = []

    async def has(self, name: str) -> bool:
        return name in {named for _, named in self.fetched}

    async def fetch(self, reference: str, name: str, *, progress: Progress) -> None:
        progress(reference, 1, 1)
        self.fetched.append((reference, name))


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[tuple[EngineApi, list[str]]]:
    """A container runtime that answers as the Engine API says, with two layers and one image that is no more."""
    asked: list[str] = []

    async def pull(request: web.Request) -> web.StreamResponse:
        asked.append(f"pull {request.query['fromImage']}")
        lines: list[dict[str, object]] = [{"status": "Pulling"}]
        if request.query["fromImage"] == "gone:1":
            lines.append({"error": "manifest unknown"})
        lines += [
            {"id": layer, "progressDetail": {"current": done, "total": 10}} for layer, done in (("a", 5), ("b", 10))
        ]
        return web.Response(body=b"".join(json.dumps(line).encode() + b"\n" for line in lines))

    async def tag(request: web.Request) -> web.Response:
        asked.append(f"tag {request.match_info['name']} {request.query['repo']}:{request.query['tag']}")
        return web.Response(status=201)

    async def version(_: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": "1.45", "MinAPIVersion": "1.24", "Version": "26"})

    async def look(request: web.Request) -> web.Response:
        there = request.match_info["name"] == "alpine" and "tag alpine:3.21 alpine:latest" in asked
        return web.json_response({"message": "no such image"}, status=200 if there else 404)

    application = web.Application()
    application.router.add_get("/version", version)
    application.router.add_post("/{version}/images/create", pull)
    application.router.add_post("/{version}/images/{name}/tag", tag)
    application.router.add_get("/{version}/images/{name}/json", look)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "api.sock")).start()
    api = EngineApi(str(tmp_path / "api.sock"))
    yield api, asked
    await api.close()
    await runner.cleanup()


async def test_a_container_runtime_fetches_by_tag_and_gives_the_recipes_name(
    runtime: tuple[EngineApi, list[str]], store: FileStore, tmp_path: Path
) -> None:
    api, asked = runtime
    heard: list[tuple[str, int, int | None]] = []
    maker = ImageMaker(store, scratch=tmp_path / "scratch", containers=RuntimeImages(api))
    assert not await maker.has(recipe("alpine"))
    await maker.make(recipe("alpine"), progress=lambda what, done, of: heard.append((what, done, of)))
    assert asked == ["pull alpine:3.21", "tag alpine:3.21 alpine:latest"]
    assert heard == [("alpine:3.21", 5, 10), ("alpine:3.21", 15, 20)]
    assert await maker.has(recipe("alpine"))
    with pytest.raises(Invalid) as refused:
        await RuntimeImages(api).fetch("gone:1", "gone", progress=quiet)
    assert refused.value.code == "image_missing"
    assert "manifest unknown" in (refused.value.reason or "")


async def test_a_local_root_is_whole(store: FileStore, maker: ImageMaker) -> None:
    need(shutil.which("busybox"), "busybox", "apt-get install busybox-static")
    image = await maker.make(recipe("local-root"), progress=quiet)
    assert image is not None
    assert Engine.BUBBLEWRAP in image.engines
    lower = ((await store.clone("local-root", VM, size_mib=64)).path / LOWER).resolve()
    assert (lower / "bin/sh").readlink() == Path("busybox")
    assert (lower / "tmp").stat().st_mode & 0o7777 == 0o1777
    if os.geteuid() == 0:
        said = subprocess.run(["chroot", lower, "/bin/sh", "-c", "id -u"], check=True, capture_output=True)
        assert said.stdout == b"0\n"


async def test_a_local_vm_is_a_disk_that_boots(store: FileStore, maker: ImageMaker, tmp_path: Path) -> None:
    need(shutil.which("apt-get") and shutil.which("dpkg-deb"), "apt and dpkg", "use a Debian machine")
    need(shutil.which("qemu-img"), "qemu-img", "apt-get install qemu-utils")
    need(shutil.which("cpio"), "cpio", "apt-get install cpio")
    need(shutil.which("qemu-system-x86_64"), "QEMU", "apt-get install qemu-system-x86")
    image = await maker.make(recipe("local-vm"), progress=quiet)
    assert image is not None
    assert image.engines >= {Engine.QEMU}
    disk = await store.clone("local-vm", VM, size_mib=128)
    machine = subprocess.Popen(
        ["qemu-system-x86_64", "-accel", "tcg", "-machine", "q35", "-cpu", "max", "-m", "256", "-nodefaults",
         "-no-user-config", "-display", "none", "-serial", "stdio",
         "-drive", f"file={disk.path},if=virtio,format=qcow2"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert machine.stdout is not None
        seen = b""
        while b"the machine is up" not in seen:
            line = machine.stdout.readline()
            assert line, seen.decode(errors="replace")
            seen += line
        assert b"ssh-ed25519" in seen, "its host key is told on the console"
    finally:
        machine.kill()
        machine.wait()
        if machine.stdout is not None:
            machine.stdout.close()


def test_steps_are_lists_of_arguments() -> None:
    assert local_root.debian_argv("bookworm", Path("/x/root.tar")) == [
        "mmdebstrap", "--variant=minbase", "--format=tar", "bookworm", "/x/root.tar",
    ]  # fmt: skip
    assert local_vm.boot_argv(Path("/x/fat.img")) == ["syslinux", "--install", "/x/fat.img"]


def _archive(files: dict[str, bytes], *, mode: str = "w:gz") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:  # type: ignore[call-overload]  # one of its modes
        for folder in ("sbin", "etc"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()

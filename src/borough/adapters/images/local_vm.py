"""A tiny machine that boots from its disk: Debian's cloud kernel, busybox and dropbear, made without privilege.

The disk has two partitions: FAT with SYSLINUX, the kernel and an initial file system that loads drivers, and ext4 with
the root, in which what is written stays.
"""

import gzip
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path

from borough.adapters.images import guest
from borough.adapters.images.packages import newest, unpacked
from borough.adapters.images.tools import image_failed, run

PACKAGES = ("busybox-static", "dropbear-bin", "libtomcrypt1", "libtommath1", "syslinux", "syslinux-common", "mtools")
KERNEL_META, KERNEL_PREFIX = "linux-image-cloud-amd64", "linux-image-"
_SECTOR = 512
_FAT_START, _FAT_SECTORS = 2048, 65_536
_ROOT_START, _ROOT_SECTORS = _FAT_START + _FAT_SECTORS, 65_536
_FAT16, _LINUX = 0x06, 0x83
_LIBRARIES = (
    "ld-linux-x86-64.so.2", "libc.so.6", "libcrypt.so.1", "libz.so.1", "libtomcrypt.so.1", "libtommath.so.1",
    "libgmp.so.10", "libnss_files.so.2",
)  # fmt: skip
_FOLDERS = ("bin", "sbin", "dev", "proc", "sys", "run", "tmp", "root", "modules", "lib", "lib64", "etc/acpi/PWRF")
_FILES = {
    "etc/passwd": "root::0:0:root:/root:/bin/sh\nguest:x:1000:1000::/tmp:/bin/sh\n",
    "etc/group": "root:x:0:\nguest:x:1000:\n",
    "etc/shells": "/bin/sh\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\n",
}
_BOOT = (
    "DEFAULT tiny\nPROMPT 0\nTIMEOUT 0\nLABEL tiny\n  KERNEL vmlinuz\n  INITRD initrd.gz\n"
    "  APPEND console=ttyS0 reboot=t panic=-1 quiet mitigations=off tsc=reliable\n"
)


def convert_argv(raw: Path, image: Path) -> list[str]:
    """Make a thin image of a raw one."""
    return ["qemu-img", "convert", "-O", "qcow2", str(raw), str(image)]


def pack_argv() -> list[str]:
    """Pack the files that are named on standard input as an initial file system, owned by root."""
    return ["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"]


def format_argv(image: Path) -> list[str]:
    """Make a FAT file system where it will lie on the disk."""
    geometry = ["-T", str(_FAT_SECTORS), "-h", "255", "-s", "63", "-H", str(_FAT_START)]
    return ["mformat", "-i", str(image), *geometry, "::"]


def copy_argv(image: Path, files: list[Path]) -> list[str]:
    """Copy files into the FAT file system."""
    return ["mcopy", "-i", str(image), *map(str, files), "::"]


def boot_argv(image: Path) -> list[str]:
    """Make the FAT file system one that boots."""
    return ["syslinux", "--install", str(image)]


def root_argv(image: Path, tree: Path) -> list[str]:
    """Make the root file system out of a folder, owned by root."""
    options = ["-q", "-F", "-t", "ext4", "-E", "root_owner=0:0,lazy_itable_init=0", "-m", "0", "-d", str(tree)]
    return ["mke2fs", *options, str(image), f"{_ROOT_SECTORS // 2}k"]


def tiny_disk(folder: Path, *, given: Path | None = None) -> Path:
    """Make the disk as qcow2 in an empty ``folder`` and return it. Blocks; raises ``Unavailable``.

    ``given`` is a folder with the packages as files, for hosts that can fetch none.
    """
    names = [] if given is not None else [newest(KERNEL_META, KERNEL_PREFIX), *PACKAGES]
    packages = unpacked(names, folder, given=given)
    kernel = next(packages.glob("boot/vmlinuz-*"), None)
    if kernel is None:
        raise image_failed("there is no kernel among the packages", KERNEL_META)
    modules = {path.stem: path for path in packages.glob("lib/modules/*/kernel/**/*.ko")}
    initial = _initial(folder / "early", packages, modules)
    root = _root(folder / "root", packages, modules)
    raw, image = folder / "disk.raw", folder / "disk.qcow2"
    with raw.open("wb") as disk:
        disk.write(_boot_sector(packages))
        disk.seek(_FAT_START * _SECTOR)
        disk.write(_fat(folder / "fat.img", packages, kernel, initial))
        disk.seek(_ROOT_START * _SECTOR)
        run(root_argv(folder / "root.img", root))
        disk.write((folder / "root.img").read_bytes())
    run(convert_argv(raw, image))
    return image


def _initial(tree: Path, packages: Path, modules: Mapping[str, Path]) -> bytes:
    for name in ("bin", "modules", "proc", "sys", "dev", "root"):
        (tree / name).mkdir(parents=True)
    shutil.copy(packages / "bin/busybox", tree / "bin/busybox")
    for name in guest.EARLY:
        shutil.copy(_known(modules, name), tree / "modules")
    _script(tree / "init", guest.EARLY_INIT.format(early=" ".join(guest.EARLY)))
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    return gzip.compress(run(pack_argv(), cwd=tree, stdin=names.encode()), 1)


def _root(tree: Path, packages: Path, modules: Mapping[str, Path]) -> Path:
    for name in _FOLDERS:
        (tree / name).mkdir(parents=True)
    busybox = packages / "bin/busybox"
    shutil.copy(busybox, tree / "bin/busybox")
    for applet in run([str(busybox), "--list"]).decode().split():
        if applet != "busybox":
            (tree / "bin" / applet).symlink_to("busybox")
    for name in ("usr/sbin/dropbear", "usr/bin/dropbearkey"):
        shutil.copy(packages / name, tree / "sbin")
    for name in _LIBRARIES:
        shutil.copy(_library(packages, name), tree / ("lib64" if name.startswith("ld-") else "lib"))
    for name in guest.LATE:
        shutil.copy(_known(modules, name), tree / "modules")
    for name, content in _FILES.items():
        (tree / name).write_text(content)
    _script(tree / "etc/acpi/PWRF/00000080", "#!/bin/sh\nsync\nmount -o remount,ro /\npoweroff -f\n")
    _script(tree / "sbin/init", guest.INIT.format(late=" ".join(guest.LATE)))
    return tree


def _known(modules: Mapping[str, Path], name: str) -> Path:
    if name not in modules:
        raise image_failed(f"the kernel has no module {name}", KERNEL_META)
    return modules[name]


def _library(packages: Path, name: str) -> Path:
    places = (packages / "usr/lib/x86_64-linux-gnu", packages / "lib/x86_64-linux-gnu", packages / "lib64")
    for place in (*places, Path("/lib/x86_64-linux-gnu"), Path("/lib64")):
        if (place / name).exists():
            return place / name
    raise image_failed(f"there is no {name}, in the packages or on this machine", name)


def _boot_sector(packages: Path) -> bytes:
    code = (packages / "usr/lib/syslinux/mbr/mbr.bin").read_bytes().ljust(446, b"\0")
    table = _partition(_FAT_START, _FAT_SECTORS, _FAT16, active=True) + _partition(_ROOT_START, _ROOT_SECTORS, _LINUX)
    return code + table.ljust(64, b"\0") + b"\x55\xaa"


def _partition(start: int, sectors: int, kind: int, *, active: bool = False) -> bytes:
    beyond = b"\xfe\xff\xff"  # cylinders are not used
    return struct.pack("<B3sB3sII", 0x80 if active else 0, beyond, kind, beyond, start, sectors)


def _fat(image: Path, packages: Path, kernel: Path, initial: bytes) -> bytes:
    image.write_bytes(b"\0" * (_FAT_SECTORS * _SECTOR))
    boot = image.parent
    (boot / "initrd.gz").write_bytes(initial)
    (boot / "syslinux.cfg").write_text(_BOOT)
    shutil.copy(kernel, boot / "vmlinuz")
    env = {"PATH": f"{packages}/usr/bin:/usr/bin:/bin", "MTOOLS_SKIP_CHECK": "1"}
    run(format_argv(image), env=env)
    run(copy_argv(image, [boot / name for name in ("vmlinuz", "initrd.gz", "syslinux.cfg")]), env=env)
    run(boot_argv(image), env=env)
    return image.read_bytes()


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)

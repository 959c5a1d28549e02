"""A tiny machine that boots from its disk: Debian's cloud kernel, busybox and dropbear, made without privilege.

The disk has two partitions: FAT with SYSLINUX, the kernel and an initial file system that loads drivers, and ext4 with
the root. It reads its NoCloud seed as cloud-init does: keys, address by hardware address, name. It prints its host
keys to the console, ends in order when its power button is pressed, and keeps what is written to its disk.
"""

import gzip
import os
import shutil
import struct
import subprocess
from pathlib import Path

PACKAGES = (
    "busybox-static", "dropbear-bin", "libtomcrypt1", "libtommath1", "syslinux", "syslinux-common", "mtools",
    "qemu-guest-agent", "libglib2.0-0", "libnuma1", "libudev1", "liburing2", "libpcre2-8-0",
    "libgmp10", "zlib1g", "libcrypt1",
)  # fmt: skip
_KERNEL_META = "linux-image-cloud-amd64"
_SECTOR = 512
_FAT_START = 2048
_FAT_SECTORS = 65_536
_ROOT_START = _FAT_START + _FAT_SECTORS
_ROOT_SECTORS = 65_536
_FAT16, _LINUX = 0x06, 0x83
_EARLY = ("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk")
_LATE = (
    "failover",
    "net_failover",
    "virtio_net",
    "virtio_console",
    "nls_cp437",
    "nls_ascii",
    "fat",
    "vfat",
    "button",
    "evdev",
)
_LIBRARIES = (
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libcrypt.so.1",
    "libz.so.1",
    "libtomcrypt.so.1",
    "libtommath.so.1",
    "libgmp.so.10",
    "libnss_files.so.2",
    "libglib-2.0.so.0",
    "libgmodule-2.0.so.0",
    "libpcre2-8.so.0",
    "libudev.so.1",
    "libnuma.so.1",
    "liburing.so.2",
    "libm.so.6",
)

_EARLY_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
for module in {early}; do insmod /modules/$module.ko; done
while [ ! -b /dev/vda2 ]; do sleep 0.05; done
mount -t ext4 -o rw /dev/vda2 /root
mount --move /dev /root/dev
umount /sys /proc
exec switch_root /root /sbin/init
"""

_INIT = """#!/bin/sh
export PATH=/sbin:/bin:/usr/sbin:/usr/bin HOME=/root
mount -t proc none /proc
mount -t sysfs none /sys
mkdir -p /dev/pts /run /tmp
mount -t devpts none /dev/pts
mount -t tmpfs none /run
exec </dev/ttyS0 >/dev/ttyS0 2>&1
for module in {late}; do insmod /modules/$module.ko; done
mkdir -p /run/seed
for device in /dev/vd[a-z]; do
  head -c 512 $device | grep -q CIDATA && mount -t vfat -o ro $device /run/seed
done
value() {{ sed -n 's/^ *"'$2'": "\\(.*\\)",\\{{0,1\\}}$/\\1/p' /run/seed/$1 | head -n 1; }}
hostname "$(value meta-data local-hostname)"
mkdir -p /root/.ssh /etc/dropbear
chown -R 0:0 /root
sed -n 's/^ *"\\(\\(ssh-\\|ecdsa-\\).*\\)",\\{{0,1\\}}$/\\1/p' /run/seed/user-data | sort -u >/root/.ssh/authorized_keys
chmod 700 /root /root/.ssh; chmod 600 /root/.ssh/authorized_keys
for device in /sys/class/net/*; do
  [ "$(cat $device/address)" = "$(value network-config mac_address)" ] || continue
  ifconfig ${{device##*/}} up
  ip addr add "$(value network-config address)" dev ${{device##*/}}
  ip route add default via "$(value network-config gateway)"
done
ifconfig lo 127.0.0.1 up
key=/etc/dropbear/dropbear_ed25519_host_key
id="$(value meta-data instance-id)"
[ "$(cat /etc/dropbear/instance 2>/dev/null)" = "$id" ] || rm -f $key
echo "$id" >/etc/dropbear/instance
[ -s $key ] || dropbearkey -t ed25519 -f $key >/run/key 2>&1
echo "-----BEGIN SSH HOST KEY KEYS-----"
dropbearkey -y -f $key | grep '^ssh-'
echo "-----END SSH HOST KEY KEYS-----"
sync
acpid -f -c /etc/acpi -l /dev/null &
qemu-ga -d -m virtio-serial -p /dev/vport*p1 -t /run
dropbear -s -r $key -p 22
echo "the machine is up"
while true; do sleep 3600; done
"""


def missing() -> str | None:
    """Return what this machine lacks to make one, or ``None``."""
    lacking = [tool for tool in ("apt-get", "dpkg-deb", "mke2fs", "qemu-img", "cpio") if shutil.which(tool) is None]
    return ", ".join(lacking) or None


def build(folder: Path) -> Path:
    """Make the disk as qcow2 in ``folder`` and return it."""
    packages = _fetch(folder)
    (kernel,) = packages.glob("boot/vmlinuz-*")
    modules = {path.stem: path for path in packages.glob("lib/modules/*/kernel/**/*.ko")}
    initrd = _initrd(folder / "early", packages, modules)
    root = _root(folder / "root", packages, modules)
    raw = folder / "disk.raw"
    with raw.open("wb") as disk:
        disk.write(_boot_sector(packages))
        disk.seek(_FAT_START * _SECTOR)
        disk.write(_fat(folder / "fat.img", packages, kernel, initrd))
        disk.seek(_ROOT_START * _SECTOR)
        disk.write(_ext4(folder / "root.img", root))
    image = folder / "tiny.qcow2"
    _run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(image)])
    return image


def _fetch(folder: Path) -> Path:
    archives, root = folder / "archives", folder / "packages"
    archives.mkdir()
    depends = _run(["apt-cache", "depends", "--important", _KERNEL_META]).decode().split()
    kernel = next(word for word in depends if word.startswith("linux-image-") and word != _KERNEL_META)
    _run(["apt-get", "download", "-q", kernel, *PACKAGES], cwd=archives)
    for archive in archives.glob("*.deb"):
        _run(["dpkg-deb", "-x", str(archive), str(root)])
    return root


def _initrd(tree: Path, packages: Path, modules: dict[str, Path]) -> bytes:
    for name in ("bin", "modules", "proc", "sys", "dev", "root"):
        (tree / name).mkdir(parents=True)
    shutil.copy(packages / "bin/busybox", tree / "bin/busybox")
    for name in _EARLY:
        shutil.copy(modules[name], tree / "modules")
    _script(tree / "init", _EARLY_INIT.format(early=" ".join(_EARLY)))
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    packed = _run(["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"], cwd=tree, stdin=names.encode())
    return gzip.compress(packed, 1)


def _root(tree: Path, packages: Path, modules: dict[str, Path]) -> Path:
    for name in ("bin", "sbin", "dev", "proc", "sys", "run", "tmp", "root", "modules", "lib", "lib64", "etc/acpi/PWRF"):
        (tree / name).mkdir(parents=True)
    busybox = packages / "bin/busybox"
    shutil.copy(busybox, tree / "bin/busybox")
    for applet in _run([str(busybox), "--list"]).decode().split():
        if applet != "busybox":
            (tree / "bin" / applet).symlink_to("busybox")
    for name in ("usr/sbin/dropbear", "usr/bin/dropbearkey", "usr/sbin/qemu-ga"):
        shutil.copy(packages / name, tree / "sbin")
    for name in _LIBRARIES:
        shutil.copy(_library(packages, name), tree / ("lib64" if name.startswith("ld-") else "lib"))
    for name in _LATE:
        shutil.copy(modules[name], tree / "modules")
    (tree / "var").mkdir()
    (tree / "var/run").symlink_to("/run")
    (tree / "etc/passwd").write_text("root::0:0:root:/root:/bin/sh\nguest:x:1000:1000::/tmp:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\nguest:x:1000:\n")
    (tree / "etc/shells").write_text("/bin/sh\n")
    (tree / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\n")
    _script(tree / "etc/acpi/PWRF/00000080", "#!/bin/sh\nsync\nmount -o remount,ro /\npoweroff -f\n")
    _script(tree / "sbin/init", _INIT.format(late=" ".join(_LATE)))
    return tree


def _library(packages: Path, name: str) -> Path:
    own = (packages / "usr/lib/x86_64-linux-gnu", packages / "lib/x86_64-linux-gnu")
    for folder in (*own, Path("/lib/x86_64-linux-gnu"), Path("/lib64")):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(name)


def _boot_sector(packages: Path) -> bytes:
    code = (packages / "usr/lib/syslinux/mbr/mbr.bin").read_bytes().ljust(446, b"\0")
    table = _partition(_FAT_START, _FAT_SECTORS, _FAT16, active=True) + _partition(_ROOT_START, _ROOT_SECTORS, _LINUX)
    return code + table.ljust(64, b"\0") + b"\x55\xaa"


def _partition(start: int, sectors: int, kind: int, *, active: bool = False) -> bytes:
    beyond = b"\xfe\xff\xff"  # cylinders are not used
    return struct.pack("<B3sB3sII", 0x80 if active else 0, beyond, kind, beyond, start, sectors)


def _fat(image: Path, packages: Path, kernel: Path, initrd: bytes) -> bytes:
    image.write_bytes(b"\0" * (_FAT_SECTORS * _SECTOR))
    (image.parent / "initrd.gz").write_bytes(initrd)
    (image.parent / "syslinux.cfg").write_text(
        "DEFAULT tiny\nPROMPT 0\nTIMEOUT 0\nLABEL tiny\n  KERNEL vmlinuz\n  INITRD initrd.gz\n"
        "  APPEND console=ttyS0 reboot=t panic=-1 quiet mitigations=off tsc=reliable\n"
    )
    shutil.copy(kernel, image.parent / "vmlinuz")
    env = {**os.environ, "PATH": f"{packages}/usr/bin:{os.environ['PATH']}", "MTOOLS_SKIP_CHECK": "1"}
    geometry = ["-T", str(_FAT_SECTORS), "-h", "255", "-s", "63", "-H", str(_FAT_START)]
    _run(["mformat", "-i", str(image), *geometry, "::"], env=env)
    files = [str(image.parent / name) for name in ("vmlinuz", "initrd.gz", "syslinux.cfg")]
    _run(["mcopy", "-i", str(image), *files, "::"], env=env)
    _run(["syslinux", "--install", str(image)], env=env)
    return image.read_bytes()


def _ext4(image: Path, tree: Path) -> bytes:
    options = ["-q", "-F", "-t", "ext4", "-E", "root_owner=0:0,lazy_itable_init=0", "-m", "0", "-d", str(tree)]
    _run(["mke2fs", *options, str(image), f"{_ROOT_SECTORS // 2}k"])
    return image.read_bytes()


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _run(argv: list[str], *, cwd: Path | None = None, stdin: bytes = b"", env: dict[str, str] | None = None) -> bytes:
    finished = subprocess.run(argv, cwd=cwd, input=stdin, env=env, capture_output=True, check=False)
    assert finished.returncode == 0, f"{' '.join(argv)}: {finished.stderr.decode()}"
    return finished.stdout

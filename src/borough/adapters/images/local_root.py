"""A root folder from this machine's packages: busybox and nothing else, or a small Debian."""

import shutil
from pathlib import Path

from borough.adapters.images.packages import unpacked
from borough.adapters.images.tools import run

_FOLDERS = ("bin", "dev", "etc", "home", "proc", "root", "run", "tmp", "usr/bin", "usr/sbin", "var/tmp")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/shells": "/bin/sh\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/os-release": 'ID=borough-local\nNAME="Borough local root"\nPRETTY_NAME="Borough local root (busybox)"\n',
}


def debian_argv(suite: str, target: Path, mirrors: tuple[str, ...] = ()) -> list[str]:
    """Make a Debian with nothing but what is essential, as an archive."""
    return ["mmdebstrap", "--variant=minbase", "--format=tar", suite, str(target), *mirrors]


def busybox_root(folder: Path, *, given: Path | None = None) -> Path:
    """Make a root folder whose programs are all one; return it. Blocks; raises ``Unavailable``."""
    busybox = _busybox(folder, given)
    root = folder / "root"
    for name in _FOLDERS:
        (root / name).mkdir(parents=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    (root / "root").chmod(0o700)
    shutil.copyfile(busybox, root / "bin/busybox")
    (root / "bin/busybox").chmod(0o755)
    for applet in run([str(busybox), "--list"]).decode().split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    for name, content in _FILES.items():
        (root / name).write_text(content)
    return root


def debian_root(archive: Path, suite: str) -> Path:
    """Make a small Debian as an archive; return it. Blocks; raises ``Unavailable``."""
    run(debian_argv(suite, archive))
    return archive


def _busybox(folder: Path, given: Path | None) -> Path:
    """Return a busybox that needs no libraries: from the packages that were given, this machine's, or fetched."""
    here = shutil.which("busybox")
    if given is None and here is not None and _is_static(Path(here)):
        return Path(here)
    return unpacked(["busybox-static"], folder, given=given) / "bin/busybox"


def _is_static(program: Path) -> bool:
    """Tell whether a program names no loader (ELF, PT_INTERP)."""
    content = program.read_bytes()
    table, size, count = (
        int.from_bytes(content[at : at + length], "little") for at, length in ((32, 8), (54, 2), (56, 2))
    )
    kinds = (int.from_bytes(content[table + size * each :][:4], "little") for each in range(count))
    return content[:5] == b"\x7fELF\x02" and 3 not in kinds  # noqa: PLR2004 - PT_INTERP

"""What decides whether a guest boots on this host; what was found out by booting one counts until it changes."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def surroundings(program: str, version: str, device: Path) -> str:
    """Return what is another when the program, the kernel, the host's start or the device for guests is another."""
    path = shutil.which(program) or program
    return f"{path} {_file(path)} {version} {os.uname().release} {_started()} {_device(device)}"


def _file(path: str) -> str:
    try:
        about = Path(path).stat()
    except OSError:
        return "none"
    return f"{about.st_size}:{about.st_mtime_ns}"


def _started() -> str:
    with suppress(OSError):  # no Linux: the kernel's release is all there is
        return _BOOT_ID.read_text(encoding="ascii").strip()
    return "unknown"


def _device(device: Path) -> str:
    try:
        about = device.stat()
    except OSError:
        return "none"
    return f"{about.st_rdev}:{about.st_ctime_ns}:{os.access(device, os.R_OK | os.W_OK)}"

"""What guests really boot on here, found out by booting one.

A device that opens proves nothing: there are hosts on which ``/dev/kvm`` opens and no guest ever runs an instruction.
So one is booted whose whole system is a boot sector of seven bytes: it tells QEMU to exit with a status of its own,
which nothing else would.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from borough.adapters import process
from borough.adapters.engines.qemu.argv import accelerator
from borough.adapters.engines.surroundings import surroundings
from borough.core.errors import Unavailable

KVM, TCG = "kvm", "tcg"
BOOTS_WITHIN_S = 20.0
_DEVICE = Path("/dev/kvm")
_EXIT_PORT, _SAID = 0xF4, 0x2A
_EXPECTED_STATUS = _SAID << 1 | 1
"""As QEMU's isa-debug-exit makes a status of what is written to it."""
_BOOT_SECTOR = bytes([0xBA, _EXIT_PORT, 0x00, 0xB0, _SAID, 0xEE, 0xF4]).ljust(510, b"\0") + b"\x55\xaa"
"""mov dx, port; mov al, said; out dx, al; hlt."""
_DISK_BYTES = 1 << 20
"""Firmware reads nothing from a disk without one whole cylinder."""
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceleration:
    """What was found out."""

    name: str | None
    """``None``: no guest boots at all."""
    reason: str | None = None
    """Why it is not the better one."""


def find(program: str, version: str, *, state: Path) -> Acceleration:
    """Return what guests boot on, out of ``state`` if nothing has changed since it was found out. Blocks."""
    key = surroundings(program, version, _DEVICE)
    file = state / "acceleration.json"
    with suppress(FileNotFoundError, ValueError, TypeError, KeyError):  # then it is found out again
        kept = json.loads(file.read_text())
        if kept["key"] == key:
            return Acceleration(**kept["found"])
    found = _find(program)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.write_text(json.dumps({"key": key, "found": asdict(found)}))
    draft.replace(file)
    return found


def probe_argv(program: str, acceleration: str, disk: Path) -> Sequence[str]:
    """Return the command that boots the smallest of guests."""
    return [
        program,
        "-accel", accelerator(acceleration),
        "-machine", "q35",
        "-cpu", "host" if acceleration == KVM else "max",
        "-m", "size=64M",
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-drive", f"file={disk},format=raw,if=virtio,readonly=on",
        "-device", f"isa-debug-exit,iobase={_EXIT_PORT:#x},iosize=0x04",
    ]  # fmt: skip


def _find(program: str) -> Acceleration:
    why_not = _why_not_kvm()
    if why_not is None:
        why_not = _failure(program, KVM)
        if why_not is None:
            return Acceleration(name=KVM)
        why_not = f"a guest did not boot on {_DEVICE}: {why_not}"
    slow = _failure(program, TCG)
    if slow is None:
        return Acceleration(name=TCG, reason=why_not)
    return Acceleration(name=None, reason=f"{why_not}; nor by translation: {slow}")


def _why_not_kvm() -> str | None:
    if not _DEVICE.exists():
        return f"there is no {_DEVICE}"
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return f"this program may not open {_DEVICE}"
    return None


def _failure(program: str, acceleration: str) -> str | None:
    """Boot a guest; return why it failed, or ``None``."""
    with tempfile.TemporaryDirectory(prefix="borough-boot-") as folder:
        disk = Path(folder) / "boot.img"
        disk.write_bytes(_BOOT_SECTOR.ljust(_DISK_BYTES, b"\0"))
        try:
            finished = process.run(
                probe_argv(program, acceleration, disk), env=_ENVIRONMENT, timeout_s=BOOTS_WITHIN_S
            )  # fmt: skip
        except Unavailable as error:
            return str(error)
    return None if finished.code == _EXPECTED_STATUS else finished.words

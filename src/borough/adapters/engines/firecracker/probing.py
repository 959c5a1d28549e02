"""Whether Firecracker's guests boot here: the smallest of them is booted.

Its kernel is one segment of seven bytes that asks the keyboard controller to reset the processor, on which Firecracker
ends by itself. On a host where ``/dev/kvm`` opens and no guest runs, it does not.
"""

import json
import os
import re
import shutil
import struct
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from borough.adapters import process
from borough.adapters.engines.surroundings import surroundings
from borough.core.errors import Unavailable

BOOTS_WITHIN_S = 10.0
_DEVICE = Path("/dev/kvm")
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}
_VERSION = re.compile(rb"Firecracker v?(\S+)")
_CODE = bytes([0xB0, 0xFE, 0xE6, 0x64, 0xF4, 0xEB, 0xFD])
"""mov al, 0xfe; out 0x64, al; hlt; and again."""
_LOADED_AT = 0x100_0000
_HEADER_BYTES, _SEGMENT_BYTES = 64, 56


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What was found out."""

    version: str
    reason: str | None
    """Why no guest boots, if none does."""


def probe(program: str, *, state: Path) -> Probed | None:
    """Return what was found out, now or before on the same host, or ``None`` when Firecracker is not here. Blocks."""
    if shutil.which(program) is None:
        return None
    told = process.run([program, "--version"], env=_ENVIRONMENT, timeout_s=BOOTS_WITHIN_S)
    version = _VERSION.search(told.stdout)
    if told.code != 0 or version is None:
        return None
    key = surroundings(program, version[1].decode(), _DEVICE)
    file = state / "boots.json"
    with suppress(FileNotFoundError, ValueError, TypeError, KeyError):  # then it is found out again
        kept = json.loads(file.read_text())
        if kept["key"] == key:
            return Probed(**kept["found"])
    found = Probed(version=version[1].decode(), reason=_why_not(program))
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.write_text(json.dumps({"key": key, "found": asdict(found)}))
    draft.replace(file)
    return found


def tiny_kernel() -> bytes:
    """Return an ELF file with one segment that ends the machine."""
    offset = _HEADER_BYTES + _SEGMENT_BYTES
    header = struct.pack(
        "<4sBBBB8xHHIQQQIHHHHHH",
        b"\x7fELF", 2, 1, 1, 0, 2, 62, 1, _LOADED_AT, _HEADER_BYTES, 0, 0, _HEADER_BYTES, _SEGMENT_BYTES, 1, 0, 0, 0,
    )  # fmt: skip
    segment = struct.pack(
        "<IIQQQQQQ", 1, 5, offset, _LOADED_AT, _LOADED_AT, len(_CODE), len(_CODE), 0x1000
    )  # fmt: skip
    return header + segment + _CODE


def _why_not(program: str) -> str | None:
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return f"this program may not open {_DEVICE}" if _DEVICE.exists() else f"there is no {_DEVICE}"
    with tempfile.TemporaryDirectory(prefix="borough-boot-") as folder:
        kernel, config = Path(folder) / "vmlinux", Path(folder) / "machine.json"
        kernel.write_bytes(tiny_kernel())
        told = {
            "boot-source": {"kernel_image_path": str(kernel), "boot_args": ""},
            "drives": [],
            "machine-config": {"vcpu_count": 1, "mem_size_mib": 64},
        }
        config.write_text(json.dumps(told))
        try:
            finished = process.run(
                [program, "--no-api", "--config-file", str(config)], env=_ENVIRONMENT, timeout_s=BOOTS_WITHIN_S
            )  # fmt: skip
        except Unavailable as error:
            return f"a guest did not boot: {error}"
    return None if finished.code == 0 else f"a guest did not boot: {finished.words}"

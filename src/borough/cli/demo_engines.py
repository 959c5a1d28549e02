"""The other engines of the fleet's demonstration: containers and virtual machines, where this machine can make them.

As root, everything is in a network namespace of the demonstration's own, and so are a container runtime's bridge and
firewall. What this machine lacks is told with its reason, and shown by bubblewrap alone.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from borough.adapters import procfs, system_calls
from borough.adapters.process import Child, Finished, run, start_server
from borough.cli.errors import Failed
from borough.core.errors import BoroughError
from borough.core.ids import new_id

VM_IMAGE: Final = "local-vm"
CONTAINER_IMAGE: Final = "tiny"
_MADE_WITHIN_S: Final = 300.0
_ANSWERS_WITHIN_S: Final = 40.0
_ENDS_WITHIN_S: Final = 40.0
_VM_TOOLS: Final = ("qemu-system-x86_64", "qemu-img", "apt-get", "cpio", "mke2fs")
_CONTAINER_TOOLS: Final = ("dockerd", "docker", "ip")


@dataclass(slots=True)
class DemoEngines:
    """What the first host has besides bubblewrap."""

    folder: Path
    images: dict[str, str] = field(default_factory=dict)
    """Engine → image, of those that are here."""
    missing: dict[str, str] = field(default_factory=dict)
    """Engine → why it is not."""
    _runtime: Child | None = None

    @property
    def socket(self) -> Path:
        """Where the container runtime listens, if there is one."""
        return self.folder / "docker.sock"

    @property
    def environment(self) -> Mapping[str, str]:
        """What a host daemon has to know."""
        return {"DOCKER_HOST": f"unix://{self.socket}"}

    def start(self, root_folder: Path, vm_images: Path) -> None:
        """Make images and start what must run; what cannot be had is noted in ``missing``.

        ``root_folder`` is what containers are made from: a folder, or an archive of one.
        """
        self._try("qemu", lambda: self._make_vm(vm_images))
        if os.geteuid() != 0:
            self.missing["docker"] = "a container runtime of the demonstration's own needs root"
            return
        self._try("docker", lambda: self._start_runtime(root_folder))

    def end(self) -> None:
        """End the container runtime."""
        if self._runtime is None:
            return
        self._runtime.terminate()
        self._runtime.wait(_ENDS_WITHIN_S)

    def left(self) -> list[str]:
        """Return what is left of virtual machines and containers."""
        return [
            f"process {ref.pid} ({words[0]})"
            for ref, words in procfs.command_lines()
            if any(str(self.folder) in word for word in words)
        ]

    def _try(self, engine: str, make: Callable[[], None]) -> None:
        try:
            make()
        except (BoroughError, OSError) as failure:
            self.missing[engine] = str(failure)

    def _make_vm(self, images: Path) -> None:
        _need(_VM_TOOLS, "qemu-system-x86 qemu-utils cpio e2fsprogs")
        argv = [sys.executable, "-m", "borough.cli.tt", "image", "create", VM_IMAGE, "--image-dir", str(images)]
        _done(run(argv, env=os.environ, timeout_s=_MADE_WITHIN_S))
        self.images["qemu"] = VM_IMAGE

    def _start_runtime(self, root_folder: Path) -> None:
        _need(_CONTAINER_TOOLS, "docker.io iproute2")
        system_calls.unshare(system_calls.CLONE_NEWNET)
        _done(run(["ip", "link", "set", "lo", "up"], env=os.environ))
        folder = self.folder / "docker"
        folder.mkdir()
        argv = [
            "dockerd", "-H", f"unix://{self.socket}", "--data-root", str(folder / "data"),
            "--exec-root", str(folder / "exec"), "--pidfile", str(folder / "pid"), "--bip", "10.231.79.1/24",
            "--containerd-namespace", f"borough-{new_id()}",  # not a folder's name, which may have what is no such name
        ]  # fmt: skip
        self._runtime = start_server(argv, env=os.environ, cwd=folder, log=folder / "log")
        deadline = time.monotonic() + _ANSWERS_WITHIN_S
        while run(self._docker("info"), env=os.environ).code:
            if self._runtime.poll() is not None or time.monotonic() > deadline:
                raise Failed("dockerd does not answer", reason=(folder / "log").read_text()[-500:])
            time.sleep(0.1)
        is_packed = root_folder.is_file()
        packed = str(root_folder) if is_packed else shutil.make_archive(str(folder / "root"), "tar", root_folder)
        _done(run(self._docker("import", "--change", 'CMD ["sh"]', packed, CONTAINER_IMAGE), env=os.environ))
        self.images["docker"] = CONTAINER_IMAGE

    def _docker(self, *words: str) -> list[str]:
        return ["docker", "-H", f"unix://{self.socket}", *words]


def _need(tools: tuple[str, ...], packages: str) -> None:
    lacking = [tool for tool in tools if shutil.which(tool) is None]
    if lacking:
        raise Failed(f"there is no {', '.join(lacking)} here", resolution=f"apt-get install {packages}")


def _done(finished: Finished) -> None:
    if finished.code:
        said = finished.stderr.decode(errors="replace").strip().splitlines()
        raise Failed(f"{Path(finished.argv[0]).name} failed: {said[-1] if said else finished.code}")

"""The fleet of a demonstration: a controller, host daemons, an image; and the proof that nothing of them is left."""

import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from borough.adapters import procfs
from borough.adapters.process import OWNER, Child, Marker, start_server
from borough.cli.demo_engines import DemoEngines
from borough.cli.demo_town import free_port
from borough.cli.errors import Failed
from borough.cli.output import say
from borough.client.discovery import ServerAddress
from borough.client.fleet import FleetClient
from borough.client.http import Client
from borough.core.errors import BoroughError

IMAGE: Final = "tiny"
SERVICE_PORT: Final = 8080
_LOOPBACK: Final = "127.0.0.1"
_STARTS_WITHIN_S: Final = 60.0
_ENDS_WITHIN_S: Final = 40.0
_FIRST_PORTS: Final = 30_000
_PORTS_EACH: Final = 200
_NOT_INHERITED: Final = ("TINYTOWN_", "TT_", "TOWNHALL_", "BOROUGH_")
_NO_RUNTIME: Final = {"DOCKER_HOST": "unix:///nonexistent"}
_GROUPS: Final = Path("/sys/fs/cgroup")
_STAGING: Final = Path("/run/borough-machines")


@dataclass(slots=True, kw_only=True)
class Served:
    """A program of the demonstration."""

    name: str
    argv: list[str]
    port: int
    log: Path
    child: Child | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"{_LOOPBACK}:{self.port}"


@dataclass(slots=True, kw_only=True)
class Before:
    """What the machine had before anything was made."""

    links: set[str] = field(default_factory=lambda: _links())  # noqa: PLW0108 - defined below
    groups: set[Path] = field(default_factory=lambda: _groups())  # noqa: PLW0108 - defined below
    staging: bool = field(default_factory=_STAGING.exists)


class DemoFleet:
    """A controller and some hosts for the time of a ``with`` block."""

    def __init__(self, *, hosts: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="borough-demo-fleet-"))
        self.names = [f"{self.folder.name[-8:]}-{number}".replace("_", "x") for number in range(1, hosts + 1)]
        self._key = secrets.token_urlsafe(24)
        self._before = Before()
        self._markers: dict[str, str] = {}
        """What everything of a host carries: by its name."""
        self._programs: dict[str, Served] = {}
        self.ports: set[int] = set()
        """Every port of the machine that was lent to a guest."""
        self.engines = DemoEngines(self.folder)

    def __enter__(self) -> Self:
        try:
            self._image()
            self.engines.start(self.folder / "image", self.folder / self.names[0] / "images")
            self.start("controller", "borough.cli.tt_ctl", "--data-dir", str(self.folder / "ctl"))
            for name in self.names:
                self.start_host(name)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def client(self, name: str = "controller") -> FleetClient:
        """Return a client of the controller, or of a host."""
        address = ServerAddress(url=f"http://{self._programs[name].address}", token=self._key)
        return FleetClient(Client(address, timeout_s=120.0))

    def address(self, name: str) -> str:
        """Return where a program listens."""
        return self._programs[name].address

    def start_host(self, name: str) -> None:
        """Start a host's daemon, or start it again at its place."""
        folder, number = self.folder / name, self.names.index(name)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        image = folder / "images" / IMAGE
        if not image.exists():
            shutil.copytree(self.folder / "image", image, symlinks=True)
        first = _FIRST_PORTS + number * _PORTS_EACH
        self.start(
            name, "borough.cli.tt_agent", "--host-id", name, "--image-dir", str(folder / "images"),
            "--runtime-dir", str(folder / "runtime"), "--data-dir", str(folder / "data"), "--user-network",
            "--cpu-total", "8", "--mem-total", "4096", "--disk-total", "20000",
            "--port-start", str(first), "--port-end", str(first + _PORTS_EACH - 1),
        )  # fmt: skip
        self._markers[name] = (folder / "data" / "marker").read_text().strip()

    def start(self, name: str, module: str, *arguments: str) -> None:
        """Start a program and return when it answers."""
        known = self._programs.get(name)
        port = known.port if known else free_port()
        argv = [sys.executable, "-m", module, "--listen", f"{_LOOPBACK}:{port}", *arguments]
        served = Served(name=name, argv=argv, port=port, log=self.folder / f"{name}.log")
        environ = {key: value for key, value in os.environ.items() if not key.startswith(_NOT_INHERITED)}
        # Only the first host has the container runtime of this demonstration, and none has the machine's own.
        environ |= self.engines.environment if name == self.names[0] else _NO_RUNTIME
        environ["TT_API_KEY"] = self._key
        served.child = start_server(argv, env=environ, cwd=self.folder, log=served.log)
        self._programs[name] = served
        wait_for(lambda: self._answers(served), what=f"{name} to answer", within_s=_STARTS_WITHIN_S)

    def _answers(self, served: Served) -> bool:
        if served.child is not None and served.child.poll() is not None:
            raise Failed(f"{served.name} has ended", reason=served.log.read_text()[-2000:])
        try:
            # The port is taken long before anybody answers there.
            with urllib.request.urlopen(f"http://{served.address}/health", timeout=5):
                return True
        except OSError:
            return False

    def kill(self, name: str) -> int:
        """Kill a daemon at once, and return the pid that it had."""
        child = self._programs[name].child
        if child is None:
            raise Failed(f"{name} does not run")
        child.kill()
        child.wait()
        return child.pid

    def guests(self, name: str) -> list[procfs.ProcessRef]:
        """Return every process that carries the mark of a host's machines."""
        return procfs.owned(Marker(OWNER, f"machine:{self._markers[name]}:")) if name in self._markers else []

    def switch_off(self, name: str) -> None:
        """Kill a daemon and every machine of its host, as when the power fails."""
        self.kill(name)
        procfs.tell(self.guests(name), signal.SIGKILL)
        procfs.wait_gone(self.guests(name), within_s=10.0)

    def end(self) -> None:
        """End everything: machines first, by their hosts, then the daemons, then the folder."""
        for name in self.names:
            served = self._programs.get(name)
            if served is not None:
                self._empty(name, served)
        for served in self._programs.values():
            _stop(served)
        for name in self.names:
            procfs.tell(self.guests(name), signal.SIGKILL)
        self.engines.end()
        shutil.rmtree(self.folder, ignore_errors=False)
        if not self._before.staging and _STAGING.exists():
            _STAGING.rmdir()

    def _empty(self, name: str, served: Served) -> None:
        """Let a host end what it still has; its daemon is started for that, if it must be."""
        try:
            if served.child is None or served.child.poll() is not None:
                self.start_host(name)
            with self.client(name) as host:
                for vm in host.get("/api/vms"):
                    host.ask("DELETE", f"/api/vms/{vm['id']}")
        except BoroughError as problem:
            say(f"warning: {name} could not end its machines: {problem.message}")

    def left(self) -> list[str]:
        """Return what is left on this machine of all that was made."""
        found = [f"process {ref.pid} of {name}" for name in self.names for ref in self.guests(name)]
        found += [
            f"process {served.child.pid} ({served.name})"
            for served in self._programs.values()
            if served.child is not None and served.child.poll() is None
        ]
        found += self.engines.left()
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        found += [f"mount {line.split()[4]}" for line in mounts if str(self.folder) in line]
        found += [f"link {name}" for name in sorted(_links() - self._before.links)]
        found += [
            f"control group {path}"
            for path in sorted(_groups() - self._before.groups)
            if any(f"vm-{marker[:8]}-" in path.name for marker in self._markers.values())
        ]
        programs = {served.port for served in self._programs.values()}
        found += [f"port {port}" for port in sorted(self.ports | programs) if is_open(port)]
        found += [f"folder {path}" for path in (self.folder,) if path.exists()]
        return found

    def _image(self) -> None:
        """Make a root folder of busybox and nothing else."""
        busybox = shutil.which("busybox")
        if busybox is None:
            raise Failed(
                "there is no busybox here",
                reason="the demonstration's machines start from a root folder that is made of it",
                resolution="install it, on Debian with: apt-get install busybox-static",
            )
        root = self.folder / "image"
        for name in ("bin", "etc", "root", "srv", "tmp"):
            (root / name).mkdir(parents=True)
        shutil.copy(busybox, root / "bin" / "busybox")
        for name in ("sh", "cat", "ls", "hostname", "httpd", "sleep", "uname", "mkdir"):
            (root / "bin" / name).symlink_to("busybox")
        (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")


def wait_for(holds: Callable[[], bool], *, what: str, within_s: float) -> None:
    """Return as soon as ``holds`` does; raises ``Failed`` after ``within_s``."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            raise Failed(
                f"waited {within_s:g} s for {what}", resolution="see what keeps this machine busy, and run it again"
            )
        time.sleep(0.1)


def is_open(port: int) -> bool:
    """Tell whether something listens at a port of this machine."""
    try:
        socket.create_connection((_LOOPBACK, port), timeout=2.0).close()
    except OSError:
        return False
    return True


def _stop(served: Served) -> None:
    child = served.child
    if child is None or child.poll() is not None:
        return
    child.terminate()
    deadline = time.monotonic() + _ENDS_WITHIN_S
    while child.poll() is None:
        if time.monotonic() > deadline:
            say(f"warning: {served.name} did not end by itself")
            child.kill()
            child.wait()
        time.sleep(0.05)


def _links() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def _groups() -> set[Path]:
    return set(_GROUPS.glob("**/*vm-*")) if _GROUPS.is_dir() else set()

"""The ``borough up`` of a demonstration: a fresh folder, a free port; runs in it, a machine killed; and its end."""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from borough.adapters import procfs
from borough.adapters.process import OWNER, Marker, run
from borough.cli.demo_engines import DemoEngines
from borough.cli.demo_town import free_port
from borough.cli.errors import Failed
from borough.cli.launch import start_detached
from borough.cli.output import say, warn
from borough.cli.tt_server import end_server
from borough.client.autostart import ensure_server
from borough.client.discovery import STATE_FOLDER, ServerAddress, address_of
from borough.client.http import Client
from borough.config.town_file import create_town
from borough.core.errors import BoroughError

LIVE: Final = frozenset({"admitted", "preparing", "working", "waiting", "collecting"})
_NOT_INHERITED: Final = ("REDIS_URL", "TINYTOWN_", "TT_", "TOWNHALL_", "BOROUGH_", "SCARAB_")
_MARKER: Final = Path("fleet", "host", "marker")
_GONE_WITHIN_S: Final = 20.0
_VERIFIED_WITHIN_S: Final = 60.0
_IMAGE_WITHIN_S: Final = 60.0


class ShownEngines:
    """What is shown beside bubblewrap: containers and virtual machines, where this machine can make them."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="bd"))  # sockets lie in it, whose paths are short
        self._images = self._folder / "images"
        self._engines = DemoEngines(self._folder)

    def __enter__(self) -> Self:
        argv = [sys.executable, "-m", "borough.cli.tt", "image", "create", "local-root"]
        try:
            made = run([*argv, "--image-dir", str(self._images)], env=os.environ, timeout_s=_IMAGE_WITHIN_S)
            if made.code:
                self._engines.missing |= dict.fromkeys(("docker", "qemu"), made.words)
            else:
                self._engines.start(self._images / "local-root", self._images)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    @property
    def images(self) -> Mapping[str, str]:
        """Engine → image, of those that are here."""
        return self._engines.images

    @property
    def missing(self) -> Mapping[str, str]:
        """Engine → why it is not shown."""
        return self._engines.missing

    @property
    def words(self) -> list[str]:
        """What a borough is started with: the network is a namespace of the demonstration's own where it is changed."""
        own = ["--change-network"] if "docker" in self.images else []
        return ["--image-dir", str(self._images), *own]

    @property
    def environment(self) -> Mapping[str, str]:
        """What a borough has to know."""
        return self._engines.environment if "docker" in self.images else {}

    def left(self) -> list[str]:
        """Return what is left of them."""
        return self._engines.left()

    def _remove(self) -> None:
        self._engines.end()
        shutil.rmtree(self._folder, ignore_errors=True)


class DemoBorough:
    """A borough for the time of a ``with`` block."""

    def __init__(self, folder: Path, *, source: Path, engines: ShownEngines | None = None) -> None:
        self.folder = folder
        self._engines = engines
        self.ready_s = 0.0
        self.address = ServerAddress(url="")
        self._source = source
        self._marker: str | None = None

    def __enter__(self) -> Self:
        create_town(self.folder, name=self.folder.name)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        argv = [
            *(sys.executable, "-m", "borough.cli.borough", "--town", str(self.folder)),
            *("up", "--bind", "127.0.0.1", "--port", str(free_port())),
            *([] if self._engines is None else self._engines.words),
        ]
        environment |= {} if self._engines is None else self._engines.environment
        began = time.monotonic()
        try:
            record = ensure_server(self.folder, argv=argv, env=environment, start=start_detached, say=say)
        except BaseException:
            end_server(self.folder)
            raise
        self.ready_s = time.monotonic() - began
        self.address = address_of(record.address, self.folder, environment)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave anything behind
        try:
            self._empty()
        finally:
            end_server(self.folder)
            procfs.tell(self.guests(), signal.SIGKILL)
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def order(self, task: str, **more: object) -> dict[str, Any]:
        """Return the body of a run of the example agent on the source tree."""
        return {
            "task": task,
            "manifest": files("borough.examples").joinpath("surveyor.yaml").read_text(encoding="utf-8"),
            "command": [sys.executable, "-m", "borough.examples.surveyor"],
            "image": "host",
            "source": {"kind": "folder", "path": str(self._source)},
            "timeout_s": 300,
            **more,
        }

    def guests(self, vm_id: str | None = None) -> list[procfs.ProcessRef]:
        """Return every process of a machine, or of all of them."""
        marker = self._host_marker()
        if marker is None:
            return []
        return procfs.owned(Marker(OWNER, f"machine:{marker}:{vm_id or ''}"))

    def kill_machine(self, vm_id: str) -> int:
        """End all processes of a machine at once, as when it crashes; return how many there were."""
        found = self.guests(vm_id)
        procfs.tell(found, signal.SIGKILL)
        procfs.wait_gone(found, within_s=_GONE_WITHIN_S)
        return len(found)

    def verify(self, evidence: Path) -> str:
        """Verify exported evidence as anybody would elsewhere: with the file alone; return what was said.

        Raises:
            Failed: it does not verify.
        """
        argv = [sys.executable, "-m", "borough.cli.borough", "verify", str(evidence)]
        environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": "/nonexistent"}
        # Another folder, no server, no credential: nothing but the file can be asked.
        done = run(argv, cwd=Path("/"), env=environment, timeout_s=_VERIFIED_WITHIN_S)
        if done.code:
            raise Failed("the evidence does not verify", reason=done.words)
        return done.stdout.decode(errors="replace")

    def left(self) -> list[str]:
        """Return what is left on this machine of all that was made, but for the folder with its records."""
        found = [f"process {ref.pid} of a machine" for ref in self.guests()]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return found + [f"mount {line.split()[4]}" for line in mounts if str(self.folder) in line]

    def _empty(self) -> None:
        """Let nothing of what was begun go on."""
        try:
            with Client(self.address, timeout_s=30.0) as server:
                for one in server.get("/v1/runs", {"limit": 100})["runs"]:
                    if one["state"] in LIVE:
                        server.post(f"/v1/runs/{one['id']}/cancel", {"reason": "the demonstration ends"})
                deadline = time.monotonic() + _GONE_WITHIN_S
                while server.get("/api/envs")["data"]:
                    if time.monotonic() > deadline:
                        warn("some machines were not gone in time")
                        return
                    time.sleep(0.1)
        except BoroughError as problem:
            warn(f"not everything could be ended in order: {problem.message}")

    def _host_marker(self) -> str | None:
        if self._marker is None:
            try:
                self._marker = (self.folder / STATE_FOLDER / _MARKER).read_text().strip()
            except FileNotFoundError:
                return None
        return self._marker

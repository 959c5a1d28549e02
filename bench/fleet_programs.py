"""A controller and a host daemon to measure, each a process in a folder of its own."""

import json
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.harness import BIN, address, free_port
from bench.http_load import Connection
from borough.client.discovery import ServerAddress
from borough.client.fleet import FleetClient
from borough.client.http import Client

READY_WITHIN_S = 30.0
KEY = secrets.token_urlsafe(24)


@dataclass(slots=True)
class Program:
    """A program that serves."""

    argv: list[str]
    folder: Path
    process: "subprocess.Popen[bytes]"
    environment: Mapping[str, str] = field(default_factory=dict)
    host: str = ""
    port: int = 0

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    async def connect(self) -> Connection:
        return await Connection.open(self.host, self.port, token=KEY)

    def client(self) -> FleetClient:
        return FleetClient(Client(ServerAddress(url=f"http://{self.address}", token=KEY), timeout_s=120))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Start it again after it was killed, and return when it answers."""
        (self.folder / "data" / "server.json").unlink(missing_ok=True)
        self.process = _started(self.argv, self.folder, self.environment)
        self.wait()

    def wait(self) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        record = self.folder / "data" / "server.json"
        while not record.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.argv[0]} is not ready:\n{(self.folder / 'log').read_text()[-4000:]}")
            time.sleep(0.01)
        self.host, self.port = address(json.loads(record.read_text()))


def _started(argv: list[str], folder: Path, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    with (folder / "log").open("ab") as log:
        environ = {**os.environ, **environment, "TT_API_KEY": KEY}
        return subprocess.Popen(argv, env=environ, cwd=folder, stdout=log, stderr=log)


@contextmanager
def _program(name: str, folder: Path, environment: Mapping[str, str], *arguments: str) -> Iterator[Program]:
    folder.mkdir(parents=True, exist_ok=True)
    argv = [str(BIN / name), "--listen", f"127.0.0.1:{free_port()}", "--data-dir", str(folder / "data"), *arguments]
    program = Program(argv=argv, folder=folder, process=_started(argv, folder, environment), environment=environment)
    try:
        program.wait()
        yield program
    finally:
        if program.process.poll() is None:
            program.process.send_signal(signal.SIGTERM)
        try:
            program.process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            program.kill()


@contextmanager
def controller(folder: Path) -> Iterator[Program]:
    """Start a controller over ``folder / "data"``, which may be filled already."""
    with _program("tt-ctl", folder, {}) as program:
        yield program


@contextmanager
def host(folder: Path, *, environment: Mapping[str, str]) -> Iterator[Program]:
    """Start a host daemon that leaves the machine's network alone."""
    with _program(
        "tt-agent", folder, environment, "--host-id", "bench", "--image-dir", str(folder / "images"),
        "--runtime-dir", str(folder / "runtime"), "--user-network", "--cpu-total", "100",
        "--mem-total", "100000", "--disk-total", "1000000",
    ) as program:  # fmt: skip
        try:
            yield program
        finally:
            with program.client() as daemon:
                for vm in daemon.get("/api/vms"):
                    daemon.ask("DELETE", f"/api/vms/{vm['id']}")


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield Path(folder).resolve()

"""``tt-ctl`` and ``tt-agent`` as processes, with a root folder as image; at the end nothing of them is left."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need

KEY = "a-key-of-the-fleet"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this tree into a folder."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    need(uv, "uv", "make setup")
    argv = [uv or "", "build", "--wheel", "--offline", "--no-build-isolation", "--python", sys.executable]
    subprocess.run([*argv, "--out-dir", str(folder), str(Path(__file__).parents[2])], check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    return wheel


def root_folder(path: Path) -> None:
    """Make a root folder of busybox and nothing else."""
    busybox = shutil.which("busybox")
    need(busybox, "busybox", "apt-get install busybox-static")
    for name in ("bin", "etc", "root", "tmp", "srv"):
        (path / name).mkdir(parents=True)
    (path / "tmp").chmod(0o1777)
    shutil.copy(busybox or "", path / "bin" / "busybox")
    listed = subprocess.run(["busybox", "--list"], check=True, capture_output=True, text=True).stdout
    for name in listed.split():
        if name != "busybox":
            (path / "bin" / name).symlink_to("busybox")
    (path / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")


@dataclass
class Program:
    """A program that serves; it may be killed, and started again."""

    address: str
    argv: list[str]
    environ: dict[str, str]
    log: Path
    process: "subprocess.Popen[bytes]" = field(init=False)

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(self.argv, stdout=out, stderr=out, env=self.environ)
        _serves(self)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def program(
    module: str, port: int, folder: Path, *arguments: str, environ: Mapping[str, str] | None = None
) -> Iterator[Program]:
    """Run a program until the block ends, then ask it to end."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Program(
        address=f"127.0.0.1:{port}",
        argv=[sys.executable, "-m", module, "--listen", f"127.0.0.1:{port}", *arguments],
        environ={**os.environ, "TT_API_KEY": KEY, **(environ or {})},
        log=folder / "log",
    )
    try:
        made.start()
        yield made
    finally:
        if made.process.poll() is None:
            made.process.send_signal(signal.SIGTERM)
        made.process.wait(timeout=30)


def _serves(made: Program, *, within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        assert made.process.poll() is None, made.log.read_text()
        try:
            urllib.request.urlopen(f"http://{made.address}/health", timeout=5).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    pytest.fail(f"it does not serve: {made.log.read_text()}")


@contextmanager
def host_program(port: int, folder: Path, host_id: str, *arguments: str) -> Iterator[Program]:
    """Run a host daemon that leaves the network of the machine alone; at the end its machines are ended by it."""
    with program(
        "borough.cli.tt_agent", port, folder,
        "--image-dir", str(folder / "images"), "--runtime-dir", str(folder / "runtime"),
        "--data-dir", str(folder / "data"), "--host-id", host_id, "--user-network",
        "--cpu-total", "8", "--mem-total", "8192", "--disk-total", "200000", *arguments,
    ) as made:  # fmt: skip
        try:
            yield made
        finally:
            host = Api(made.address)
            for vm in host.data("GET", "/api/vms"):
                host.ask("DELETE", f"/api/vms/{vm['id']}")


@dataclass
class Api:
    """One of the two APIs, asked as ``curl`` would."""

    address: str
    key: str | None = KEY

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = (body if isinstance(body, str) else json.dumps(body)).encode()
        request = urllib.request.Request(f"http://{self.address}{path}", content, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, _read(answer.read())
        except urllib.error.HTTPError as refused:
            return refused.code, _read(refused.read())

    def data(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        found, answer = self.ask(method, path, body)
        assert found == status, answer
        assert answer["ok"] is True
        return answer.get("data")


def _read(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode()

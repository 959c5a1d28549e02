"""A gateway to measure: a daemon in a folder of its own on one core, the load on the other; and its live events."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.harness import BIN, LOAD_CORE, SERVER_CORE, address, pin
from bench.http_load import Connection

READY_WITHIN_S = 30.0


@dataclass(frozen=True, kw_only=True)
class BenchGateway:
    """A running daemon."""

    host: str
    port: int
    operator: str
    pid: int

    async def connect(self, *, token: str | None = None) -> Connection:
        return await Connection.open(self.host, self.port, token=token or self.operator)

    async def agent(self, name: str, *capabilities: str, **spec: object) -> str:
        """Start an agent without a process; return its id."""
        document = {
            "apiVersion": "scarab/v1",
            "kind": "AgentManifest",
            "metadata": {"name": name, "version": "1.0.0"},
            "spec": {"trust_level": "trusted", "capabilities": list(capabilities), **spec},
        }
        desk = await self.connect()
        made = (await desk.post("/agents", {"manifest_yaml": json.dumps(document)})).expect(201).json()
        desk.close()
        return str(made["id"])

    async def key(self, agent_id: str, name: str) -> str:
        desk = await self.connect()
        made = (await desk.post("/tokens", {"name": name, "agent_id": agent_id, "role": "agent"})).expect(201).json()
        desk.close()
        return str(made["token"])


@contextmanager
def gateway() -> Iterator[BenchGateway]:
    """Start a daemon and end it."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        root = Path(folder).resolve()
        environ = {
            **os.environ,
            "AGENTD_API_ADDR": "127.0.0.1:0",
            "AGENTD_DATA_DIR": str(root / "data"),
            "AGENTD_API_TOKEN_DB": str(root / "tokens.db"),
            "SCARAB_SOCKET": str(root / "agentd.sock"),
        }
        with (root / "log").open("wb") as log:
            daemon = subprocess.Popen([BIN / "agentd"], env=environ, cwd=root, stdout=log, stderr=log)
        try:
            record = _ready(root / "data" / "server.json", daemon, root / "log")
            host, port = address(record)
            pin(daemon.pid, SERVER_CORE)
            pin(os.getpid(), LOAD_CORE)
            operator = (root / "data" / "operator.token").read_text().strip()
            yield BenchGateway(host=host, port=port, operator=operator, pid=daemon.pid)
        finally:
            os.sched_setaffinity(0, range(os.cpu_count() or 1))
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(timeout=40)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _ready(record: Path, daemon: "subprocess.Popen[bytes]", log: Path) -> dict[str, object]:
    deadline = time.monotonic() + READY_WITHIN_S
    while not record.exists():
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the daemon is not ready:\n{log.read_text()[-4000:]}")
        time.sleep(0.02)
    told: dict[str, object] = json.loads(record.read_text())
    return told

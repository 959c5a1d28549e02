"""A town to measure: started in a folder of its own, the server on one core, the store and the load on the other."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.http_load import Connection

BIN = Path(__file__).parent.parent / ".venv" / "bin"
SERVER_CORE, LOAD_CORE = 0, 1
READY_WITHIN_S = 20.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class BenchTown:
    """A running town."""

    root: Path
    host: str
    port: int
    server_pid: int
    store_pid: int | None

    @property
    def store_socket(self) -> Path:
        return self.root / ".tt" / "redis.sock"

    async def connect(self, *, token: str | None = None) -> Connection:
        return await Connection.open(self.host, self.port, token=token)

    async def connections(self, count: int) -> list[Connection]:
        return [await self.connect() for _ in range(count)]


@contextmanager
def town(*, max_agents: int = 1000, lease_ms: int = 60_000) -> Iterator[BenchTown]:
    """Start a town and end it with everything that belongs to it."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        root = Path(folder).resolve()
        subprocess.run([BIN / "tt", "init", "--name", "bench"], cwd=root, check=True, stdout=subprocess.DEVNULL)
        configure(root / "tinytown.toml", max_agents=max_agents, lease_ms=lease_ms)
        with (root / "server.log").open("wb") as log:
            server = subprocess.Popen(
                [BIN / "townhall", "rest", "--bind", "127.0.0.1", "--port", free_port()],
                cwd=root,
                stderr=log,
                stdout=log,
            )
        try:
            record = wait_until_ready(root, server)
            host, port = address(record)
            store_pid = find_store(root)
            pin(server.pid, SERVER_CORE)
            pin(os.getpid(), LOAD_CORE)
            if store_pid is not None:
                pin(store_pid, LOAD_CORE)
            yield BenchTown(root=root, host=host, port=port, server_pid=server.pid, store_pid=store_pid)
        finally:
            os.sched_setaffinity(0, range(os.cpu_count() or 1))
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(timeout=40)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def configure(file: Path, *, max_agents: int, lease_ms: int) -> None:
    """Set what the measurements need in a fresh ``tinytown.toml``."""
    text = re.sub(r"^max_agents\s*=.*\n", "", file.read_text(), flags=re.MULTILINE)
    text = f"max_agents = {max_agents}\n{text}"
    text = re.sub(r"^lease_ms\s*=.*\n", "", text, flags=re.MULTILINE)
    setting = f"[agent]\nlease_ms = {lease_ms}\n"
    text = text.replace("[agent]\n", setting) if "[agent]\n" in text else f"{text}\n{setting}"
    file.write_text(text)


def wait_until_ready(root: Path, server: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Return what the server wrote about itself, once it answers."""
    deadline = time.monotonic() + READY_WITHIN_S
    record = root / ".tt" / "server.json"
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended at once:\n{(root / 'server.log').read_text()[-4000:]}")
        if record.exists():
            told: dict[str, Any] = json.loads(record.read_text())
            if told.get("pid") == server.pid and is_ready(told):
                return told
        time.sleep(0.02)
    raise RuntimeError(
        f"the server was not ready after {READY_WITHIN_S} s:\n{(root / 'server.log').read_text()[-4000:]}"
    )


def address(record: dict[str, Any]) -> tuple[str, int]:
    found = re.search(r"([\d.]+):(\d+)/?$", str(record["address"]))
    if found is None:
        raise RuntimeError(f"the server's record has no address: {record}")
    return found[1], int(found[2])


def is_ready(record: dict[str, Any]) -> bool:
    connection = http.client.HTTPConnection(*address(record), timeout=5)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def pin(pid: int, core: int) -> None:
    """Keep every thread of a process on one core; on a machine with one core, do nothing."""
    if core not in os.sched_getaffinity(0) and core >= (os.cpu_count() or 1):
        return
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def find_store(root: Path) -> int | None:
    """Return the store that runs in the town's folder, or names it on its command line."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            name = (entry / "comm").read_text()
            command = (entry / "cmdline").read_text(errors="replace")
            folder = str((entry / "cwd").readlink())
        except OSError:  # it ended while we looked, or is not ours
            continue
        if ("valkey" in name or "redis" in name) and (str(root) in command or folder.startswith(str(root))):
            return int(entry.name)
    return None


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used (fields 14 and 15 of ``/proc/PID/stat``, proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def memory_mib(pid: int) -> float:
    """Return the proportional share of memory of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this kernel does not tell the proportional share")


@dataclass(frozen=True, kw_only=True)
class Worker:
    """An agent whose worker is this very process."""

    agent_id: str
    token: str
    connection: Connection

    async def claim(self, *, wait_s: int = 0) -> dict[str, Any] | None:
        """Take the next task, waiting for one if told so."""
        answer = await self.connection.post(f"/v1/agents/{self.agent_id}/claim?wait={wait_s}", None)
        if answer.status == 204:
            return None
        answer.expect(200)
        lease: dict[str, Any] = answer.json()
        return lease

    async def complete(self, lease: dict[str, Any]) -> None:
        task = lease["task"]
        path = f"/v1/tasks/{task['task_id']}/complete"
        (await self.connection.post(path, {"result": "done"}, token=lease["attempt_token"])).expect(200)


@asynccontextmanager
async def workers(bench: BenchTown, count: int) -> AsyncIterator[list[Worker]]:
    """Register ``count`` agents and report for duty as each."""
    started: list[Worker] = []
    desk = await bench.connect()
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    for number in range(count):
        registered = (await desk.post("/v1/workers", {"name": f"worker-{number}"})).expect(201).json()
        connection = await bench.connect(token=registered["token"])
        worker = Worker(agent_id=registered["agent_id"], token=registered["token"], connection=connection)
        body = {"host": "bench", "pid": os.getpid(), "started_ticks": ticks}
        (await connection.post(f"/v1/agents/{worker.agent_id}/start", body)).expect(200)
        started.append(worker)
    try:
        yield started
    finally:
        for worker in started:
            worker.connection.close()
        desk.close()

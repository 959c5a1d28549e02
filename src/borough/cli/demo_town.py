"""The town of a demonstration: a fresh folder, a server on a free port, the example agent CLI; and its end."""

import json
import os
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from borough.cli.errors import Failed
from borough.cli.launch import start_detached
from borough.cli.output import say, warn
from borough.cli.tt_server import end_server
from borough.client.autostart import ensure_server
from borough.client.discovery import ServerAddress, address_of
from borough.client.http import Client
from borough.config.town_file import change_town_setting, create_town
from borough.core.errors import BoroughError

REPORTS: Final = "reports"
_LOOPBACK: Final = "127.0.0.1"
_PACE_S: Final = 1.0
"""How long the example agent takes at least, so that there is something to watch and to kill."""
_SETTINGS: Final = {"agent.lease_ms": "3000", "agent.reclaim_after_secs": "1", "tasks.retry_base_ms": "200"}
_NOT_INHERITED: Final = ("REDIS_URL", "TINYTOWN_", "TT_", "TOWNHALL_", "BOROUGH_")
"""The demonstration must not touch another town, whatever the environment names."""
_GONE_WITHIN_S: Final = 15.0
_PATH: Final = re.compile(r"`([^`\s]+)`")
_DEPTHS: Final = ("*.py", "*/*.py", "*/*/*.py", "*/*/*/*.py")


@dataclass(slots=True, kw_only=True)
class Killed:
    """The worker that was killed and what it worked on."""

    agent: str
    agent_id: str
    pid: int
    task_id: str
    at: float
    task: dict[str, Any] = field(default_factory=dict)
    """The task as it stood in the end, with its history."""


class DemoTown:
    """A town for the time of a ``with`` block."""

    def __init__(self, folder: Path, *, source: Path) -> None:
        self.folder = folder
        self._source = source
        self.address = ServerAddress(url="")

    def __enter__(self) -> Self:
        create_town(self.folder, name=self.folder.name, default_cli="reader")
        reports = self.folder / REPORTS
        reports.mkdir()
        argv = [sys.executable, "-m", "borough.examples.reader", "--out", str(reports), "--pace", str(_PACE_S)]
        change_town_setting(self.folder, "agent_clis.reader.command", json.dumps(argv, ensure_ascii=False))
        change_town_setting(self.folder, "agent_clis.reader.workdir", str(self._source))
        for key, value in _SETTINGS.items():
            change_town_setting(self.folder, key, value)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        try:
            record = ensure_server(
                self.folder,
                argv=[
                    *(sys.executable, "-m", "borough.cli.townhall", "--town", str(self.folder)),
                    *("rest", "--bind", _LOOPBACK, "--port", str(free_port())),
                ],
                env=environment,
                start=start_detached,
                say=say,
            )
        except BaseException:
            end_server(self.folder)
            raise
        self.address = address_of(record.address, self.folder, environment)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave anything behind
        try:
            self._end_agents()
        finally:
            end_server(self.folder)
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def texts(self) -> list[str]:
        """Return the tasks: questions about the source tree."""
        from borough.examples.demo_tasks import DEMO_TASKS

        return fitted(DEMO_TASKS, self._source)

    def _end_agents(self) -> None:
        try:
            with Client(self.address, timeout_s=10.0) as server:
                agents = server.get("/v1/status")["agents"]
                workers = {(one["pid"], one["id"]) for one in agents if one["pid"]}
                for one in agents:
                    if one["state"].lower() not in {"stopped", "error"}:
                        server.post(f"/v1/agents/{one['id']}/kill")
        except BoroughError as problem:
            warn(f"the agents could not be told to stop: {problem.message}")
            return
        deadline = time.monotonic() + _GONE_WITHIN_S
        while left := [pid for pid, agent_id in workers if serves(pid, agent_id)]:
            if time.monotonic() > deadline:
                warn(f"workers still run: {', '.join(map(str, left))}")
                return
            time.sleep(0.05)


def kill_worker(server: Client, agents: list[dict[str, Any]]) -> Killed | None:
    """Kill one worker that has a task in hand, after proof that the process is its own; ``None``: there is none."""
    for listed in agents:
        if listed["state"].lower() != "working":
            continue
        agent = server.get(f"/v1/agents/{listed['id']}")
        if not agent["current_task"] or not agent["pid"] or agent["host"] != socket.gethostname():
            continue
        if _kill_proven(agent["pid"], agent["id"]):
            return Killed(
                agent=agent["name"],
                agent_id=agent["id"],
                pid=agent["pid"],
                task_id=agent["current_task"],
                at=time.time(),
            )
    return None


def _kill_proven(pid: int, agent_id: str) -> bool:
    try:
        # The descriptor holds this very process: the pid cannot pass to another between the proof and the signal.
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not serves(pid, agent_id):
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def serves(pid: int, agent_id: str) -> bool:
    """Tell whether process ``pid`` is a worker of ``agent_id``: its arguments name it."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return agent_id.encode() in words


def fresh_folder(asked: Path | None) -> Path:
    """Return a new, empty folder: the one asked for, else ``./.borough/demo-N``, else a temporary one.

    Raises:
        Failed: the one asked for has something in it.
    """
    if asked is not None:
        asked.mkdir(parents=True, exist_ok=True)
        if any(asked.iterdir()):
            raise Failed(
                f"{asked} is not empty",
                reason="the demonstration makes a town of its own and touches no other",
                resolution="name a new folder, or leave --folder out",
            )
        return asked.absolute()
    parent = Path.cwd() / ".borough"
    try:
        parent.mkdir(exist_ok=True)
        return _numbered(parent)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="borough-demo-"))


def _numbered(parent: Path) -> Path:
    number = 1
    while True:
        try:
            (parent / f"demo-{number}").mkdir()
        except FileExistsError:
            number += 1
        else:
            return parent / f"demo-{number}"


def fitted(texts: Sequence[str], source: Path) -> list[str]:
    """Return ``texts`` with each path that ``source`` does not have replaced by one of its folders with sources."""
    folders = [
        str(folder.relative_to(source))
        for folder in sorted({path.parent for pattern in _DEPTHS for path in source.glob(pattern)})
        if not any(part.startswith(".") for part in folder.relative_to(source).parts)
    ] or ["."]

    def fit(text: str, number: int) -> str:
        return _PATH.sub(
            lambda found: found[0] if (source / found[1]).exists() else f"`{folders[number % len(folders)]}`", text
        )

    return [fit(text, number) for number, text in enumerate(texts)]


def sources() -> Path:
    """Return the tree that is read: the checkout that holds this package, else the installed package."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1]
    return checkout if (checkout / "pyproject.toml").is_file() and package.parent.name == "src" else package


def free_port() -> int:
    """Return a port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port

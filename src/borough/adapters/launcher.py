"""Workers as processes of this machine.

For each incarnation there is a folder ``agents/<agent id>/<incarnation>`` below the town's ``.tt``, written before
the process exists: it holds the worker's token, who its process is, and what the worker itself keeps while it runs.
The end of a worker is proven by the marker that it and all its descendants carry, never by a name.
"""

import asyncio
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from signal import SIGSTOP, SIGTERM

from borough.adapters import beneath, process, procfs
from borough.adapters.process import OWNER, Child, Marker, ProcessRef
from borough.core.errors import Unavailable
from borough.core.ids import AgentId, canonical_id
from borough.town.agents import WorkerProcess
from borough.town.ports.workers import LaunchOrder

WorkerEnded = Callable[[AgentId, WorkerProcess, int], None]
"""Called in the event loop: which agent's worker ended, who it was, and its exit status (negative: the signal)."""

_AGENTS, _LOGS = "agents", "logs"
_TOKEN, _PROCESS = "token", "process.json"
_REST_GRACE_S = 1.0


class LocalLauncher:
    """The port ``Launcher`` on this machine. Use it from one event loop; ``close`` it before the loop ends."""

    def __init__(
        self,
        *,
        town_root: Path,
        state_root: Path | None = None,
        on_end: WorkerEnded | None = None,
        worker_argv: tuple[str, ...] = (sys.executable, "-P", "-m", "borough.worker"),
        env: Mapping[str, str] | None = None,
        host: str | None = None,
        server_certificate: Path | None = None,
    ) -> None:
        """``server_certificate`` is what the server shows in TLS; the workers trust it and no other."""
        self._town = town_root
        self._state = state_root or town_root / ".tt"
        self._on_end = on_end
        # -P: the town's folder is where the worker runs, but what lies there is no part of the program.
        self._argv = worker_argv
        self._env = process.without_secrets(os.environ if env is None else env)
        self._host = host or socket.gethostname()
        self._trusted = () if server_certificate is None else ("--server-cert-file", str(server_certificate))
        self._children: dict[int, tuple[AgentId, WorkerProcess, Child]] = {}
        """By pidfd, which becomes readable when the child ends."""

    async def launch(self, order: LaunchOrder) -> WorkerProcess:
        """Start the worker of one incarnation.

        Raises:
            Unavailable: it could not be started (``launch_failed``).
        """
        try:
            child = await asyncio.to_thread(self._start, order)
        except (OSError, Unavailable) as failure:
            self._remove(order.agent_id, order.incarnation)
            raise Unavailable(
                f"the worker of {order.name} cannot be started: {failure}",
                code="launch_failed",
                resolution=f"check that {self._state} can be written and has free space",
            ) from failure
        worker = WorkerProcess(host=self._host, pid=child.pid, started_ticks=child.ref.started_ticks)
        self._watch(order.agent_id, worker, child)
        return worker

    async def end(self, agent_id: AgentId, process: WorkerProcess | None, *, grace: timedelta) -> None:
        """End a worker and everything that descends from it.

        With ``process``: that incarnation and all before it; without: every incarnation launched so far. The worker
        gets TERM and ``grace`` to give its work back. A process of another machine, or one that we did not launch,
        is not touched.
        """
        if process is not None and process.host != self._host:
            return
        await asyncio.to_thread(self._end, canonical_id(agent_id), process, grace.total_seconds())
        self._collect()

    async def freeze(self, agent_id: AgentId, process: WorkerProcess | None) -> bool:
        """Stop a worker and everything that descends from it, and what that forks meanwhile."""
        if process is not None and process.host != self._host:
            return False
        return await asyncio.to_thread(self._freeze, canonical_id(agent_id))

    def close(self) -> None:
        """Stop watching. The workers run on: they outlive a restart of the server."""
        for handle in list(self._children):
            self._forget(handle)

    def _start(self, order: LaunchOrder) -> Child:
        folder = [_AGENTS, canonical_id(order.agent_id), str(order.incarnation)]
        directory = beneath.open_directory(self._state, folder, create=True)
        try:
            beneath.write_private(directory, _TOKEN, order.token.encode())
            log = self._open_log(order.name)
            try:
                child = process.start_server(
                    self._worker_argv(order, folder), env=self._worker_env(order), cwd=self._town, log=log
                )
            finally:
                os.close(log)
            known = {"pid": child.ref.pid, "started_ticks": child.ref.started_ticks}
            beneath.write_private(directory, _PROCESS, json.dumps(known).encode())
        finally:
            os.close(directory)
        return child

    def _worker_argv(self, order: LaunchOrder, folder: list[str]) -> list[str]:
        own = self._state.joinpath(*folder)
        return [
            *self._argv,
            "--server", order.server_url,
            "--token-file", str(own / _TOKEN),
            "--name", order.name,
            "--agent-id", order.agent_id,
            "--incarnation", str(order.incarnation),
            "--state-dir", str(own),
            *self._trusted,
        ]  # fmt: skip

    def _worker_env(self, order: LaunchOrder) -> dict[str, str]:
        return {**self._env, OWNER: f"{order.agent_id}:{order.incarnation}"}

    def _open_log(self, name: str) -> int:
        directory = beneath.open_directory(self._state, [_LOGS], create=True)
        try:
            return beneath.open_file(directory, f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        finally:
            os.close(directory)

    def _end(self, agent_id: str, worker: WorkerProcess | None, grace_s: float) -> None:
        launched = self._launched(agent_id)
        if worker is not None:
            ref = ProcessRef(worker.pid, worker.started_ticks)
            last = next((number for number, known in launched.items() if known == ref), None)
            if last is None:
                return
            launched = {number: known for number, known in launched.items() if number <= last}
        workers = [known for known in launched.values() if known is not None]
        procfs.tell(workers, SIGTERM)
        procfs.wait_gone(workers, within_s=grace_s)
        for number in launched:
            process.reap(Marker(OWNER, f"{agent_id}:{number}"), grace_s=_REST_GRACE_S)
            self._remove(agent_id, number)

    def _freeze(self, agent_id: str) -> bool:
        found: set[ProcessRef] = set()
        while new := set(self._of_worker(agent_id)) - found:  # what is stopped forks no more
            procfs.tell(new, SIGSTOP)
            found |= new
        return bool(found)

    def _of_worker(self, agent_id: str) -> list[ProcessRef]:
        markers = [Marker(OWNER, f"{agent_id}:{number}") for number in self._launched(agent_id)]
        return [ref for marker in markers for ref in procfs.owned(marker)]

    def _remove(self, agent_id: str, incarnation: int) -> None:
        own = self._state / _AGENTS / canonical_id(agent_id)
        shutil.rmtree(own / str(incarnation), ignore_errors=True)  # what stays is found again by the next ``end``
        with suppress(OSError):  # another incarnation has its folder there
            own.rmdir()

    def _launched(self, agent_id: str) -> dict[int, ProcessRef | None]:
        """Return the incarnations that have a folder, with their processes as far as they were noted."""
        try:
            directory = beneath.open_directory(self._state, [_AGENTS, agent_id])
        except FileNotFoundError:
            return {}
        try:
            numbers = sorted(int(name) for name in beneath.names(directory) if name.isdigit())
        finally:
            os.close(directory)
        return {number: self._noted(agent_id, number) for number in numbers}

    def _noted(self, agent_id: str, incarnation: int) -> ProcessRef | None:
        directory = beneath.open_directory(self._state, [_AGENTS, agent_id, str(incarnation)])
        try:
            with os.fdopen(beneath.open_file(directory, _PROCESS, os.O_RDONLY), "rb") as file:
                known = json.load(file)
        except FileNotFoundError:
            return None
        finally:
            os.close(directory)
        return ProcessRef(known["pid"], known["started_ticks"])

    def _watch(self, agent_id: AgentId, worker: WorkerProcess, child: Child) -> None:
        handle = os.pidfd_open(child.pid)
        self._children[handle] = (agent_id, worker, child)
        asyncio.get_running_loop().add_reader(handle, partial(self._ended, handle))

    def _ended(self, handle: int) -> None:
        if handle not in self._children:
            return
        agent_id, worker, child = self._children[handle]
        status = child.poll()
        if status is None:
            return
        self._forget(handle)
        if self._on_end is not None:
            self._on_end(agent_id, worker, status)

    def _collect(self) -> None:
        for handle in list(self._children):
            self._ended(handle)

    def _forget(self, handle: int) -> None:
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)
        del self._children[handle]

"""Workers as processes of this machine, in boxes where they can be.

For each incarnation there is a folder ``agents/<agent id>/<incarnation>`` below the town's ``.tt``, written before
the process exists: it holds the worker's token, who its process is, and what the worker itself keeps while it runs.
The end of a worker is proven by the marker that it and all its descendants carry, never by a name; boxes too.
"""

import asyncio
import os
import select
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from signal import SIGKILL, SIGSTOP, SIGTERM
from typing import TYPE_CHECKING

from borough.adapters import beneath, process, procfs
from borough.adapters.launched import Launched
from borough.adapters.process import OWNER, Child, Marker, ProcessRef
from borough.core.errors import Unavailable
from borough.core.ids import AgentId, canonical_id
from borough.town.agents import Confinement, WorkerProcess
from borough.town.ports.workers import LaunchOrder

if TYPE_CHECKING:
    from borough.adapters.engines.bubblewrap_workers.boxes import WorkerBoxes

WorkerEnded = Callable[[AgentId, WorkerProcess, int], None]
"""Called in the event loop: which agent's worker ended, who it was, and its exit status (negative: the signal)."""

_AGENTS, _LOGS = "agents", "logs"
_TOKEN, _PROCESS = "token", "process.json"
_BOXES_OWN = frozenset({"box_failed", "box_required"})
_REST_GRACE_S = 1.0
_SIGNALLED = 128
"""Bubblewrap ends with this and the signal, when what it started was ended by one."""
PLAIN = "this server boxes no workers"
_FOREIGN = Confinement(boxed=False, reason="somebody else than the server started it")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watched:
    """A worker whose end is waited for."""

    agent_id: AgentId
    process: WorkerProcess
    worker: ProcessRef
    child: Child
    """What we started and collect: the worker, or what made its box."""


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
        boxes: "WorkerBoxes | None" = None,
        plain: str = PLAIN,
    ) -> None:
        """``server_certificate`` is what the server shows in TLS; the workers trust it and no other. ``plain``: why
        workers get no boxes where there are no ``boxes``.
        """
        self._town = town_root
        self._state = state_root or town_root / ".tt"
        self._on_end = on_end
        # -P: the town's folder is where the worker runs, but what lies there is no part of the program.
        self._argv = worker_argv
        self._env = process.without_secrets(os.environ if env is None else env)
        self._host = host or socket.gethostname()
        self._trusted = () if server_certificate is None else ("--server-cert-file", str(server_certificate))
        self._boxes = boxes
        self._plain = plain
        self._watched: dict[int, _Watched] = {}
        """By pidfd, which becomes readable when its process ends."""
        self._confinements: dict[tuple[AgentId, int], Confinement] = {}

    async def launch(self, order: LaunchOrder) -> WorkerProcess:
        """Start the worker of one incarnation.

        Raises:
            Unavailable: it could not be started (``launch_failed``).
        """
        try:
            launched, child = await asyncio.to_thread(self._start, order)
        except (OSError, Unavailable) as failure:
            self._remove(order.agent_id, order.incarnation)
            known = isinstance(failure, Unavailable) and failure.code in _BOXES_OWN
            raise Unavailable(
                f"the worker of {order.name} cannot be started: {failure}",
                code="launch_failed",
                resolution=failure.resolution
                if isinstance(failure, Unavailable) and known
                else f"check that {self._state} can be written and has free space",
            ) from failure
        ref = launched.worker
        worker = WorkerProcess(host=self._host, pid=ref.pid, started_ticks=ref.started_ticks)
        self._confinements[order.agent_id, order.incarnation] = launched.confinement
        self._watch(_Watched(agent_id=order.agent_id, process=worker, worker=ref, child=child))
        return worker

    def confinement(self, agent_id: AgentId, incarnation: int, process: WorkerProcess | None) -> Confinement | None:
        """Tell whether a worker is in a box; ``None`` where it runs on another machine, or has not begun."""
        known = self._confinements.get((agent_id, incarnation))
        if known is not None or (process is not None and process.host != self._host):
            return known
        noted = self._launched(canonical_id(agent_id)).get(incarnation)
        if noted is None:
            return None if process is None else _FOREIGN
        self._confinements[agent_id, incarnation] = noted.confinement
        return noted.confinement

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
        for handle in list(self._watched):
            self._forget(handle)

    def _start(self, order: LaunchOrder) -> tuple[Launched, Child]:
        plain = self._plain if self._boxes is None else self._boxes.refusal()
        if plain is not None and self._boxes is not None and self._boxes.settings.required:
            raise _box_required(plain)
        folder = [_AGENTS, canonical_id(order.agent_id), str(order.incarnation)]
        directory = beneath.open_directory(self._state, folder, create=True)
        try:
            beneath.write_private(directory, _TOKEN, order.token.encode())
            log = self._open_log(order.name)
            try:
                if plain is None and self._boxes is not None:
                    return self._start_boxed(self._boxes, order, directory, log)
                return self._start_plain(order, directory, log, reason=plain)
            finally:
                os.close(log)
        finally:
            os.close(directory)

    def _start_plain(
        self, order: LaunchOrder, directory: int, log: int, *, reason: str | None
    ) -> tuple[Launched, Child]:
        own = self._own(order)
        child = process.start_server(
            self._worker_argv(order, own), env=self._worker_env(order), cwd=self._town, log=log
        )  # fmt: skip
        launched = Launched(worker=child.ref, confinement=Confinement(boxed=False, reason=reason))
        beneath.write_private(directory, _PROCESS, launched.encoded())
        return launched, child

    def _start_boxed(
        self, boxes: "WorkerBoxes", order: LaunchOrder, directory: int, log: int
    ) -> tuple[Launched, Child]:  # fmt: skip
        from borough.adapters.engines.bubblewrap_workers.boxes import WORK  # noqa: PLC0415 - only where there are boxes
        from borough.adapters.engines.bubblewrap_workers.starting import introduce  # noqa: PLC0415 - as above

        own = self._own(order)
        boxed, told = boxes.start(
            [*self._worker_argv(order, own / WORK), "--introduced"],
            env=self._worker_env(order), own=own, cli=order.cli, log=log,
        )  # fmt: skip
        with told:
            launched = Launched(
                worker=boxed.worker, around=boxed.child.ref, confinement=Confinement(boxed=True)
            )  # fmt: skip
            beneath.write_private(directory, _PROCESS, launched.encoded())
            with suppress(BrokenPipeError):  # it has ended already: whoever watches it hears of that
                introduce(boxed.worker, told)
        return launched, boxed.child

    def _own(self, order: LaunchOrder) -> Path:
        return self._state.joinpath(_AGENTS, canonical_id(order.agent_id), str(order.incarnation))

    def _worker_argv(self, order: LaunchOrder, kept: Path) -> list[str]:
        return [
            *self._argv,
            "--server", order.server_url,
            "--token-file", str(self._own(order) / _TOKEN),
            "--name", order.name,
            "--agent-id", order.agent_id,
            "--incarnation", str(order.incarnation),
            "--state-dir", str(kept),
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
            last = next((number for number, known in launched.items() if known and known.worker == ref), None)
            if last is None:
                return
            launched = {number: known for number, known in launched.items() if number <= last}
        noted = [known for known in launched.values() if known is not None]
        workers = [known.worker for known in noted]
        # The first process of a box ignores what it does not catch. One that has not got that far has nothing to give
        # back either.
        early = [known.worker for known in noted if known.around and not procfs.catches(known.worker, SIGTERM)]
        procfs.tell(early, SIGKILL)
        procfs.tell(workers, SIGTERM)
        procfs.wait_gone(workers, within_s=grace_s)
        # What made a box ends right after its worker, and says how that ended: it is not told to end meanwhile.
        ending = [known.around for known in noted if known.around is not None and not procfs.is_alive(known.worker)]
        procfs.wait_gone(ending, within_s=_REST_GRACE_S)
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
        self._confinements.pop((AgentId(agent_id), incarnation), None)
        own = self._state / _AGENTS / canonical_id(agent_id)
        _open_folders(own / str(incarnation))
        shutil.rmtree(own / str(incarnation), ignore_errors=True)  # what stays is found again by the next ``end``
        with suppress(OSError):  # another incarnation has its folder there
            own.rmdir()

    def _launched(self, agent_id: str) -> dict[int, Launched | None]:
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

    def _noted(self, agent_id: str, incarnation: int) -> Launched | None:
        directory = beneath.open_directory(self._state, [_AGENTS, agent_id, str(incarnation)])
        try:
            with os.fdopen(beneath.open_file(directory, _PROCESS, os.O_RDONLY), "rb") as file:
                return Launched.decoded(file.read())
        except FileNotFoundError:
            return None
        finally:
            os.close(directory)

    def _watch(self, watched: _Watched) -> None:
        """Watch a worker, or once that is gone, what we started: its exit status is the last thing to come."""
        alive = procfs.is_alive(watched.worker)
        try:
            handle = os.pidfd_open(watched.worker.pid if alive else watched.child.pid)
        except (
            ProcessLookupError
        ):  # the worker ended between the look and the opening; a child of ours stays until told
            handle = os.pidfd_open(watched.child.pid)
        self._watched[handle] = watched
        asyncio.get_running_loop().add_reader(handle, partial(self._ended, handle))

    def _ended(self, handle: int) -> None:
        watched = self._watched.get(handle)
        if watched is None or procfs.is_alive(watched.worker):
            return
        status = watched.child.poll()
        if status is None:  # what made its box is about to end too
            if select.select([handle], [], [], 0)[0] and watched.worker != watched.child.ref:
                self._forget(handle)
                self._watch(watched)
            return
        self._forget(handle)
        if watched.worker != watched.child.ref and status > _SIGNALLED:
            status = _SIGNALLED - status
        if self._on_end is not None:
            self._on_end(watched.agent_id, watched.process, status)

    def _collect(self) -> None:
        for handle in list(self._watched):
            self._ended(handle)

    def _forget(self, handle: int) -> None:
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)
        del self._watched[handle]


def _open_folders(folder: Path) -> None:
    """Let what is in ``folder`` be removed: programs leave folders behind that nobody may write to."""
    with suppress(FileNotFoundError):  # it is gone already, or somebody else removes it too
        for _, names, _, descriptor in os.fwalk(folder):
            for name in names:
                if stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                    os.chmod(name, 0o700, dir_fd=descriptor)


def _box_required(reason: str) -> Unavailable:
    return Unavailable(
        f"workers have to be in boxes, and none can be: {reason}",
        code="box_required",
        reason=reason,
        resolution="see 'borough doctor' for what this machine lacks; to let workers start without boxes: "
        "tt config --here agent.box auto, and restart the server",
    )

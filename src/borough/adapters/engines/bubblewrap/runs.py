"""What is kept on disk of each run of an agent: written before its box is let go, read by a daemon that comes later."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from borough.adapters import beneath
from borough.adapters.process import ProcessRef
from borough.core.ids import AgentId, canonical_id
from borough.governance.hosts import NetworkPolicy, parse_allowed
from borough.governance.manifests import Layer, Network
from borough.governance.ports.confinement import Enforcement

LOG, END, _BOX = "log", "end.json", "box.json"
SOCKET = "agentd.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A box that was let go."""

    box: str
    inner: ProcessRef
    program: ProcessRef
    network: Network
    enforcement: Enforcement
    socket: str
    """The daemon's, as it was given."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @property
    def end(self) -> Path:
        """The file into which the keeper writes how it ended."""
        return self.path / END

    @property
    def sockets(self) -> Path:
        """The folder that the box sees, with the daemon's socket in it."""
        return self.path / "socket"

    def make(self) -> None:
        """Make it, before anything of the run exists."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def open_log(self) -> int:
        """Return the descriptor that output is appended to."""
        return self._open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def read_log(self, offset: int, limit: int) -> bytes:
        """Return a part of the log; raises ``FileNotFoundError``."""
        descriptor = self._open(LOG, os.O_RDONLY)
        try:
            return os.pread(descriptor, limit, offset)
        finally:
            os.close(descriptor)

    def place_socket(self, socket: str) -> bool:
        """Put a link to the daemon's socket where the box sees it; ``False`` where it is on another file system.

        It is a folder of its own that is shown, not the socket: a daemon that starts again makes another socket, and
        a box can see that only in a folder.
        """
        self.sockets.mkdir(mode=0o755, exist_ok=True)
        self.sockets.chmod(0o755)
        draft = self.sockets / f".{SOCKET}.new"
        draft.unlink(missing_ok=True)
        try:
            os.link(socket, draft, follow_symlinks=False)
        except OSError:
            return False
        draft.replace(self.sockets / SOCKET)
        return True

    def write(self, record: RunRecord) -> None:
        """Write who runs."""
        told = {
            "box": record.box,
            "inner": [record.inner.pid, record.inner.started_ticks],
            "program": [record.program.pid, record.program.started_ticks],
            "policy": record.network.policy.value,
            "allowlist": [str(line) for line in record.network.allowlist],
            "backend": record.enforcement.backend,
            "layers": dict(record.enforcement.layers),
            "reasons": dict(record.enforcement.reasons),
            "socket": record.socket,
        }
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            beneath.write_private(directory, _BOX, json.dumps(told).encode())
        finally:
            os.close(directory)

    def read(self) -> RunRecord | None:
        """Return who ran, or ``None`` when the box was never let go."""
        try:
            with os.fdopen(self._open(_BOX, os.O_RDONLY), "rb") as file:
                told = json.load(file)
        except FileNotFoundError:
            return None
        return RunRecord(
            box=told["box"],
            inner=ProcessRef(*told["inner"]),
            program=ProcessRef(*told["program"]),
            network=Network(
                policy=NetworkPolicy(told["policy"]),
                allowlist=tuple(parse_allowed(line) for line in told["allowlist"]),
            ),
            enforcement=Enforcement(
                backend=told["backend"],
                layers={Layer(name): holds for name, holds in told["layers"].items()},
                reasons={Layer(name): reason for name, reason in told["reasons"].items()},
            ),
            socket=told["socket"],
        )

    def read_end(self) -> int | None:
        """Return the program's wait status; ``None`` when it is not known.

        Raises:
            FileNotFoundError: nobody saw its end.
        """
        with os.fdopen(self._open(END, os.O_RDONLY), "rb") as file:
            status: int | None = json.load(file)["status"]
        return status

    def _open(self, name: str, flags: int) -> int:
        return os.open(self.path / name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def run_folder(boxes: Path, agent_id: AgentId, run_id: str) -> RunFolder:
    """Return where a run is kept.

    Raises:
        ValueError: an id is none.
    """
    return RunFolder(boxes / canonical_id(agent_id) / canonical_id(run_id))

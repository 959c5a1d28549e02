"""Worker processes, and how they prove who they are."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from borough.core.ids import AgentId, TaskId
from borough.town.agents import Confinement, WorkerProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOrder:
    """What a launcher needs to start a worker."""

    agent_id: AgentId
    name: str
    incarnation: int
    server_url: str
    token: str
    """The worker's own credential; never an argument, never logged."""
    cli: str = ""
    """What it is to run, as its agent has it: its box shows what that needs."""


class Launcher(Protocol):
    """Starts and ends worker processes on this machine."""

    async def launch(self, order: LaunchOrder) -> WorkerProcess:
        """Start a worker; raises ``Unavailable`` (``launch_failed``)."""

    def confinement(self, agent_id: AgentId, incarnation: int, process: WorkerProcess | None) -> Confinement | None:
        """Tell whether a worker is in a box; ``None`` where it runs on another machine, or has not begun."""

    async def end(self, agent_id: AgentId, process: WorkerProcess | None, *, grace: timedelta) -> None:
        """End the worker and everything that descends from it, and prove that nothing is left. Not ours or not
        there any more: nothing happens.
        """

    async def freeze(self, agent_id: AgentId, process: WorkerProcess | None) -> bool:
        """Stop the worker and everything that descends from it where it is; tell whether there was something of it."""


class WorkerTokens(Protocol):
    """Credentials of workers and of the agent CLIs that they run."""

    def mint(
        self, *, agent_id: AgentId, incarnation: int, task_id: TaskId | None = None, epoch: int | None = None
    ) -> str:
        """Return a token that says exactly this and cannot be forged."""

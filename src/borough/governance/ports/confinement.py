"""Agents' processes and what confines them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from borough.core.ids import AgentId
from borough.governance.lifecycle import Exit
from borough.governance.manifests import Layer, Manifest, Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforcement:
    """What really holds for an agent on this host."""

    backend: str
    layers: Mapping[Layer, bool]
    reasons: Mapping[Layer, str]
    """Why a layer does not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOrder:
    """What is needed to start an agent's process."""

    agent_id: AgentId
    run_id: str
    manifest: Manifest
    task: str | None
    model: str | None
    socket: str
    nonce: str = field(repr=False)
    """Proves to the socket that a connection is this run's; handed over in a file descriptor, never as an argument."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentProcess:
    """A process that runs, known so that it cannot be mistaken for another one later."""

    pid: int
    started_ticks: int
    """Its start time in clock ticks since boot (proc(5))."""
    enforcement: Enforcement


class AgentRunner(Protocol):
    """Starts agents' processes in their confinement, and ends them with everything that descends from them."""

    async def probe(self) -> Enforcement:
        """Return what this host can enforce."""

    async def start(self, order: AgentOrder) -> AgentProcess | None:
        """Start an agent; ``None`` when its manifest names nothing to start, and it lives in the register only.

        Raises:
            Unavailable: a required layer does not hold here (``enforcement_missing``), or the process could not be
                started (``start_failed``). Nothing is left behind then.
        """

    async def adopt(self, agent_id: AgentId, run_id: str) -> AgentProcess | None:
        """Return the run's process if it still runs, having proven that it is that one; for the start after a crash."""

    async def pause(self, agent_id: AgentId) -> None:
        """Stop every process of the agent where it is."""

    async def resume(self, agent_id: AgentId) -> None:
        """Let them go on."""

    async def end(self, agent_id: AgentId, *, grace: timedelta) -> Exit:
        """Tell the agent to end, end it by force after ``grace``, and return when nothing of it is left."""

    async def exited(self, agent_id: AgentId) -> Exit:
        """Return how the agent ended, as soon as it has."""

    async def logs(self, agent_id: AgentId, run_id: str, *, offset: int, limit: int) -> bytes:
        """Return a part of what the agent printed; raises ``NotFound`` (``log_not_found``)."""


class BoxNetwork(Protocol):
    """The one way out of a box that has a network of its own: an HTTP proxy at 127.0.0.1:3128 inside of it."""

    async def open(self, agent_id: AgentId, run_id: str, network: Network, box_pid: int) -> None:
        """Make the proxy reachable inside the box of ``box_pid``; what it lets through is judged by ``network``.

        Raises:
            Conflict: this run's box has its proxy already (``box_is_open``).
            Unavailable: it could not be made (``egress_unavailable``). Nothing is left behind then.
        """

    async def close(self, agent_id: AgentId, run_id: str) -> None:
        """End the proxy and every connection through it; one that is not open: nothing happens."""

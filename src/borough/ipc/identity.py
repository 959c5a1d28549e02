"""Which agent a connection is: proven by its run's nonce and by the process that shows it, never by what it says."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256

from borough.adapters.procfs import ProcessRef
from borough.auth.principals import Principal
from borough.core.errors import Forbidden
from borough.core.ids import AgentId
from borough.governance.tokens import ROLE_SCOPES, Caller, Role
from borough.ipc.peers import Peer, belongs_to

PROCESS_KNOWN_WITHIN_S = 10.0
"""An agent may connect before whoever started it could say which process it is."""
SOCKET_TOKEN = "socket"  # noqa: S105 - a name
"""What stands for the token's name where there is a socket."""

SessionOpened = Callable[[AgentId, str], Awaitable[None]]
"""Told of the first connection of a run, before it is answered: the agent and the run."""


@dataclass(slots=True, kw_only=True)
class Run:
    """One start of an agent, while it lasts."""

    agent_id: AgentId
    run_id: str
    nonce_sha256: str = field(repr=False)
    process: ProcessRef | None = None
    known: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    connected: bool = False

    @property
    def principal(self) -> Principal:
        """Return the agent itself, with all that an agent may have."""
        caller = Caller(
            token_name=SOCKET_TOKEN, agent_id=self.agent_id, role=Role.AGENT, scopes=ROLE_SCOPES[Role.AGENT]
        )
        return Principal(id=f"agent:{self.agent_id}", scopes=frozenset(), caller=caller)


def nonce_sha256(nonce: str) -> str:
    """Return what is kept of a nonce: the SHA-256 of its text, in hex."""
    return sha256(nonce.encode()).hexdigest()


class NonceRegistry:
    """The runs that may connect."""

    def __init__(self, *, session_opened: SessionOpened | None = None) -> None:
        self._runs: dict[str, Run] = {}
        self._session_opened = session_opened

    def on_session(self, session_opened: SessionOpened) -> None:
        """Tell of first connections from now on."""
        self._session_opened = session_opened

    def expect(self, agent_id: AgentId, run_id: str, *, nonce_sha256: str) -> None:
        """Let a run connect from now on until it ends: one that is about to start, or that outlived a daemon."""
        self._runs[run_id] = Run(agent_id=agent_id, run_id=run_id, nonce_sha256=nonce_sha256)

    def started(self, run_id: str, *, pid: int, started_ticks: int) -> None:
        """Say which process the run is; only that one and its descendants may show the nonce."""
        run = self._runs.get(run_id)
        if run is not None:
            run.process = ProcessRef(pid, started_ticks)
            run.known.set()

    def ended(self, run_id: str) -> None:
        """Forget a run; its connections end."""
        run = self._runs.pop(run_id, None)
        if run is not None:
            run.known.set()
            run.ended.set()

    def __len__(self) -> int:
        return len(self._runs)

    async def claim(self, nonce: object, peer: Peer) -> Run:
        """Return the run that ``peer`` proves to belong to.

        Raises:
            Forbidden: there is none with this nonce, or the process is not one of its own (``denied``).
            BoroughError: that it connected could not be kept.
        """
        run = self._find(nonce) if isinstance(nonce, str) else None
        if run is None:
            raise _refused("no run has this nonce")
        try:
            async with asyncio.timeout(PROCESS_KNOWN_WITHIN_S):
                await run.known.wait()
        except TimeoutError:
            raise _refused("the run's process is not known") from None
        if run.ended.is_set() or run.process is None:
            raise _refused("the run has ended")
        if not await asyncio.to_thread(belongs_to, peer.pid, run.process):
            raise _refused("the process does not belong to the run")
        if not run.connected and self._session_opened is not None:
            await self._session_opened(run.agent_id, run.run_id)
        run.connected = True
        return run

    def _find(self, nonce: str) -> Run | None:
        shown = nonce_sha256(nonce)
        # Digests are compared, so the time tells nothing of the nonce.
        return next((run for run in self._runs.values() if run.nonce_sha256 == shown), None)


def _refused(reason: str) -> Forbidden:
    return Forbidden(
        "permission denied",
        code="denied",
        reason=reason,
        resolution="start the agent with agentd, and send the nonce that it handed over",
    )

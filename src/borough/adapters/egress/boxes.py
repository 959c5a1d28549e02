"""The port ``BoxNetwork``: one listener for each box is its identity."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from borough.adapters.egress.judging import Judge
from borough.adapters.egress.limits import EgressLimits
from borough.adapters.egress.listening import listen_in
from borough.adapters.egress.proxy import BoxProxy
from borough.adapters.egress.verdicts import OnVerdict, VerdictBook
from borough.core.errors import Conflict
from borough.core.ids import AgentId
from borough.governance.manifests import Network

Listen = Callable[[int], Awaitable[socket.socket]]
"""Makes the listener in the box of a pid."""


@dataclass(frozen=True, slots=True)
class _Open:
    server: asyncio.Server
    proxy: BoxProxy


class BoxProxies:
    """The ways out of all boxes. Use it from one event loop; ``close_all`` it before the loop ends."""

    def __init__(
        self,
        *,
        judge: Judge,
        on_verdict: OnVerdict,
        limits: EgressLimits | None = None,
        listen: Listen = listen_in,
    ) -> None:
        self._judge, self._on_verdict = judge, on_verdict
        self._limits = limits or EgressLimits()
        self._listen = listen
        self._open: dict[tuple[AgentId, str], _Open | None] = {}
        """``None`` while a listener is being made."""

    async def open(self, agent_id: AgentId, run_id: str, network: Network, box_pid: int) -> None:
        """Make the proxy reachable inside the box; raises as the port says."""
        key = (agent_id, run_id)
        if key in self._open:
            raise Conflict(
                f"run {run_id} has its way out already",
                code="box_is_open",
                resolution="close it before another box is opened under the same run",
            )
        self._open[key] = None
        proxy = BoxProxy(
            network=network,
            judge=self._judge,
            book=VerdictBook(agent_id, run_id, self._on_verdict),
            limits=self._limits,
        )
        try:
            listener = await self._listen(box_pid)
            server = await asyncio.start_server(proxy.accept, sock=listener)
        except BaseException:
            self._open.pop(key, None)
            raise
        if key not in self._open:
            # It was closed while its listener was being made.
            server.close()
            return
        self._open[key] = _Open(server, proxy)

    async def close(self, agent_id: AgentId, run_id: str) -> None:
        """End the proxy and its connections; idempotent."""
        opened = self._open.pop((agent_id, run_id), None)
        if opened is not None:
            opened.server.close()
            await opened.proxy.close()

    async def close_all(self) -> None:
        """End every proxy."""
        for agent_id, run_id in [*self._open]:
            await self.close(agent_id, run_id)

"""The client for programs on asyncio; questions of several tasks are asked one after the other."""

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from borough.agent import exchanges as ex
from borough.agent.connections import HttpConnection
from borough.agent.environment import Identity, read_environment
from borough.agent.errors import SocketError
from borough.agent.exchanges import Exchange, MemoryValue, PlanStep, ToolInfo
from borough.agent.frames import HEADER_BYTES, body_length, decode, encode

Result = TypeVar("Result")


class AsyncAgent:
    """This agent, as ``agentd`` knows it; made by ``from_env`` or ``connect``."""

    def __init__(self, identity: Identity, way: "_Streams | HttpConnection") -> None:
        self.id = identity.agent_id
        self.task = identity.task
        self.model = identity.model
        self._way = way
        self._turn = asyncio.Lock()

    @classmethod
    async def from_env(cls) -> Self:
        """Return the agent that this process is.

        Raises:
            EnvMissing: it was not started by ``agentd``.
            SocketError: the daemon cannot be reached.
        """
        return await cls.connect(read_environment())

    @classmethod
    async def connect(cls, identity: Identity) -> Self:
        """Connect as ``identity``; raises ``SocketError``."""
        if identity.url is not None:
            return cls(identity, HttpConnection(identity))
        way = await _Streams.opened(identity.socket)
        agent = cls(identity, way)
        if identity.nonce is not None:
            try:
                await agent.ask(ex.hello(identity.nonce))
            except BaseException:
                way.drop()
                raise
        return agent

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; the agent goes on until its process ends."""
        if isinstance(self._way, _Streams):
            await self._way.close()

    async def ask(self, exchange: Exchange[Result]) -> Result:
        """Ask one question and return its answer; raises an ``AgentError``."""
        async with self._turn:
            if isinstance(self._way, _Streams):
                return exchange.answered(*await self._way.ask(exchange.message))
            return exchange.answered(*await asyncio.to_thread(self._way.ask, exchange.message))

    async def transition(self, state: str) -> None:
        """Go to another phase: ``plan``, ``act``, ``observe`` or ``terminate``; raises ``InvalidTransition``."""
        await self.ask(ex.transition(self.id, state))

    async def plan(self, steps: Sequence[PlanStep | str]) -> None:
        """Declare what is going to be done."""
        await self.ask(ex.declare_plan(self.id, steps, revised=False))

    async def revise_plan(self, steps: Sequence[PlanStep | str]) -> None:
        """Declare a changed plan."""
        await self.ask(ex.declare_plan(self.id, steps, revised=True))

    async def invoke_tool(self, name: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Call a tool and return its output; waits while a human is asked. Raises ``ToolFailed``."""
        return await self.ask(ex.invoke_tool(self.id, name, arguments or {}))

    async def list_tools(self) -> list[ToolInfo]:
        """Return the tools that this agent sees."""
        return await self.ask(ex.list_tools(self.id))

    async def observe(
        self, action: str, result: str, tags: Sequence[str] = (), metadata: Mapping[str, Any] | None = None
    ) -> str:
        """Write down what happened, in a chain that cannot be bent later; return the observation's id."""
        return await self.ask(ex.observe(self.id, action, result, tags, metadata))

    async def memory_get(self, key: str) -> Any:
        """Return what is kept under ``key``, or ``None``."""
        kept = await self.ask(ex.memory_read(self.id, key))
        return None if kept is None else kept.value

    async def memory_read(self, key: str) -> MemoryValue | None:
        """Return what is kept under ``key`` with its version, or ``None``."""
        return await self.ask(ex.memory_read(self.id, key))

    async def memory_set(
        self, key: str, value: Any, *, ttl_secs: int | None = None, expected_version: int | None = None
    ) -> int:
        """Keep a JSON value and return its version; ``expected_version`` 0 insists that there was none."""
        return await self.ask(
            ex.memory_write(self.id, key, value, ttl_secs=ttl_secs, expected_version=expected_version)
        )

    async def spawn_child(
        self,
        *,
        name: str | None = None,
        manifest_yaml: str | None = None,
        task: str | None = None,
        cap_override: Sequence[str] | None = None,
    ) -> str:
        """Start an agent below this one, by its installed name or by a manifest; return its id."""
        return await self.ask(
            ex.spawn_child(self.id, name=name, manifest_yaml=manifest_yaml, task=task, cap_override=cap_override)
        )

    async def grant_capability(self, child_id: str, capability: str, expires_at: str | None = None) -> str:
        """Give a child one of this agent's capabilities, until ``expires_at`` (RFC 3339) or its end; return its id."""
        return await self.ask(ex.grant_capability(self.id, child_id, capability, expires_at))

    async def request_capability(self, capability: str, reason: str, ttl_secs: int | None = None) -> str:
        """Ask whoever stands above for a capability; return the request's id."""
        return await self.ask(ex.request_capability(self.id, capability, reason, ttl_secs))

    async def pending_escalations(self) -> list[dict[str, Any]]:
        """Return what children want this agent to decide."""
        return await self.ask(ex.pending_escalations(self.id))

    async def bus_publish(self, topic: str, payload: Any) -> None:
        """Send a message to whoever listens to ``topic``."""
        await self.ask(ex.bus_publish(self.id, topic, payload))

    async def bus_subscribe(self, pattern: str) -> None:
        """Listen to topics."""
        await self.ask(ex.bus_subscribe(self.id, pattern))

    async def bus_poll(self) -> list[dict[str, Any]]:
        """Take the messages that have come."""
        return await self.ask(ex.bus_poll(self.id))

    async def finish(self, result: Any = None) -> None:
        """Hand back ``result``, if there is one, and end: the agent goes to ``terminate``."""
        if result is not None:
            await self.ask(ex.set_result(self.id, result))
        await self.transition("terminate")


class _Streams:
    """A connection to the agents' socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def opened(cls, path: str) -> Self:
        try:
            return cls(*await asyncio.open_unix_connection(path))
        except OSError as error:
            raise SocketError(f"nobody answers at {path}: {error.strerror}") from error

    def drop(self) -> None:
        self._writer.close()

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def ask(self, message: object) -> tuple[str, Any]:
        try:
            self._writer.write(encode(message))
            await self._writer.drain()
            header = await self._reader.readexactly(HEADER_BYTES)
            body = await self._reader.readexactly(body_length(header))
        except BaseException as error:
            # What is left of the answer would be taken for the next question's.
            self._writer.close()
            if isinstance(error, asyncio.IncompleteReadError):
                raise SocketError("the daemon closed the connection") from error
            if isinstance(error, OSError):
                raise SocketError(f"the daemon does not answer: {error}") from error
            raise
        return decode(body)

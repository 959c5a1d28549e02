"""The client for ordinary programs: one question at a time."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from borough.agent import exchanges as ex
from borough.agent.connections import connect
from borough.agent.environment import Identity, read_environment
from borough.agent.exchanges import Exchange, MemoryValue, PlanStep, ToolInfo

Result = TypeVar("Result")


class Agent:
    """This agent, as ``agentd`` knows it. Used from one thread at a time."""

    def __init__(self, identity: Identity) -> None:
        self.id = identity.agent_id
        self.task = identity.task
        self.model = identity.model
        self._connection = connect(identity)
        if identity.nonce is not None and identity.url is None:
            try:
                self.ask(ex.hello(identity.nonce))
            except BaseException:
                self.close()
                raise

    @classmethod
    def from_env(cls) -> Self:
        """Return the agent that this process is.

        Raises:
            EnvMissing: it was not started by ``agentd``.
            SocketError: the daemon cannot be reached.
        """
        return cls(read_environment())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the agent goes on until its process ends."""
        self._connection.close()

    def ask(self, exchange: Exchange[Result]) -> Result:
        """Ask one question and return its answer; raises an ``AgentError``."""
        return exchange.answered(*self._connection.ask(exchange.message))

    def transition(self, state: str) -> None:
        """Go to another phase: ``plan``, ``act``, ``observe`` or ``terminate``; raises ``InvalidTransition``."""
        self.ask(ex.transition(self.id, state))

    def plan(self, steps: Sequence[PlanStep | str]) -> None:
        """Declare what is going to be done."""
        self.ask(ex.declare_plan(self.id, steps, revised=False))

    def revise_plan(self, steps: Sequence[PlanStep | str]) -> None:
        """Declare a changed plan."""
        self.ask(ex.declare_plan(self.id, steps, revised=True))

    def invoke_tool(self, name: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Call a tool and return its output; waits while a human is asked. Raises ``ToolFailed``."""
        return self.ask(ex.invoke_tool(self.id, name, arguments or {}))

    def list_tools(self) -> list[ToolInfo]:
        """Return the tools that this agent sees."""
        return self.ask(ex.list_tools(self.id))

    def observe(
        self, action: str, result: str, tags: Sequence[str] = (), metadata: Mapping[str, Any] | None = None
    ) -> str:
        """Write down what happened, in a chain that cannot be bent later; return the observation's id."""
        return self.ask(ex.observe(self.id, action, result, tags, metadata))

    def memory_get(self, key: str) -> Any:
        """Return what is kept under ``key``, or ``None``."""
        kept = self.ask(ex.memory_read(self.id, key))
        return None if kept is None else kept.value

    def memory_read(self, key: str) -> MemoryValue | None:
        """Return what is kept under ``key`` with its version, or ``None``."""
        return self.ask(ex.memory_read(self.id, key))

    def memory_set(
        self, key: str, value: Any, *, ttl_secs: int | None = None, expected_version: int | None = None
    ) -> int:
        """Keep a JSON value and return its version; ``expected_version`` 0 insists that there was none."""
        return self.ask(ex.memory_write(self.id, key, value, ttl_secs=ttl_secs, expected_version=expected_version))

    def spawn_child(
        self,
        *,
        name: str | None = None,
        manifest_yaml: str | None = None,
        task: str | None = None,
        cap_override: Sequence[str] | None = None,
    ) -> str:
        """Start an agent below this one, by its installed name or by a manifest; return its id."""
        return self.ask(
            ex.spawn_child(self.id, name=name, manifest_yaml=manifest_yaml, task=task, cap_override=cap_override)
        )

    def grant_capability(self, child_id: str, capability: str, expires_at: str | None = None) -> str:
        """Give a child one of this agent's capabilities, until ``expires_at`` (RFC 3339) or its end; return its id."""
        return self.ask(ex.grant_capability(self.id, child_id, capability, expires_at))

    def request_capability(self, capability: str, reason: str, ttl_secs: int | None = None) -> str:
        """Ask whoever stands above for a capability; return the request's id."""
        return self.ask(ex.request_capability(self.id, capability, reason, ttl_secs))

    def pending_escalations(self) -> list[dict[str, Any]]:
        """Return what children want this agent to decide."""
        return self.ask(ex.pending_escalations(self.id))

    def bus_publish(self, topic: str, payload: Any) -> None:
        """Send a message to whoever listens to ``topic``."""
        self.ask(ex.bus_publish(self.id, topic, payload))

    def bus_subscribe(self, pattern: str) -> None:
        """Listen to topics."""
        self.ask(ex.bus_subscribe(self.id, pattern))

    def bus_poll(self) -> list[dict[str, Any]]:
        """Take the messages that have come."""
        return self.ask(ex.bus_poll(self.id))

    def finish(self, result: Any = None) -> None:
        """Hand back ``result``, if there is one, and end: the agent goes to ``terminate``."""
        if result is not None:
            self.ask(ex.set_result(self.id, result))
        self.transition("terminate")

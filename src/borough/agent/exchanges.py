"""What an agent can ask, and how the answers are read; the same for both clients. Nothing is sent here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from borough.agent.errors import ProtocolError, ToolFailed, error_of

Result = TypeVar("Result")


@dataclass(frozen=True)
class PlanStep:
    """One step of a plan."""

    description: str
    tool: str | None = None


@dataclass(frozen=True)
class ToolInfo:
    """A tool that the agent sees. Schemas are JSON Schema."""

    name: str
    description: str
    requires_approval: bool
    input_schema: Mapping[str, Any]


@dataclass(frozen=True)
class MemoryValue:
    """A value that was kept, with the version that a later write may insist on."""

    value: Any
    version: int


@dataclass(frozen=True)
class Exchange(Generic[Result]):
    """One question and the way to read its answer."""

    variant: str
    fields: Mapping[str, Any]
    read: Callable[[Any], Result]

    @property
    def message(self) -> object:
        """Return the question as it is sent."""
        return {self.variant: dict(self.fields)} if self.fields else self.variant

    def answered(self, name: str, carried: Any) -> Result:
        """Return what the answer says; raises the ``AgentError`` that it tells of."""
        if name == "Error":
            told = carried if isinstance(carried, Mapping) else {}
            message = ": ".join(str(told[name]) for name in ("message", "reason") if told.get(name))
            raise error_of(
                message or "the daemon refused", code=str(told.get("code", "")), kind=str(told.get("kind", ""))
            )
        try:
            return self.read(carried)
        except (KeyError, TypeError, AttributeError) as error:
            raise ProtocolError(f"the answer to {self.variant} cannot be read") from error


def hello(nonce: str) -> Exchange[None]:
    """Prove to the daemon which run this connection belongs to."""
    return Exchange("Hello", {"nonce": nonce}, _nothing)


def ping() -> Exchange[None]:
    """Ask whether the daemon is there."""
    return Exchange("Ping", {}, _nothing)


def transition(agent_id: str, state: str) -> Exchange[None]:
    """Go to another phase: plan, act, observe, terminate."""
    return Exchange("Transition", {"agent_id": agent_id, "state": state}, _nothing)


def declare_plan(agent_id: str, steps: Sequence[PlanStep | str], *, revised: bool) -> Exchange[None]:
    """Tell what is going to be done."""
    listed = [step if isinstance(step, PlanStep) else PlanStep(step) for step in steps]
    told = [{"description": step.description, "tool": step.tool} for step in listed]
    return Exchange("RevisePlan" if revised else "Plan", {"agent_id": agent_id, "steps": told}, _nothing)


def invoke_tool(agent_id: str, name: str, arguments: Mapping[str, Any]) -> Exchange[Any]:
    """Call a tool. The answer may take as long as a human needs to agree."""

    def read(carried: Any) -> Any:
        status, output = carried["status"], carried.get("output")
        if status == "success":
            return output
        told = output.get("error") if isinstance(output, Mapping) else output
        raise ToolFailed(str(told or status), code=str(carried.get("code") or status))

    return _ToolExchange("ToolInvoke", {"agent_id": agent_id, "tool_name": name, "input": dict(arguments)}, read)


class _ToolExchange(Exchange[Any]):
    """A call whose refusals are failures of the tool, as its caller sees them."""

    def answered(self, name: str, carried: Any) -> Any:
        if name == "Error" and isinstance(carried, Mapping):
            raise ToolFailed(str(carried.get("message", "the daemon refused")), code=str(carried.get("code", "")))
        return super().answered(name, carried)


def list_tools(agent_id: str) -> Exchange[list[ToolInfo]]:
    """Ask which tools there are."""

    def read(carried: Any) -> list[ToolInfo]:
        return [
            ToolInfo(
                name=tool["name"],
                description=tool.get("description", ""),
                requires_approval=bool(tool.get("requires_approval")),
                input_schema=tool.get("input_schema") or {"type": "object"},
            )
            for tool in carried["tools"]
        ]

    return Exchange("ToolList", {"agent_id": agent_id}, read)


def observe(
    agent_id: str, action: str, result: str, tags: Sequence[str], metadata: Mapping[str, Any] | None
) -> Exchange[str]:
    """Write down what happened; answered with the observation's id."""
    fields = {"agent_id": agent_id, "action": action, "result": result, "tags": list(tags), "metadata": metadata}
    return Exchange("ObservationAppend", fields, lambda carried: str(carried["id"]))


def memory_read(agent_id: str, key: str) -> Exchange[MemoryValue | None]:
    """Ask for what is kept under a key; ``None`` when there is nothing."""
    return _Absent(
        "MemoryRead",
        {"agent_id": agent_id, "key": key},
        lambda carried: MemoryValue(value=carried["value"], version=int(carried["version"])),
    )


class _Absent(Exchange[Any]):
    """A question to which "there is none" is an answer."""

    def answered(self, name: str, carried: Any) -> Any:
        if name == "Error" and isinstance(carried, Mapping) and carried.get("code") == "key_not_found":
            return None
        return super().answered(name, carried)


def memory_write(
    agent_id: str, key: str, value: Any, *, ttl_secs: int | None, expected_version: int | None
) -> Exchange[int]:
    """Keep a value; answered with its version."""
    fields = {"agent_id": agent_id, "key": key, "value": value, "ttl_secs": ttl_secs}
    if expected_version is None:
        return Exchange("MemoryWrite", fields, lambda carried: int(carried["version"]))
    fields["expected_version"] = expected_version
    return Exchange("MemoryWriteCas", fields, lambda carried: int(carried["version"]))


def spawn_child(
    agent_id: str, *, name: str | None, manifest_yaml: str | None, task: str | None, cap_override: Sequence[str] | None
) -> Exchange[str]:
    """Start another agent below this one; answered with its id."""
    fields: dict[str, Any] = {
        "calling_agent_id": agent_id,
        "task_override": task,
        "cap_override": None if cap_override is None else list(cap_override),
    }
    if name is not None:
        return Exchange("SpawnChildAgentByName", {**fields, "name": name}, _spawned)
    return Exchange("SpawnChildAgent", {**fields, "manifest_yaml": manifest_yaml}, _spawned)


def grant_capability(agent_id: str, child_id: str, capability: str, expires_at: str | None) -> Exchange[str]:
    """Give a child one of this agent's capabilities; answered with the grant's id."""
    fields = {"grantor_id": agent_id, "agent_id": child_id, "capability": capability, "expires_at": expires_at}
    return Exchange("GrantCapability", fields, lambda carried: str(carried["grant_id"]))


def request_capability(agent_id: str, capability: str, reason: str, ttl_secs: int | None) -> Exchange[str]:
    """Ask whoever stands above for a capability; answered with the request's id."""
    fields = {"agent_id": agent_id, "capability": capability, "reason": reason, "ttl_secs": ttl_secs}
    return Exchange("RequestCapability", fields, lambda carried: str(carried["escalation_id"]))


def pending_escalations(agent_id: str) -> Exchange[list[dict[str, Any]]]:
    """Ask what children want this agent to decide; what it asked for itself is not among it."""

    def read(carried: Any) -> list[dict[str, Any]]:
        return [one for one in carried["escalations"] if one["to_agent_id"] == agent_id]

    return Exchange("EscalationList", {"agent_id": agent_id}, read)


def bus_publish(agent_id: str, topic: str, payload: Any) -> Exchange[None]:
    """Send a message to whoever listens to a topic."""
    return Exchange("BusPublish", {"agent_id": agent_id, "topic": topic, "payload": payload}, _nothing)


def bus_subscribe(agent_id: str, pattern: str) -> Exchange[None]:
    """Listen to topics; ``*`` is one segment, ``**`` any number."""
    return Exchange("BusSubscribe", {"agent_id": agent_id, "pattern": pattern}, _nothing)


def bus_poll(agent_id: str) -> Exchange[list[dict[str, Any]]]:
    """Take the messages that have come."""
    return Exchange("BusPoll", {"agent_id": agent_id}, lambda carried: list(carried["messages"]))


def set_result(agent_id: str, result: Any) -> Exchange[None]:
    """Hand back what the agent was started for."""
    return Exchange("ResultSet", {"agent_id": agent_id, "result": result}, _nothing)


def _nothing(_carried: Any) -> None:
    return None


def _spawned(carried: Any) -> str:
    return str(carried["agent_id"])

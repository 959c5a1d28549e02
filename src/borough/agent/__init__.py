"""For authors of agents: a small client of ``agentd``, with nothing but the standard library.

An agent that was started by ``agentd`` finds everything in its environment::

    from borough.agent import Agent

    with Agent.from_env() as agent:
        agent.transition("plan")
        agent.plan(["read the notes", "write a summary"])
        agent.transition("act")
        notes = agent.invoke_tool("fs.read", {"path": "/workspace/notes.txt"})
        agent.transition("observe")
        agent.observe("fs.read", f"{notes['size']} bytes", tags=["notes"])
        agent.finish({"summary": notes["content"][:80]})

``AsyncAgent`` has the same methods for programs on asyncio. An agent in a machine has no socket: where the environment
names ``BOROUGH_URL`` and ``BOROUGH_KEY``, the same questions go to the gateway over HTTP.
"""

from borough.agent.asynchronous import AsyncAgent
from borough.agent.errors import (
    AgentError,
    Denied,
    EnvMissing,
    InvalidTransition,
    NotFound,
    ProtocolError,
    SocketError,
    ToolFailed,
)
from borough.agent.exchanges import MemoryValue, PlanStep, ToolInfo
from borough.agent.synchronous import Agent

__all__ = [
    "Agent",
    "AgentError",
    "AsyncAgent",
    "Denied",
    "EnvMissing",
    "InvalidTransition",
    "MemoryValue",
    "NotFound",
    "PlanStep",
    "ProtocolError",
    "SocketError",
    "ToolFailed",
    "ToolInfo",
]

"""Where the courses of agents are kept."""

from collections.abc import Callable, Mapping
from typing import Protocol

from borough.core.ids import AgentId
from borough.governance.courses import Course


class Courses(Protocol):
    """The courses of agents; one that was never changed is ``Course()``. Reading costs no I/O."""

    async def get(self, agent_id: AgentId) -> Course:
        """Return an agent's course, as it is on disk."""

    async def all(self) -> Mapping[AgentId, Course]:
        """Return every course that was ever changed and not forgotten."""

    async def change(self, agent_id: AgentId, change: Callable[[Course], Course]) -> Course:
        """Replace an agent's course by what ``change`` makes of it, in one step; return once it is on disk.

        What ``change`` raises goes on, and nothing changed then.
        """

    async def forget(self, agent_id: AgentId) -> None:
        """Drop an agent's course; idempotent."""

"""What a test does not need of the outside: reaching for it is a mistake in the test."""

from collections.abc import Mapping

from borough.core.ids import AgentId
from borough.governance.tools import Tool


class Absent:
    """No outside at all: nothing is attached, and nothing else can be called."""

    async def attached(self, _agent_id: AgentId) -> Mapping[str, tuple[Tool, ...]]:
        return {}

    async def withheld(self, _agent_id: AgentId) -> Mapping[str, tuple[Tool, ...]]:
        return {}

"""What was agreed to of MCP servers' tools."""

from collections.abc import Mapping

import apsw
import orjson

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance.rows import json_text, row, rows
from borough.core.ids import AgentId

_SAVE = """
  INSERT INTO tool_pins (agent_id, server, pins) VALUES (?, ?, ?)
  ON CONFLICT (agent_id, server) DO UPDATE SET pins = excluded.pins
"""


class SqlToolPins:
    """Pins of tools' descriptions, by agent and server, by the server's own names for its tools."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, agent_id: AgentId, server: str) -> Mapping[str, str] | None:
        """Return the pins of an agent's server; ``None`` when it was never attached."""
        found = await self._database.read(
            lambda connection: row(
                connection, "SELECT pins FROM tool_pins WHERE agent_id = ? AND server = ?", (agent_id, server)
            )
        )
        return None if found is None else orjson.loads(found[0])

    async def save(self, agent_id: AgentId, server: str, pins: Mapping[str, str]) -> None:
        """Store the pins over earlier ones."""

        def step(connection: apsw.Connection) -> None:
            rows(connection, _SAVE, (agent_id, server, json_text(dict(pins))))

        await self._database.write(step)

"""Installed agents."""

import apsw

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance.rows import Row, row, rows
from borough.core.clock import from_ms, to_ms
from borough.core.errors import NotFound
from borough.governance.ports.register import InstalledAgent

_COLUMNS = "name, version, manifest_yaml, install_dir, installed_at_ms"
_INSTALL = f"INSERT OR REPLACE INTO installed_agents ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)"
_SELECT = f"SELECT {_COLUMNS} FROM installed_agents"


class SqlAgentStore:
    """The port ``AgentStore``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def install(self, agent: InstalledAgent) -> None:
        """Store an agent, over an older one of its name."""
        values = (agent.name, agent.version, agent.manifest_yaml, agent.install_dir, to_ms(agent.installed_at))
        await self._database.write(lambda connection: rows(connection, _INSTALL, values))

    async def get(self, name: str) -> InstalledAgent:
        """Return one."""
        found = await self._database.read(lambda connection: row(connection, f"{_SELECT} WHERE name = ?", (name,)))
        if found is None:
            raise _not_found(name)
        return _installed(found)

    async def all(self) -> tuple[InstalledAgent, ...]:
        """Return every one, by name."""
        found = await self._database.read(lambda connection: rows(connection, f"{_SELECT} ORDER BY name"))
        return tuple(map(_installed, found))

    async def remove(self, name: str) -> None:
        """Forget one."""

        def step(connection: apsw.Connection) -> None:
            if row(connection, "DELETE FROM installed_agents WHERE name = ? RETURNING name", (name,)) is None:
                raise _not_found(name)

        await self._database.write(step)


def _installed(stored: Row) -> InstalledAgent:
    name, version, manifest_yaml, install_dir, installed_at_ms = stored
    return InstalledAgent(
        name=name,
        version=version,
        manifest_yaml=manifest_yaml,
        install_dir=install_dir,
        installed_at=from_ms(installed_at_ms),
    )


def _not_found(name: str) -> NotFound:
    return NotFound(
        f"no agent {name!r} is installed",
        code="agent_not_installed",
        resolution="list those that are: ash agent list",
    )

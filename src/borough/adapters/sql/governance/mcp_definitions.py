"""Definitions of MCP servers."""

import apsw
import orjson

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance.rows import Row, json_text, places, row, rows
from borough.core.errors import Conflict, NotFound
from borough.governance.manifests import McpServer, Transport

_COLUMNS = "name, transport, command, args, url, env_template, description"
_ADD = f"INSERT INTO mcp_servers ({_COLUMNS}) VALUES ({places(_COLUMNS)})"
_SELECT = f"SELECT {_COLUMNS} FROM mcp_servers"


class SqlMcpDefinitions:
    """The port ``McpDefinitions``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, server: McpServer) -> None:
        """Store a definition."""

        def step(connection: apsw.Connection) -> None:
            known = row(connection, f"{_SELECT} WHERE name = ?", (server.name,))
            if known is None:
                rows(connection, _ADD, _values(server))
            elif _server(known) != server:
                raise Conflict(
                    f"there is another MCP server {server.name!r} already",
                    code="mcp_exists",
                    resolution="choose another name, or remove that one first",
                )

        await self._database.write(step)

    async def get(self, name: str) -> McpServer:
        """Return one."""
        found = await self._database.read(lambda connection: row(connection, f"{_SELECT} WHERE name = ?", (name,)))
        if found is None:
            raise _not_found(name)
        return _server(found)

    async def all(self) -> tuple[McpServer, ...]:
        """Return every one, by name."""
        found = await self._database.read(lambda connection: rows(connection, f"{_SELECT} ORDER BY name"))
        return tuple(map(_server, found))

    async def remove(self, name: str) -> None:
        """Forget one."""

        def step(connection: apsw.Connection) -> None:
            if row(connection, "DELETE FROM mcp_servers WHERE name = ? RETURNING name", (name,)) is None:
                raise _not_found(name)

        await self._database.write(step)


def _values(server: McpServer) -> Row:
    return (
        server.name,
        server.transport,
        server.command,
        json_text(server.args),
        server.url,
        json_text(server.env_template),
        server.description,
    )


def _server(stored: Row) -> McpServer:
    name, transport, command, args, url, env_template, description = stored
    return McpServer(
        name=name,
        transport=Transport(transport),
        command=command,
        args=tuple(orjson.loads(args)),
        url=url,
        env_template=tuple((variable, value) for variable, value in orjson.loads(env_template)),
        description=description,
    )


def _not_found(name: str) -> NotFound:
    return NotFound(
        f"there is no MCP server {name!r}", code="mcp_not_found", resolution="list those that are there: ash mcp list"
    )

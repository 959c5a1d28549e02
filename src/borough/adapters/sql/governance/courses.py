"""The courses of agents, each one JSON text, all kept in memory too."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Self

import apsw
import msgspec

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance.following import Following
from borough.adapters.sql.governance.rows import row, rows
from borough.core.ids import AgentId
from borough.governance.courses import Course

_PUT = "INSERT INTO courses VALUES (?, ?) ON CONFLICT (agent_id) DO UPDATE SET course = excluded.course"
_DECODER = msgspec.json.Decoder(Course)
_UNCHANGED = Course()


class SqlCourses:
    """The port ``Courses``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._courses: dict[AgentId, Course] = {}
        self._changes: Following[tuple[AgentId, Course | None]] = Following(self._follow, reload=_every)

    @classmethod
    async def open(cls, database: Database) -> Self:
        """Return the store with every course in memory."""
        courses = cls(database)
        database.follow(courses._changes)
        for change in await database.read(_every):
            courses._follow(change)
        return courses

    async def get(self, agent_id: AgentId) -> Course:
        """Return an agent's course, as it is on disk."""
        return self._courses.get(agent_id, _UNCHANGED)

    async def all(self) -> Mapping[AgentId, Course]:
        """Return every course that was ever changed and not forgotten."""
        return MappingProxyType(dict(self._courses))

    async def change(self, agent_id: AgentId, change: Callable[[Course], Course]) -> Course:
        """Replace an agent's course by what ``change`` makes of it."""

        def step(connection: apsw.Connection) -> Course:
            stored = row(connection, "SELECT course FROM courses WHERE agent_id = ?", (agent_id,))
            changed = change(_UNCHANGED if stored is None else _DECODER.decode(stored[0]))
            rows(connection, _PUT, (agent_id, msgspec.json.encode(changed).decode()))
            self._changes.note((agent_id, changed))
            return changed

        return await self._database.write(step)

    async def forget(self, agent_id: AgentId) -> None:
        """Drop an agent's course."""

        def step(connection: apsw.Connection) -> None:
            rows(connection, "DELETE FROM courses WHERE agent_id = ?", (agent_id,))
            self._changes.note((agent_id, None))

        await self._database.write(step)

    def _follow(self, change: tuple[AgentId, Course | None]) -> None:
        agent_id, course = change
        if course is None:
            self._courses.pop(agent_id, None)
        else:
            self._courses[agent_id] = course


def _every(connection: apsw.Connection) -> list[tuple[AgentId, Course | None]]:
    stored = rows(connection, "SELECT agent_id, course FROM courses")
    return [(AgentId(agent_id), _DECODER.decode(text)) for agent_id, text in stored]

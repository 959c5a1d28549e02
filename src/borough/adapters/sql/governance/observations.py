"""Observations: one chain an agent, found again by time, tag and words."""

from datetime import datetime
from typing import Final

import apsw
import orjson

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance.rows import Row, json_text, places, row, rows
from borough.core.clock import from_ms, to_ms
from borough.core.errors import Conflict
from borough.core.ids import AgentId
from borough.governance.observations import (
    GENESIS_HASH,
    NewObservation,
    Observation,
    ObservationFilter,
    chained,
    matches,
)

_COLUMNS: Final = "id, agent_id, at_ms, action, result, tags, metadata, prev_hash, hash"
_ADD: Final = f"INSERT INTO observations ({_COLUMNS}) VALUES ({places(_COLUMNS)}) RETURNING number"
_LAST: Final = """
  SELECT at_ms, hash FROM observations WHERE agent_id = ? ORDER BY at_ms DESC, number DESC LIMIT 1
"""
_SHORTEST_WORD: Final = 3
"""Shorter parts are not in the index (sqlite.org/fts5.html, the trigram tokenizer)."""


class SqlObservations:
    """The port ``Observations``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, agent_id: AgentId, new: NewObservation, *, id: str, at: datetime) -> Observation:  # noqa: A002 - the field's name
        """Bind ``new`` to the agent's last observation and store it, in one step."""

        def step(connection: apsw.Connection) -> Observation:
            known = row(connection, f"SELECT {_COLUMNS} FROM observations WHERE id = ?", (id,))
            if known is not None:
                return _same(_observation(known), agent_id)
            last_ms, prev_hash = row(connection, _LAST, (agent_id,)) or (0, GENESIS_HASH)
            # Whole milliseconds are what is stored, and so what the hash is made of.
            moment = from_ms(max(to_ms(at), last_ms))
            observation = chained(new, id=id, agent_id=agent_id, at=moment, prev_hash=prev_hash)
            _store(connection, observation)
            return observation

        return await self._database.write(step)

    async def find(self, agent_id: AgentId, wanted: ObservationFilter) -> tuple[Observation, ...]:
        """Return the newest wanted observations, oldest first."""
        statement, values = _query(agent_id, wanted)

        def step(connection: apsw.Connection) -> list[Observation]:
            found: list[Observation] = []
            for stored in connection.execute(statement, values):
                observation = _observation(stored)
                # The index finds candidates; the rule has the last word.
                if matches(observation, wanted):
                    found.append(observation)
                    if len(found) >= wanted.limit:
                        break
            return found

        return tuple(reversed(await self._database.read(step) if wanted.limit > 0 else []))


def _query(agent_id: AgentId, wanted: ObservationFilter) -> tuple[str, Row]:
    """Return what reads candidates through the narrowest index, the newest first."""
    since_ms = 0 if wanted.since is None else to_ms(wanted.since)
    until_ms = 2**62 if wanted.until is None else to_ms(wanted.until)
    columns = ", ".join(f"o.{column}" for column in _COLUMNS.split(", "))
    word = (wanted.keyword or "").casefold()
    within = "o.agent_id = ? AND o.at_ms BETWEEN ? AND ?"
    if len(word) >= _SHORTEST_WORD and "\0" not in word:
        source = "observation_words CROSS JOIN observations AS o ON o.number = observation_words.rowid"
        quoted = '"' + word.replace('"', '""') + '"'
        where = f"observation_words MATCH ? AND {within} ORDER BY observation_words.rowid DESC"
        return f"SELECT {columns} FROM {source} WHERE {where}", (quoted, agent_id, since_ms, until_ms)
    if wanted.tag is not None:
        source = "observation_tags AS t CROSS JOIN observations AS o ON o.number = t.number"
        where = "t.agent_id = ? AND t.tag = ? AND t.at_ms BETWEEN ? AND ? ORDER BY t.at_ms DESC, t.number DESC"
        return f"SELECT {columns} FROM {source} WHERE {where}", (agent_id, wanted.tag, since_ms, until_ms)
    where = f"{within} ORDER BY o.at_ms DESC, o.number DESC"
    return f"SELECT {columns} FROM observations AS o WHERE {where}", (agent_id, since_ms, until_ms)


def _store(connection: apsw.Connection, observation: Observation) -> None:
    number = rows(connection, _ADD, _values(observation))[0][0]
    at_ms = to_ms(observation.at)
    for tag in dict.fromkeys(observation.tags):
        rows(connection, "INSERT INTO observation_tags VALUES (?, ?, ?, ?)", (observation.agent_id, tag, at_ms, number))
    words = (_folded(observation.action), _folded(observation.result))
    rows(connection, "INSERT INTO observation_words (rowid, action, result) VALUES (?, ?, ?)", (number, *words))


def _folded(text: str) -> str:
    # The index might end at a NUL; no keyword that has one is looked up there.
    return text.casefold().replace("\0", "\n")


def _same(known: Observation, agent_id: AgentId) -> Observation:
    if known.agent_id != agent_id:
        raise Conflict(
            f"another agent's observation has the id {known.id}",
            code="observation_exists",
            resolution="append it under an id of its own",
        )
    return known


def _values(observation: Observation) -> Row:
    metadata = observation.metadata
    return (
        observation.id,
        observation.agent_id,
        to_ms(observation.at),
        observation.action,
        observation.result,
        json_text(observation.tags),
        None if metadata is None else json_text(dict(metadata)),
        observation.prev_hash,
        observation.hash,
    )


def _observation(stored: Row) -> Observation:
    id_, agent_id, at_ms, action, result, tags, metadata, prev_hash, hash_ = stored
    return Observation(
        id=id_,
        agent_id=AgentId(agent_id),
        at=from_ms(at_ms),
        action=action,
        result=result,
        tags=tuple(orjson.loads(tags)),
        metadata=None if metadata is None else orjson.loads(metadata),
        prev_hash=prev_hash,
        hash=hash_,
    )

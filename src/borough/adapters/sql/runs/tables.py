"""The tables of the runs' file, ``runs.db``. What was released is never changed, only followed.

Moments are whole milliseconds since the epoch; a run is JSON text, what is searched by has columns beside it.
"""

from typing import Final

from borough.adapters.sql.engine import Migration

_RUNS: Final = (
    """
    CREATE TABLE runs (
      number INTEGER PRIMARY KEY AUTOINCREMENT,
      id TEXT NOT NULL UNIQUE,
      state TEXT NOT NULL,
      agent_id TEXT NOT NULL,
      settled INTEGER NOT NULL,
      labels TEXT NOT NULL,
      revision INTEGER NOT NULL,
      document TEXT NOT NULL
    ) STRICT
    """,
    "CREATE INDEX runs_unsettled ON runs (number) WHERE settled = 0",
    "CREATE INDEX runs_of_agent ON runs (agent_id)",
    "CREATE INDEX runs_in_state ON runs (state, number)",
    """
    CREATE TABLE events (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      at_ms INTEGER NOT NULL,
      type TEXT NOT NULL,
      message TEXT NOT NULL,
      subjects TEXT NOT NULL
    ) STRICT
    """,
)

_ENDS: Final = (
    "ALTER TABLE runs ADD COLUMN ended_at_ms INTEGER",
    "CREATE INDEX runs_ended ON runs (ended_at_ms) WHERE settled = 1",
)

RUNS: Final = (Migration(number=1, statements=_RUNS), Migration(number=2, statements=_ENDS))
"""Of the runs' file."""

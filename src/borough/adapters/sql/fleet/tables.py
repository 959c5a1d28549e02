"""The tables of the fleet's two files, as they became what they are. What was released is never changed, only followed.

Moments are whole milliseconds since the epoch; what has a shape of its own (a machine's spec, a host's report) is JSON
text of the value.
"""

from typing import Final

from borough.adapters.sql.engine import Migration

_ENVIRONMENTS: Final = (
    """
    CREATE TABLE hosts (
      number INTEGER PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      addr TEXT NOT NULL UNIQUE,
      report TEXT NOT NULL,
      state TEXT NOT NULL,
      registered_at_ms INTEGER NOT NULL,
      heard_at_ms INTEGER NOT NULL,
      labels TEXT NOT NULL,
      cordoned INTEGER NOT NULL,
      draining INTEGER NOT NULL,
      error TEXT,
      revision INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE environments (
      id TEXT NOT NULL PRIMARY KEY,
      owner TEXT NOT NULL,
      created_at_ms INTEGER NOT NULL,
      expires_at_ms INTEGER NOT NULL,
      on_expiry TEXT NOT NULL,
      labels TEXT NOT NULL,
      deleting INTEGER NOT NULL,
      stopped_at_ms INTEGER,
      private_network INTEGER NOT NULL,
      revision INTEGER NOT NULL,
      warned_of_ms INTEGER
    ) STRICT
    """,
    """
    CREATE TABLE vms (
      number INTEGER PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      env_id TEXT NOT NULL REFERENCES environments (id),
      host_id TEXT NOT NULL REFERENCES hosts (id),
      spec TEXT NOT NULL,
      state TEXT NOT NULL,
      desired TEXT NOT NULL,
      created_at_ms INTEGER NOT NULL,
      since_ms INTEGER,
      ip TEXT,
      port_map TEXT NOT NULL,
      error TEXT,
      disk_enforced INTEGER NOT NULL,
      revision INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX vms_of_environment ON vms (env_id)",
    "CREATE INDEX vms_of_host ON vms (host_id)",
)

_HISTORY: Final = (
    """
    CREATE TABLE operations (
      number INTEGER PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      kind TEXT NOT NULL,
      subject TEXT NOT NULL,
      state TEXT NOT NULL,
      started_at_ms INTEGER NOT NULL,
      ended_at_ms INTEGER,
      total INTEGER NOT NULL,
      done INTEGER NOT NULL,
      errors TEXT NOT NULL,
      warnings TEXT NOT NULL
    ) STRICT
    """,
    "CREATE INDEX operations_running ON operations (number) WHERE state = 'running'",
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

_ACCESS: Final = (
    "CREATE TABLE host_credentials (host_id TEXT NOT NULL PRIMARY KEY, credential TEXT NOT NULL) STRICT",
    """
    CREATE TABLE replies (
      key TEXT NOT NULL PRIMARY KEY,
      fingerprint TEXT NOT NULL,
      status INTEGER,
      content_type TEXT NOT NULL,
      body BLOB NOT NULL,
      expires_at_ms INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX replies_expiry ON replies (expires_at_ms)",
)

_TRUST: Final = (
    """
    CREATE TABLE host_trust (
      host_id TEXT NOT NULL PRIMARY KEY,
      addr TEXT NOT NULL,
      credential TEXT NOT NULL,
      fingerprint TEXT
    ) STRICT
    """,
    """
    INSERT INTO host_trust SELECT hosts.id, hosts.addr, host_credentials.credential, NULL
      FROM host_credentials JOIN hosts ON hosts.id = host_credentials.host_id
    """,
    "DROP TABLE host_credentials",
)

_WAITING: Final = (
    """
    CREATE TABLE waiting (
      number INTEGER PRIMARY KEY AUTOINCREMENT,
      env_id TEXT NOT NULL UNIQUE REFERENCES environments (id),
      document TEXT NOT NULL
    ) STRICT
    """,
)

_ARGUMENTS: Final = ("ALTER TABLE operations ADD COLUMN arguments TEXT NOT NULL DEFAULT '{}'",)

_FACTS: Final = (
    "CREATE TABLE facts (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT",
    "INSERT INTO facts VALUES ('store_id', lower(hex(randomblob(16))))",
)

CONTROLLER: Final = (
    Migration(number=1, statements=_ENVIRONMENTS),
    Migration(number=2, statements=_HISTORY),
    Migration(number=3, statements=_ACCESS),
    Migration(number=4, statements=_TRUST),
    Migration(number=5, statements=_WAITING),
    Migration(number=6, statements=_ARGUMENTS),
    Migration(number=7, statements=_FACTS),
)
"""Of the controller's file, ``ctl.db``."""

_MACHINES: Final = (
    "CREATE TABLE facts (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT",
    """
    CREATE TABLE machines (
      number INTEGER PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      env_id TEXT NOT NULL,
      spec TEXT NOT NULL,
      state TEXT NOT NULL,
      desired TEXT NOT NULL,
      created_at_ms INTEGER NOT NULL,
      since_ms INTEGER,
      ip TEXT NOT NULL UNIQUE,
      error TEXT,
      disk_enforced INTEGER NOT NULL,
      revision INTEGER NOT NULL,
      step TEXT NOT NULL,
      private_network INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE lent_ports (
      host_port INTEGER PRIMARY KEY,
      machine_id TEXT NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
      guest_port INTEGER NOT NULL,
      UNIQUE (machine_id, guest_port)
    ) STRICT
    """,
    "CREATE TABLE barred (id TEXT NOT NULL PRIMARY KEY, at_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE INDEX barred_at ON barred (at_ms)",
    "CREATE TABLE controllers (digest TEXT NOT NULL PRIMARY KEY, joined_at_ms INTEGER NOT NULL) STRICT",
)

HOST: Final = (Migration(number=1, statements=_MACHINES),)
"""Of a host's file, ``agent.db``."""

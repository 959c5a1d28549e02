"""The tables of governance's stores, as they became what they are. What was released is never changed, only followed.

Moments are whole milliseconds since the epoch, ids are text, lists and objects are JSON text.
"""

from typing import Final

from borough.adapters.sql.engine import Migration
from borough.adapters.sql.ledger_lease import TABLES as LEDGER_WRITER
from borough.adapters.sql.ledger_tables import TABLES as LEDGER

_REGISTER: Final = (
    """
    CREATE TABLE agents (
      id TEXT NOT NULL PRIMARY KEY,
      run_id TEXT NOT NULL,
      name TEXT NOT NULL,
      version TEXT NOT NULL,
      manifest_digest TEXT NOT NULL,
      trust_level TEXT NOT NULL,
      phase TEXT NOT NULL,
      phase_since_ms INTEGER NOT NULL,
      status TEXT NOT NULL,
      spawned_at_ms INTEGER NOT NULL,
      run_started_at_ms INTEGER NOT NULL,
      parent_id TEXT,
      depth INTEGER NOT NULL,
      restarts INTEGER NOT NULL,
      task TEXT,
      model TEXT,
      tainted INTEGER NOT NULL,
      calls_limit INTEGER,
      tokens_limit INTEGER,
      cost_micros_limit INTEGER,
      wall_time_s_limit INTEGER,
      calls INTEGER NOT NULL,
      tokens INTEGER NOT NULL,
      cost_micros INTEGER NOT NULL,
      wall_time_s INTEGER NOT NULL,
      ended_at_ms INTEGER,
      exit_code INTEGER,
      last_error TEXT,
      result TEXT
    ) STRICT
    """,
    "CREATE INDEX agents_ended ON agents (ended_at_ms) WHERE ended_at_ms IS NOT NULL",
    # Apart from the agents, so that counting a call does not write a whole manifest again.
    "CREATE TABLE manifests (agent_id TEXT NOT NULL PRIMARY KEY, yaml TEXT NOT NULL) STRICT",
    """
    CREATE TABLE grants (
      number INTEGER PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      agent_id TEXT NOT NULL,
      capability TEXT NOT NULL,
      granted_by TEXT NOT NULL,
      granted_at_ms INTEGER NOT NULL,
      expires_at_ms INTEGER,
      revoked_at_ms INTEGER,
      revoked_by TEXT
    ) STRICT
    """,
    "CREATE INDEX grants_of ON grants (agent_id)",
    """
    CREATE TABLE installed_agents (
      name TEXT NOT NULL PRIMARY KEY,
      version TEXT NOT NULL,
      manifest_yaml TEXT NOT NULL,
      install_dir TEXT NOT NULL,
      installed_at_ms INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE mcp_servers (
      name TEXT NOT NULL PRIMARY KEY,
      transport TEXT NOT NULL,
      command TEXT,
      args TEXT NOT NULL,
      url TEXT,
      env_template TEXT NOT NULL,
      description TEXT
    ) STRICT
    """,
)

_TOOLS: Final = (
    """
    CREATE TABLE approvals (
      number INTEGER PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      agent_id TEXT NOT NULL,
      tool TEXT NOT NULL,
      call_digest TEXT NOT NULL,
      shown TEXT NOT NULL,
      rule TEXT NOT NULL,
      submitted_at_ms INTEGER NOT NULL,
      expires_at_ms INTEGER NOT NULL,
      state TEXT NOT NULL,
      needed INTEGER NOT NULL,
      approved_by TEXT NOT NULL,
      decided_by TEXT,
      decided_at_ms INTEGER
    ) STRICT
    """,
    "CREATE INDEX approvals_waiting ON approvals (number) WHERE state = 'Pending'",
    "CREATE INDEX approvals_of ON approvals (agent_id)",
    """
    CREATE TABLE proposals (
      number INTEGER PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      agent_id TEXT NOT NULL,
      tool TEXT NOT NULL,
      implementation TEXT NOT NULL,
      created_at_ms INTEGER NOT NULL,
      state TEXT NOT NULL,
      decided_by TEXT,
      decided_at_ms INTEGER,
      everywhere INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX proposals_in ON proposals (state, number)",
)

_RECORDS: Final = (
    # The value comes last, so that a look at the rest of the row does not read it.
    """
    CREATE TABLE memory (
      namespace TEXT NOT NULL,
      key TEXT NOT NULL,
      version INTEGER NOT NULL,
      updated_at_ms INTEGER NOT NULL,
      expires_at_ms INTEGER,
      value TEXT NOT NULL,
      UNIQUE (namespace, key)
    ) STRICT
    """,
    "CREATE INDEX memory_expiry ON memory (expires_at_ms) WHERE expires_at_ms IS NOT NULL",
    "CREATE INDEX memory_expiry_in ON memory (namespace, expires_at_ms) WHERE expires_at_ms IS NOT NULL",
    "CREATE TABLE memory_sizes (namespace TEXT NOT NULL PRIMARY KEY, keys INTEGER NOT NULL) STRICT",
    """
    CREATE TRIGGER memory_grows AFTER INSERT ON memory BEGIN
      INSERT INTO memory_sizes VALUES (new.namespace, 1)
        ON CONFLICT (namespace) DO UPDATE SET keys = keys + 1;
    END
    """,
    """
    CREATE TRIGGER memory_shrinks AFTER DELETE ON memory BEGIN
      UPDATE memory_sizes SET keys = keys - 1 WHERE namespace = old.namespace;
    END
    """,
    """
    CREATE TABLE observations (
      number INTEGER PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      agent_id TEXT NOT NULL,
      at_ms INTEGER NOT NULL,
      action TEXT NOT NULL,
      result TEXT NOT NULL,
      tags TEXT NOT NULL,
      metadata TEXT,
      prev_hash TEXT NOT NULL,
      hash TEXT NOT NULL
    ) STRICT
    """,
    "CREATE INDEX observations_of ON observations (agent_id, at_ms, number)",
    """
    CREATE TABLE observation_tags (
      agent_id TEXT NOT NULL,
      tag TEXT NOT NULL,
      at_ms INTEGER NOT NULL,
      number INTEGER NOT NULL,
      PRIMARY KEY (agent_id, tag, at_ms, number)
    ) STRICT, WITHOUT ROWID
    """,
    # Finds parts of words; holds no second copy of the texts, which are folded in case before they come here.
    """
    CREATE VIRTUAL TABLE observation_words USING fts5 (
      action, result, content = '', tokenize = 'trigram case_sensitive 1'
    )
    """,
)

_SECRETS: Final = (
    """
    CREATE TABLE kdf_params (
      only INTEGER PRIMARY KEY CHECK (only = 1),
      algorithm TEXT NOT NULL,
      memory_kib INTEGER NOT NULL,
      passes INTEGER NOT NULL,
      lanes INTEGER NOT NULL,
      salt BLOB NOT NULL,
      check_nonce BLOB NOT NULL,
      check_value BLOB NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE secrets (
      name TEXT NOT NULL PRIMARY KEY,
      description TEXT,
      nonce BLOB NOT NULL,
      sealed BLOB NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE secret_policies (
      number INTEGER PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      label TEXT NOT NULL,
      secret TEXT NOT NULL,
      tool TEXT NOT NULL,
      host TEXT,
      agents TEXT NOT NULL,
      expires_at_ms INTEGER,
      max_uses INTEGER,
      use_count INTEGER NOT NULL,
      created_by TEXT NOT NULL
    ) STRICT
    """,
)

_COURSES: Final = ("CREATE TABLE courses (agent_id TEXT NOT NULL PRIMARY KEY, course TEXT NOT NULL) STRICT",)

_ESCALATIONS: Final = (
    """
    CREATE TABLE escalations (
      number INTEGER PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      from_agent_id TEXT NOT NULL,
      to_agent_id TEXT,
      kind TEXT NOT NULL,
      detail TEXT NOT NULL,
      created_at_ms INTEGER NOT NULL,
      capability TEXT,
      ttl_s INTEGER,
      state TEXT NOT NULL,
      passed_by TEXT NOT NULL,
      resolved_by TEXT,
      resolved_at_ms INTEGER
    ) STRICT
    """,
    "CREATE INDEX escalations_open ON escalations (number) WHERE state = 'open'",
    """
    CREATE TABLE tool_pins (
      agent_id TEXT NOT NULL,
      server TEXT NOT NULL,
      pins TEXT NOT NULL,
      PRIMARY KEY (agent_id, server)
    ) STRICT, WITHOUT ROWID
    """,
)

_INTAKE: Final = ("CREATE TABLE intake (source TEXT NOT NULL PRIMARY KEY, position TEXT NOT NULL) STRICT",)

MIGRATIONS: Final = (
    Migration(number=1, statements=LEDGER),
    Migration(number=2, statements=_REGISTER),
    Migration(number=3, statements=_TOOLS),
    Migration(number=4, statements=_RECORDS),
    Migration(number=5, statements=_SECRETS),
    Migration(number=6, statements=_COURSES),
    Migration(number=7, statements=_ESCALATIONS),
    Migration(number=8, statements=_INTAKE),
    Migration(number=9, statements=LEDGER_WRITER),
)
"""The ledger is in the same file, so that a call's entry and its charge are flushed together."""

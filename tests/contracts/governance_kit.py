"""Governance's stores to open and open again, and values to put into them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance.sealing import KdfParams
from borough.adapters.sql.governance.secrets import SqlSecrets
from borough.adapters.sql.governance.stores import GovernanceStores, open_stores
from borough.adapters.sql.governance.tables import MIGRATIONS
from borough.core.ids import AgentId, new_id
from borough.governance.agents import GovernedAgent
from borough.governance.lifecycle import Phase, Status
from borough.governance.trust import TrustLevel

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MANIFEST = """\
apiVersion: scarab/v1
kind: AgentManifest
metadata: {name: reader, version: 1.2.3}
spec:
  trust_level: trusted
  capabilities: ["fs.read:/workspace/**"]
"""


class House:
    """The stores of one file, and the file."""

    database: Database
    stores: GovernanceStores

    def __init__(self, path: Path) -> None:
        self.path = path

    async def open(self) -> None:
        self.database = await Database.open(self.path, MIGRATIONS)
        self.stores = await open_stores(self.database)

    async def close(self) -> None:
        await self.database.close()

    async def reopen(self) -> GovernanceStores:
        await self.close()
        await self.open()
        return self.stores

    def quick_secrets(self) -> SqlSecrets:
        """A store whose key takes a moment only: what Argon2id costs is not what these tests are about."""
        return SqlSecrets(self.database, params=lambda: KdfParams(memory_kib=64, passes=1, lanes=1))

    def bytes_on_disk(self) -> bytes:
        return b"".join(each.read_bytes() for each in sorted(self.path.parent.iterdir()))


def new_agent(**other: Any) -> GovernedAgent:
    agent = GovernedAgent(
        id=AgentId(new_id()),
        run_id=new_id(),
        name="reader",
        version="1.2.3",
        manifest_digest="d" * 64,
        trust_level=TrustLevel.TRUSTED,
        phase=Phase.INIT,
        status=Status.RUNNING,
        spawned_at=NOON,
        run_started_at=NOON,
    )
    return replace(agent, **other)

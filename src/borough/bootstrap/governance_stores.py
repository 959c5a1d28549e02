"""Governance's files, opened together and closed in the opposite order."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from borough.adapters.boards import Boards
from borough.adapters.bus import ProcessBus
from borough.adapters.sql.engine import Database
from borough.adapters.sql.governance import tables
from borough.adapters.sql.governance.intake import SqlIntake
from borough.adapters.sql.governance.stores import GovernanceStores, open_stores
from borough.adapters.sql.ledger import SqlLedger
from borough.adapters.sql.tokens import SqlTokens
from borough.config.governance import GovernanceSettings
from borough.core.errors import Conflict

STORE_FILE = "governance.db"
"""The ledger and everything that governance keeps: one writer, and one flush for all that waits together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Everything that is kept."""

    ledger: SqlLedger
    tokens: SqlTokens
    kept: GovernanceStores
    intake: SqlIntake
    board: Boards
    bus: ProcessBus


@asynccontextmanager
async def open_governance_stores(settings: GovernanceSettings) -> AsyncIterator[Stores]:
    """Open the data folder's file and the tokens' one.

    Raises:
        Conflict: one is another process's, not private, or broken.
        Unavailable: one cannot be read or written.
    """
    async with AsyncExitStack() as undo:
        database = await Database.open(settings.data_folder / STORE_FILE, tables.MIGRATIONS)
        undo.push_async_callback(database.close)
        ledger = await SqlLedger.open(database, sign_after_s=settings.checkpoint_every_s, shared=settings.shares_ledger)
        undo.push_async_callback(ledger.close)
        tokens = await _open_tokens(settings.token_db)
        undo.push_async_callback(tokens.close)
        yield Stores(
            ledger=ledger,
            tokens=tokens,
            kept=await open_stores(database),
            intake=SqlIntake(database, ledger),
            board=Boards(),
            bus=ProcessBus(),
        )


async def _open_tokens(file: Path) -> SqlTokens:
    """Open the tokens; their default file is in a folder that all share, so who is refused it is told the way out."""
    try:
        return await SqlTokens.open(file)
    except Conflict as refusal:
        refusal.resolution = f"{refusal.resolution}; or name another file in AGENTD_API_TOKEN_DB"
        raise

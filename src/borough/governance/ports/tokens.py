"""The gateway's tokens."""

from datetime import datetime
from typing import Protocol

from borough.governance.tokens import ApiToken, StreamTicket


class Tokens(Protocol):
    """The gateway's tokens."""

    async def add(self, token: ApiToken) -> None:
        """Store a new token; raises ``Conflict`` (``token_exists``) when its name is taken."""

    async def by_digest(self, digest: str) -> ApiToken | None:
        """Return the token with this SHA-256, current or previous, revoked ones too."""

    async def get(self, name: str) -> ApiToken:
        """Return a token by its name; raises ``NotFound`` (``token_not_found``)."""

    async def all(self) -> tuple[ApiToken, ...]:
        """Return every token that was not revoked, oldest first."""

    async def replace(self, token: ApiToken) -> None:
        """Store a changed token over the one of its name; in force when this returns, for every reader."""

    async def used(self, name: str, *, at: datetime) -> None:
        """Note that a token was used; may be written together with later ones."""

    async def keep_ticket(self, ticket: StreamTicket) -> None:
        """Keep a stream ticket until it expires."""

    async def take_ticket(self, digest: str, *, at: datetime) -> StreamTicket | None:
        """Return a ticket and forget it; a second taker, or one too late, gets ``None``."""

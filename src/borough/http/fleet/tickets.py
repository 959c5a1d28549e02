"""Tickets: what lets a browser open a stream or a terminal, since it cannot send the key's header there.

They are kept in memory: each opens one thing, soon, on the server that gave it.
"""

import secrets
import time
from collections import OrderedDict

from msgspec import Struct

from borough.auth.principals import Principal
from borough.core.errors import Forbidden
from borough.http.fleet.dialect import KEY_REFUSED, Envelope, data
from borough.http.operations import Access, Answer, Call, Operation

LIFETIME_S = 30
MOST = 1024
"""Of tickets that nobody has used; the oldest gives way."""


class StreamTicket(Struct, kw_only=True):
    """Opens one stream or terminal, once: ``?ticket=…``."""

    ticket: str
    expires_in_secs: int


class Tickets:
    """The tickets that were given out and not yet used."""

    def __init__(self, *, lifetime_s: float = LIFETIME_S, most: int = MOST) -> None:
        self._lifetime_s = lifetime_s
        self._most = most
        self._given: OrderedDict[str, tuple[Principal, float]] = OrderedDict()

    def give(self, principal: Principal) -> StreamTicket:
        """Return a ticket that stands for ``principal``."""
        while len(self._given) >= self._most:
            self._given.popitem(last=False)
        word = secrets.token_urlsafe(32)
        self._given[word] = principal, time.monotonic() + self._lifetime_s
        return StreamTicket(ticket=word, expires_in_secs=int(self._lifetime_s))

    async def take(self, word: str, _client_host: str) -> Principal:
        """Return whom a ticket stands for, which is good for nothing afterwards.

        Raises:
            Forbidden: it is none, or too old (``invalid_credentials``).
        """
        principal, until = self._given.pop(word, (None, 0.0))
        if principal is None or time.monotonic() > until:
            raise Forbidden(KEY_REFUSED, code="invalid_credentials", resolution="ask for another ticket")
        return principal


async def give(call: Call) -> object:
    return data(call.state.tickets.give(call.principal))


OPERATIONS = (
    Operation(
        method="POST",
        path="/api/stream-tickets",
        handler=give,
        access=Access.CALLER,
        summary="A ticket for one stream or terminal, for browsers, which cannot send the header",
        tag="fleet",
        secret_answer=True,
        answers=(Answer(status=201, body=Envelope[StreamTicket], description="send it as the parameter `ticket`"),),
    ),
)

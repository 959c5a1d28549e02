"""Keys of the gateway: made, listed, rotated, revoked; who presents one; tickets for streams."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from borough.core.clock import rfc3339, utc_now
from borough.core.errors import Forbidden, NotFound
from borough.core.ids import AgentId
from borough.governance.access import Verb
from borough.governance.actions import Action
from borough.governance.ledger import Via
from borough.governance.ports.register import Agents
from borough.governance.ports.tokens import Tokens
from borough.governance.services.asking import Asker
from borough.governance.services.gate import Gate
from borough.governance.services.recording import Recorder
from borough.governance.tokens import (
    ROLE_SCOPES,
    TICKET_LIFETIME,
    TOKEN_BYTES,
    ApiToken,
    Caller,
    Role,
    TokenScope,
    caller_of,
    format_token,
    is_token,
    is_valid,
    new_token,
    revoke,
    rotate,
    ticket,
    token_sha256,
)

CHECKED_EVERY_S = 30.0
"""How often an open stream asks whether its key still holds, beside being told of revocations at once."""
USE_NOTED_EVERY = timedelta(minutes=1)
LONGEST_OVERLAP = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key that was made. ``token`` is shown once and cannot be had again."""

    token: str = field(repr=False)
    stored: ApiToken
    warning: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTicket:
    """A word that opens one stream once."""

    word: str = field(repr=False)
    expires_at: datetime


class TokenService:
    """Keys and tickets. ``random_bytes`` has to be fit for secrets."""

    def __init__(
        self, tokens: Tokens, agents: Agents, gate: Gate, recorder: Recorder, *, random_bytes: Callable[[int], bytes]
    ) -> None:
        self._tokens = tokens
        self._agents = agents
        self._gate = gate
        self._recorder = recorder
        self._random_bytes = random_bytes
        self.live: list[Callable[[Caller], bool]] = []
        """Each tells whether a key that is in order may be used now, of those that it knows of; it only looks at what
        is in memory. What lives no longer than a lease ends with it, whether or not it was revoked yet."""
        self._use_noted: dict[str, datetime] = {}
        self._watched: dict[str, set[asyncio.Event]] = {}

    # -- who presents one ----------------------------------------------------------------------------------------------

    async def authenticate(self, token: str) -> Caller:
        """Return for whom a key speaks. Costs no I/O where the port keeps keys in memory.

        Raises:
            Forbidden: for nobody (``invalid_credentials``); why, is not told.
        """
        now = utc_now()
        digest = token_sha256(token) if is_token(token) else ""
        stored = await self._tokens.by_digest(digest) if digest else None
        caller = caller_of(stored, digest, at=now) if stored else None
        if caller is None or not all(is_live(caller) for is_live in self.live):
            raise Forbidden(
                "unauthorized",
                code="invalid_credentials",
                resolution="send a key as 'Authorization: Bearer <token>'; make one: ash api-key create",
            )
        noted = self._use_noted.get(caller.token_name)
        if noted is None or now - noted >= USE_NOTED_EVERY:
            self._use_noted[caller.token_name] = now
            await self._tokens.used(caller.token_name, at=now)
        return caller

    async def new_ticket(self, asker: Asker) -> NewTicket:
        """Return a ticket with which a browser opens one stream as the caller.

        Raises:
            Forbidden: the caller may not read events.
        """
        await self._gate.admit(asker, Verb.READ_EVENTS)
        now = utc_now()
        word = format_token(self._random_bytes(TOKEN_BYTES))
        await self._tokens.keep_ticket(ticket(word, asker.caller, at=now))
        return NewTicket(word=word, expires_at=now + TICKET_LIFETIME)

    async def take_ticket(self, word: str) -> Caller | None:
        """Return for whom a ticket speaks, once; ``None`` when it is none, too old, or its key holds no more."""
        now = utc_now()
        if not is_token(word):
            return None
        taken = await self._tokens.take_ticket(token_sha256(word), at=now)
        if taken is None or not (taken.caller.is_unbound or await self._holds(taken.caller, since=now)):
            return None
        return taken.caller

    async def ended(self, asker: Asker) -> None:
        """Return when the caller's key holds no more: at once when it is revoked, soon when it expires.

        After a rotation with an overlap, every stream that was opened before its end is ended with it.
        """
        gone = asyncio.Event()
        if asker.caller.is_unbound or asker.via not in {Via.HTTP, Via.MCP}:
            await gone.wait()  # no key is behind it: there is nothing that could end
        since = utc_now()
        watched = self._watched.setdefault(asker.caller.token_name, set())
        watched.add(gone)
        try:
            while not gone.is_set() and await self._holds(asker.caller, since=since):
                await _wait(gone, await self._pause(asker.caller))
        finally:
            watched.discard(gone)
            if not watched:
                self._watched.pop(asker.caller.token_name, None)

    async def _holds(self, caller: Caller, *, since: datetime) -> bool:
        now = utc_now()
        try:
            stored = await self._tokens.get(caller.token_name)
        except NotFound:
            return False
        rotated_out = stored.previous_until is not None and since < stored.previous_until <= now
        if not all(is_live(caller) for is_live in self.live):
            return False
        same = (stored.agent_id, stored.role, stored.scopes) == (caller.agent_id, caller.role, caller.scopes)
        return same and is_valid(stored, at=now) and not rotated_out

    async def _pause(self, caller: Caller) -> float:
        """Return how long to wait before looking again: no longer than the key lasts."""
        try:
            stored = await self._tokens.get(caller.token_name)
        except NotFound:
            return 0.0
        ends = [moment for moment in (stored.expires_at, stored.previous_until) if moment is not None]
        left = [(moment - utc_now()).total_seconds() for moment in ends]
        return min([CHECKED_EVERY_S, *(seconds + 0.001 for seconds in left if seconds > 0)])

    # -- management ----------------------------------------------------------------------------------------------------

    async def create(
        self,
        asker: Asker,
        *,
        name: str,
        agent_id: str,
        role: Role = Role.OPERATOR,
        scopes: Iterable[TokenScope] | None = None,
        expires_at: datetime | None = None,
    ) -> NewKey:
        """Make a key that speaks for an agent, which need not exist yet.

        Raises:
            Forbidden: the caller may not, or would hand on more than it has (``scope_escalation``).
            Invalid: name, agent, scopes or expiry cannot be used.
            Conflict: the name is taken (``token_exists``).
        """
        await self._gate.admit(asker, Verb.MANAGE_TOKENS)
        token = format_token(self._random_bytes(TOKEN_BYTES))
        wanted = frozenset(scopes) if scopes is not None else _handed_on(asker.caller, role)
        stored = new_token(
            name=name, agent_id=agent_id, token=token, at=utc_now(), role=role, scopes=wanted, expires_at=expires_at
        )
        _check_handed_on(asker.caller, stored)
        async with self._recorder.act(asker, Action.API_KEY_CREATE, detail=_told(stored)):
            await self._tokens.add(stored)
        return NewKey(token=token, stored=stored, warning=await self._warning(stored.agent_id))

    async def all(self, asker: Asker) -> tuple[ApiToken, ...]:
        """Return every key that was not revoked, oldest first."""
        await self._gate.admit(asker, Verb.MANAGE_TOKENS)
        return await self._tokens.all()

    async def rotate(self, asker: Asker, name: str, *, overlap: timedelta) -> NewKey:
        """Give a key another token; the old one holds for ``overlap`` still.

        Raises:
            NotFound: there is no such key (``token_not_found``).
            Conflict: it holds no more (``token_not_valid``).
            Forbidden: it may more than the caller (``scope_escalation``).
        """
        await self._gate.admit(asker, Verb.MANAGE_TOKENS)
        before = await self._tokens.get(name)
        _check_handed_on(asker.caller, before)
        token = format_token(self._random_bytes(TOKEN_BYTES))
        stored = rotate(before, token=token, at=utc_now(), overlap=min(overlap, LONGEST_OVERLAP))
        async with self._recorder.act(asker, Action.API_KEY_ROTATE, detail=_told(stored)):
            await self._tokens.replace(stored)
        if stored.previous_until is None:
            self._end_streams(name)
        return NewKey(token=token, stored=stored)

    async def revoke(self, asker: Asker, name: str) -> None:
        """Revoke a key, for good; it holds no more when this returns, on open streams neither.

        Raises:
            NotFound: there is no such key (``token_not_found``).
        """
        await self._gate.admit(asker, Verb.MANAGE_TOKENS)
        before = await self._tokens.get(name)
        if before.revoked_at is not None:
            raise NotFound(
                f"there is no key {name!r}", code="token_not_found", resolution="list the keys: ash api-key list"
            )
        async with self._recorder.act(asker, Action.API_KEY_REVOKE, detail=_told(before)):
            await self._tokens.replace(revoke(before, at=utc_now()))
        self._end_streams(name)
        self._use_noted.pop(name, None)

    def _end_streams(self, name: str) -> None:
        for gone in self._watched.get(name, ()):
            gone.set()

    async def _warning(self, agent_id: AgentId) -> str | None:
        try:
            await self._agents.get(agent_id)
        except NotFound:
            return f"no agent {agent_id} is known: until there is one, the key holds no agent's capabilities"
        return None


async def _wait(gone: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await gone.wait()
    except TimeoutError:
        return  # the caller looks whether the key still holds


def _handed_on(caller: Caller, role: Role) -> frozenset[TokenScope]:
    return ROLE_SCOPES[role] if caller.is_unbound else ROLE_SCOPES[role] & caller.scopes


def _check_handed_on(caller: Caller, stored: ApiToken) -> None:
    beyond = frozenset() if caller.is_unbound else stored.scopes - caller.scopes
    if beyond:
        raise Forbidden(
            "a key cannot make one that may more than itself",
            code="scope_escalation",
            reason=f"the key {caller.token_name!r} lacks {', '.join(sorted(beyond))}",
            resolution="leave those scopes out, or use a key that has them",
        )


def _told(stored: ApiToken) -> str:
    until = "" if stored.expires_at is None else f" until {rfc3339(stored.expires_at)}"
    return f"{stored.name} for {stored.agent_id} as {stored.role.value}{until}"

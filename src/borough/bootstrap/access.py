"""Who may call: the verifiers that the town's mode needs, and a record of those who were turned away."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import structlog

from borough.auth.principals import Principal
from borough.auth.tokens import SignedTokens
from borough.config.safety import api_keys
from borough.config.sections import AuthSection
from borough.core.errors import BoroughError
from borough.http.auth import Authenticator, BearerVerifier, LoginFailure, OperatorVerifier
from borough.town.ports.events import Events

log = structlog.get_logger(__name__)

Authenticate = Callable[[Mapping[str, str], str], Awaitable[Principal]]


class EventSink(Protocol):
    """Where an event is written that belongs to no other change."""

    async def append(self, event_type: str, message: str, subjects: Mapping[str, str]) -> object:
        """Write it."""


class EventNotes:
    """Writes events of requests that are not made to wait for it, and lets no flood of them grow."""

    def __init__(self, events: EventSink, *, at_most: int = 64) -> None:
        self._events = events
        self._at_most = at_most
        self._writing: set[asyncio.Task[None]] = set()

    def note(self, event_type: str, message: str, subjects: Mapping[str, str]) -> None:
        """Begin to write an event."""
        if len(self._writing) < self._at_most:
            task = asyncio.get_running_loop().create_task(self._write(event_type, message, subjects))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def _write(self, event_type: str, message: str, subjects: Mapping[str, str]) -> None:
        try:
            await self._events.append(event_type, message, subjects)
        except BoroughError as error:
            log.warning("event.not_recorded", type=event_type, error=error.message)


class LoginRecorder:
    """Writes refused logins as events."""

    def __init__(self, notes: EventNotes, *, event_type: str = "login_refused") -> None:
        self._notes = notes
        self._event_type = event_type

    def __call__(self, failure: LoginFailure) -> None:
        """Take note of ``failure``."""
        log.warning("login.refused", address=failure.client_host, kind=failure.kind, code=failure.code)
        self._notes.note(
            self._event_type,
            f"a request from {failure.client_host} was not let in: {failure.message}",
            {"reason": failure.code, "by": f"{failure.kind}@{failure.client_host}"},
        )


def authenticator(
    auth: AuthSection, *, tokens: SignedTokens, operator: OperatorVerifier, events: Events
) -> Authenticate:
    """Return what turns a request's headers into a principal."""
    return Authenticator(
        mode=auth.mode,
        workers=tokens,
        operator=operator,
        verifier=_verifier(auth),
        on_failure=LoginRecorder(EventNotes(events)),
    )


def _verifier(auth: AuthSection) -> BearerVerifier | None:
    # Each mode's libraries are imported where it is in force: a town without keys starts in half the time.
    if auth.mode == "api_key":
        from borough.adapters.credentials.argon2 import ArgonKeys  # noqa: PLC0415 - see above

        keys = api_keys(auth)
        return ArgonKeys(keys) if keys else None
    if auth.mode == "oidc" and auth.issuer:
        from borough.adapters.credentials.oidc import OidcTokens  # noqa: PLC0415 - see above

        return OidcTokens(
            issuer=auth.issuer,
            audience=auth.audience,
            jwks_url=auth.jwks_url,
            required_scopes=auth.required_scopes,
            clock_skew_s=auth.clock_skew_seconds,
            algorithms=auth.algorithms,
        )
    return None

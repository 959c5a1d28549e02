"""Signing in: an address with a code, which the page exchanges, once, for a session of its own."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Protocol

from msgspec import Meta, Struct

from borough.auth.credentials import LONGEST_CREDENTIAL, presented
from borough.auth.principals import Principal
from borough.core.clock import rfc3339
from borough.core.errors import Forbidden
from borough.http.auth import OPERATOR
from borough.http.operations import Access, Answer, Call, Operation, Reply


class SessionKeeper(Protocol):
    """Keeps codes and sessions."""

    def matches(self, secret: str) -> bool:
        """Tell whether ``secret`` is the operator's, or a session."""

    def until(self, secret: str) -> datetime | None:
        """Return when a session ends; ``None``: it is none."""

    def new_code(self) -> tuple[str, int]:
        """Return a code for one exchange, and for how many seconds it is good."""

    def exchange(self, code: str) -> tuple[str, datetime]:
        """Return a session's secret and when it ends; raises ``Forbidden`` (``invalid_code``)."""

    def end(self, secret: str) -> None:
        """End a session."""


class SignInCode(Struct, kw_only=True):
    """A code for one exchange. The page takes it from the fragment of its address: ``/#code=…``."""

    code: str
    expires_in_secs: int


class SignIn(Struct, kw_only=True, forbid_unknown_fields=True):
    code: Annotated[str, Meta(min_length=1, max_length=128)]


class Session(Struct, kw_only=True):
    """A session: send its token as the header ``Authorization: Bearer …``."""

    token: str
    expires_at: str


class SessionState(Struct, kw_only=True):
    """What the credential of the request is."""

    kind: str
    """``session`` or ``operator``."""
    expires_at: str | None


class OperatorOnly:
    """Lets in the operator, by the credential in the server's folder or by a session."""

    def __init__(self, keeper: SessionKeeper) -> None:
        self._keeper = keeper

    async def __call__(self, headers: Mapping[str, str], _client_host: str) -> Principal:
        """Return the operator.

        Raises:
            Forbidden: no credential came (``authentication_required``), or it is not the operator's
                (``invalid_credentials``).
        """
        came = presented(headers)
        if came is None:
            raise Forbidden(
                "this is the operator's",
                code="authentication_required",
                resolution="sign in with the address that 'borough open' prints",
            )
        if len(came.secret) > LONGEST_CREDENTIAL or not self._keeper.matches(came.secret):
            raise Forbidden(
                "this session is over, or never was",
                code="invalid_credentials",
                resolution="sign in with the address that 'borough open' prints",
            )
        return OPERATOR


async def code(call: Call) -> SignInCode:
    made, lifetime_s = _keeper(call).new_code()
    return SignInCode(code=made, expires_in_secs=lifetime_s)


async def sign_in(call: Call) -> Session:
    secret, end = _keeper(call).exchange(call.body.code)
    return Session(token=secret, expires_at=rfc3339(end))


async def state(call: Call) -> SessionState:
    end = _keeper(call).until(_secret(call))
    if end is None:
        return SessionState(kind="operator", expires_at=None)
    return SessionState(kind="session", expires_at=rfc3339(end))


async def sign_out(call: Call) -> Reply:
    _keeper(call).end(_secret(call))
    return Reply(status=204)


def _keeper(call: Call) -> SessionKeeper:
    keeper: SessionKeeper = call.state
    return keeper


def _secret(call: Call) -> str:
    came = presented(call.headers)
    return "" if came is None else came.secret


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/sign-in-codes",
        handler=code,
        access=Access.CALLER,
        summary="A code that lets a browser in, once",
        tag="sessions",
        secret_answer=True,
        answers=(Answer(status=201, body=SignInCode, description="open /#code=… with it"),),
    ),
    Operation(
        method="POST",
        path="/v1/sessions",
        handler=sign_in,
        access=Access.PUBLIC,
        summary="Exchange a code for a session",
        tag="sessions",
        body=SignIn,
        secret_answer=True,
        answers=(Answer(status=201, body=Session, description="the session; its token is told only here"),),
        errors={"invalid_code": 403},
    ),
    Operation(
        method="GET",
        path="/v1/sessions/current",
        handler=state,
        access=Access.CALLER,
        summary="What the credential of this request is",
        tag="sessions",
        answers=(Answer(status=200, body=SessionState, description="it is good"),),
    ),
    Operation(
        method="DELETE",
        path="/v1/sessions/current",
        handler=sign_out,
        access=Access.CALLER,
        summary="End the session of this request",
        tag="sessions",
        ends=True,
        answers=(Answer(status=204, body=None, description="it is over; the operator's own credential is not"),),
    ),
)

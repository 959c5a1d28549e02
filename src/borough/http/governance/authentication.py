"""Who is calling the gateway: a token, the operator's own credential, or a ticket for one stream.

Whatever is wrong with a credential, the answer is the same: it must not tell a guess from an old key.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from borough.auth.principals import Principal
from borough.core.errors import Forbidden
from borough.governance.tokens import OPERATOR, Caller, is_token
from borough.http.auth import OPERATOR_PREFIX, OperatorVerifier


class TokenVerifier(Protocol):
    """Knows the gateway's tokens and tickets."""

    async def authenticate(self, token: str) -> Caller:
        """Return whom ``token`` speaks for; raises ``Forbidden`` (``invalid_credentials``), whatever is wrong."""

    async def take_ticket(self, word: str) -> Caller | None:
        """Return whose ticket ``word`` is, once; ``None`` when it is nobody's (any more)."""


OnFailure = Callable[[str, str], None]
"""Told of each refusal: the address, and ``absent``, ``malformed``, ``token``, ``operator`` or ``ticket``."""


class GatewayAuthenticator:
    """Turns a request's headers (or its ticket) into a principal."""

    def __init__(self, *, tokens: TokenVerifier, operator: OperatorVerifier, on_failure: OnFailure) -> None:
        """``on_failure`` is called once a refusal, at once and without waiting: it may only take note."""
        self._tokens = tokens
        self._operator = operator
        self._on_failure = on_failure

    async def __call__(self, headers: Mapping[str, str], address: str) -> Principal:
        """Return who calls; names in ``headers`` are in lower case.

        Raises:
            Forbidden: no credential came (``authentication_required``), or one that is not good
                (``invalid_credentials``).
            Unavailable: it cannot be told now.
        """
        secret = bearer(headers.get("authorization", ""))
        if secret is None:
            self._on_failure(address, "absent")
            raise refused("authentication_required")
        kind = _kind(secret)
        try:
            return principal_of(await self._caller(kind, secret))
        except Forbidden:
            self._on_failure(address, kind)
            raise refused("invalid_credentials") from None

    async def by_ticket(self, word: str, address: str) -> Principal:
        """Return whose ticket ``word`` is, once; raises as a call does."""
        caller = await self._tokens.take_ticket(word) if is_token(word) else None
        if caller is None:
            self._on_failure(address, "ticket")
            raise refused("invalid_credentials")
        return principal_of(caller)

    async def _caller(self, kind: str, secret: str) -> Caller:
        if kind == "token":
            return await self._tokens.authenticate(secret)
        if kind == "operator" and self._operator.matches(secret):
            return OPERATOR
        raise refused("invalid_credentials")


def bearer(authorization: str) -> str | None:
    """Return what follows the scheme ``Bearer`` (in any case, RFC 9110 §11.1); ``None`` for another scheme."""
    scheme, _, secret = authorization.strip().partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None


def principal_of(caller: Caller) -> Principal:
    """Return the principal that stands for ``caller``: it has no scopes of the town's."""
    name = "operator" if caller.is_unbound else f"key:{caller.token_name}"
    return Principal(id=name, scopes=frozenset(), caller=caller)


def refused(code: str) -> Forbidden:
    """Return the one refusal that there is; ``code`` is for the throttle, and is not told."""
    return Forbidden(
        "unauthorized",
        code=code,
        reason="there is no valid credential in the request",
        resolution="send the header 'Authorization: Bearer <token>'; make a token with: ash api-key create",
    )


def _kind(secret: str) -> str:
    if secret.startswith(OPERATOR_PREFIX):
        return "operator"
    return "token" if is_token(secret) else "malformed"

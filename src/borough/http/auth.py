"""Who is calling: the one place where a request's credential becomes a principal."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from borough.auth.credentials import LONGEST_CREDENTIAL, Presented, presented
from borough.auth.machines import check_credential, is_machines
from borough.auth.principals import LOCAL, Principal
from borough.auth.scopes import ALL_SCOPES
from borough.auth.tokens import is_worker_token
from borough.core.errors import Forbidden

Mode = Literal["none", "api_key", "oidc"]

OPERATOR = Principal(id="operator", scopes=ALL_SCOPES)
"""Who can read the operator's file on the server's machine."""
OPERATOR_PREFIX = "bop_"


class BearerVerifier(Protocol):
    """Verifies what the town's mode asks for: API keys, or an issuer's tokens."""

    async def verify(self, secret: str) -> Principal:
        """Return whose it is.

        Raises:
            Forbidden: nobody's (``invalid_credentials``), or not enough (``insufficient_scope``).
            Unavailable: it cannot be told now.
        """


class WorkerVerifier(Protocol):
    """Verifies workers' tokens."""

    def verify(self, token: str) -> Principal:
        """Return whom ``token`` speaks for; raises ``Forbidden`` (``invalid_credentials``)."""


class OperatorVerifier(Protocol):
    """Knows the operator's credential."""

    def matches(self, secret: str) -> bool:
        """Tell whether ``secret`` is it, in a time that tells nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginFailure:
    """A request that was not let in. The credential itself is not in it."""

    client_host: str
    kind: Literal["absent", "api_key", "oidc", "worker", "operator"]
    code: str
    message: str


class Authenticator:
    """Turns a request's headers into a principal; workers and the operator are known in every mode."""

    def __init__(
        self,
        *,
        mode: Mode,
        workers: WorkerVerifier,
        operator: OperatorVerifier,
        verifier: BearerVerifier | None,
        on_failure: Callable[[LoginFailure], None],
    ) -> None:
        """``verifier`` is ``None`` in mode none, and where the mode lacks a key or an issuer.

        ``on_failure`` is called once a refusal, at once and without waiting: it may only take note.
        """
        self._mode: Mode = mode
        self._workers = workers
        self._operator = operator
        self._verifier = verifier
        self._on_failure = on_failure

    async def __call__(self, headers: Mapping[str, str], client_host: str) -> Principal:
        """Return who calls. Names in ``headers`` are in lower case, or the mapping does not mind.

        Raises:
            Forbidden: a credential is needed and none came (``authentication_required``), or the one that came is
                not good (``invalid_credentials``, ``insufficient_scope``).
            Unavailable: it cannot be told now.
        """
        came = presented(headers)
        try:
            return await self._principal(came, from_machine=is_machines(headers.get("host")))
        except Forbidden as refusal:
            kind = "absent" if came is None else self._kind(came.secret)
            self._on_failure(
                LoginFailure(client_host=client_host, kind=kind, code=refusal.code, message=refusal.message)
            )
            raise

    async def _principal(self, came: Presented | None, *, from_machine: bool) -> Principal:
        if came is None:
            if self._mode == "none":
                return _local(came, from_machine=from_machine)
            raise self._required()
        if len(came.secret) > LONGEST_CREDENTIAL:
            raise self._refused()
        kind = self._kind(came.secret)
        if kind == "worker":
            return self._workers.verify(came.secret)
        if kind == "operator":
            if self._operator.matches(came.secret):
                return OPERATOR
            raise self._refused()
        if self._mode == "none":
            # Clients that carry a key from elsewhere are as welcome as those that carry none.
            return _local(came, from_machine=from_machine)
        if self._verifier is None:
            raise self._required()
        return await self._verifier.verify(came.secret)

    def _kind(self, secret: str) -> Literal["api_key", "oidc", "worker", "operator"]:
        if is_worker_token(secret):
            return "worker"
        if secret.startswith(OPERATOR_PREFIX):
            return "operator"
        return "oidc" if self._mode == "oidc" else "api_key"

    def _required(self) -> Forbidden:
        if self._mode == "oidc":
            how = "send a token of the issuer as 'Authorization: Bearer <token>'"
        else:
            how = "send a key as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'"
        if self._verifier is None:
            lacks = "townhall.auth.issuer" if self._mode == "oidc" else "an API key (tt auth gen-key)"
            how = f"nobody can log in until the server's tinytown.toml has {lacks}"
        return Forbidden("Authentication required", code="authentication_required", resolution=how)

    def _refused(self) -> Forbidden:
        return Forbidden(
            "Invalid credentials",
            code="invalid_credentials",
            resolution="check the key; on the server's own machine, tt finds the present one by itself",
        )


def _local(came: Presented | None, *, from_machine: bool) -> Principal:
    """Return whom mode none takes a caller for; raises ``Forbidden`` for whoever is in a machine."""
    if from_machine:
        check_credential(has_one=came is not None)
    return LOCAL

"""Who may call a controller or a host daemon: whoever has its key, or its operator's credential."""

from collections.abc import Callable, Mapping

from borough.auth.credentials import LONGEST_CREDENTIAL, presented, same_secret
from borough.auth.machines import check_credential, is_machines
from borough.auth.principals import LOCAL, Principal
from borough.auth.scopes import ALL_SCOPES
from borough.core.errors import Forbidden
from borough.http.auth import OPERATOR, LoginFailure, OperatorVerifier
from borough.http.fleet.dialect import KEY_REFUSED

KEY_HOLDER = Principal(id="api_key", scopes=ALL_SCOPES)
JOINED = Principal(id="controller", scopes=ALL_SCOPES)


class KeyAuthenticator:
    """Lets in by one key. Without a key everybody is let in: such a server listens on loopback only."""

    def __init__(
        self,
        key: str | None,
        *,
        operator: OperatorVerifier,
        joined: Callable[[str], bool] = lambda _secret: False,
        closed: bool = False,
        on_failure: Callable[[LoginFailure], None] = lambda _failure: None,
    ) -> None:
        """``joined`` knows credentials that were given out; ``closed`` demands one also where there is no key.

        ``on_failure`` is called once a refusal, without waiting: it may only take note.
        """
        self._key = key
        self._operator = operator
        self._joined = joined
        self._open = key is None and not closed
        self._on_failure = on_failure

    async def __call__(self, headers: Mapping[str, str], client_host: str) -> Principal:
        """Return who calls.

        Raises:
            Forbidden: a key is needed and none came (``authentication_required``), or not this one
                (``invalid_credentials``).
        """
        try:
            return self._principal(headers)
        except Forbidden as refusal:
            self._on_failure(
                LoginFailure(
                    client_host=client_host,
                    kind="absent" if refusal.code == "authentication_required" else "api_key",
                    code=refusal.code,
                    message=refusal.message,
                )
            )
            raise

    def _principal(self, headers: Mapping[str, str]) -> Principal:
        came = presented(headers)
        if self._open:
            if is_machines(headers.get("host")):
                check_credential(has_one=came is not None)
            return LOCAL
        if came is None:
            raise Forbidden(KEY_REFUSED, code="authentication_required", resolution="send Authorization: Bearer <key>")
        if len(came.secret) <= LONGEST_CREDENTIAL:
            if self._key is not None and same_secret(came.secret, self._key):
                return KEY_HOLDER
            if self._operator.matches(came.secret):
                return OPERATOR
            if self._joined(came.secret):
                return JOINED
        raise Forbidden(KEY_REFUSED, code="invalid_credentials", resolution="check the key")

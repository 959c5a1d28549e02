"""How controllers become known to a host: a token in a private file, good once, for a credential of their own."""

import hashlib
import secrets
from pathlib import Path
from typing import Final, Protocol

from borough.adapters.credentials import files
from borough.auth.credentials import same_secret
from borough.core.clock import utc_now
from borough.core.errors import Forbidden, Invalid, NotFound
from borough.fleet.trust import TOKEN_LIFETIME, JoinToken, parse_join_token

TOKEN_FILE: Final = "join.token"  # noqa: S105 - a file's name
ADDRESS_FILE: Final = "join.address"
_TOKEN_BYTES: Final = 32
_CREDENTIAL_PREFIX: Final = "bhc_"


class Controllers(Protocol):
    """Digests of credentials that were given out."""

    async def add(self, digest: str) -> None:
        """Let whoever has the credential of this digest in from now on."""

    async def all(self) -> frozenset[str]:
        """Return the digests."""


class HostDoor:
    """Gives credentials out and knows them again. Only their digests are kept.

    A credential is good with the certificate that the host had when it gave it out: a host that takes another one, or
    speaks plain HTTP from now on, knows none of the controllers from before.
    """

    def __init__(
        self, folder: Path, controllers: Controllers, known: frozenset[str], *, fingerprint: str | None
    ) -> None:
        """``fingerprint`` is that of the certificate that the host serves with; ``None``: it serves plain HTTP."""
        self._folder = folder
        self._path = folder / TOKEN_FILE
        self._controllers = controllers
        self._known = set(known)
        self._fingerprint = fingerprint

    @classmethod
    async def open(cls, folder: Path, controllers: Controllers, *, fingerprint: str | None = None) -> "HostDoor":
        """Return the door of a host whose private folder this is; a token that is not good now is replaced."""
        door = cls(folder, controllers, await controllers.all(), fingerprint=fingerprint)
        door._renew_if_needed()
        return door

    @property
    def token_file(self) -> Path:
        """Return where the token is."""
        return self._path

    def announce(self, address: str) -> None:
        """Write down under which ``host:port`` controllers are to look for this host."""
        files.replace_file(self._folder / ADDRESS_FILE, f"{address}\n".encode(), mode=files.PRIVATE)

    def knows(self, secret: str) -> bool:
        """Tell whether ``secret`` is a credential that was given out."""
        return secret.startswith(_CREDENTIAL_PREFIX) and self._digest(secret) in self._known

    async def join(self, token: str) -> str:
        """Return a credential for whoever has the host's join token; the token is another one afterwards."""
        wanted = files.private_content(self._path, self._fresh).decode().strip()
        if not same_secret(token, wanted):
            raise Forbidden(
                "this is not the host's join token",
                code="token_refused",
                reason="it is good once",
                resolution="get another on the host: tt-agent --invite prints it",
            )
        expired = self._lacks(wanted)
        files.replace_file(self._path, self._fresh(), mode=files.PRIVATE)
        if expired is not None:
            raise Forbidden(
                "this join token is not good any more",
                code="token_expired",
                reason=expired,
                resolution="get another on the host: tt-agent --invite prints it",
            )
        credential = f"{_CREDENTIAL_PREFIX}{secrets.token_urlsafe(_TOKEN_BYTES)}"
        digest = self._digest(credential)
        await self._controllers.add(digest)
        self._known.add(digest)
        return credential

    def _renew_if_needed(self) -> None:
        content = files.private_content(self._path, self._fresh)
        if self._lacks(content.decode("ascii", "replace").strip()) is not None:
            files.replace_file(self._path, self._fresh(), mode=files.PRIVATE)

    def _lacks(self, text: str) -> str | None:
        """Return why a token that was written here is not good now."""
        try:
            token = parse_join_token(text)
        except Invalid as error:
            return error.message
        if token.fingerprint != self._fingerprint:
            return "it was made for another certificate"
        if token.expires_at <= utc_now():
            return f"it was good until {token.expires_at:%Y-%m-%d %H:%M} UTC"
        return None

    def _digest(self, secret: str) -> str:
        bound = secret if self._fingerprint is None else f"{secret} {self._fingerprint}"
        return hashlib.sha256(bound.encode("utf-8", "surrogatepass")).hexdigest()

    def _fresh(self) -> bytes:
        return _line(fresh_token(self._fingerprint))


def fresh_token(fingerprint: str | None) -> JoinToken:
    """Return a new token of a host whose certificate has this fingerprint."""
    secret = secrets.token_urlsafe(_TOKEN_BYTES)
    return JoinToken(secret=secret, expires_at=utc_now() + TOKEN_LIFETIME, fingerprint=fingerprint)


def invitation(folder: Path) -> tuple[str, JoinToken]:
    """Return the address of the host whose private folder this is, and a new token, which replaces the one before.

    The daemon may run meanwhile; it takes the file for what it says.

    Raises:
        NotFound: no host daemon has used this folder (``host_not_started``).
        Invalid: a file is not safe to use (``unsafe_file``), or damaged (``invalid_join_token``).
    """
    address, before = files.read_private(folder / ADDRESS_FILE), files.read_private(folder / TOKEN_FILE)
    if address is None or before is None:
        raise NotFound(
            f"no host daemon keeps its data in {folder}",
            code="host_not_started",
            resolution="start tt-agent first; or name its folder: --data-dir DIR",
        )
    token = fresh_token(parse_join_token(before.decode("ascii", "replace").strip()).fingerprint)
    files.replace_file(folder / TOKEN_FILE, _line(token), mode=files.PRIVATE)
    return address.decode("ascii", "replace").strip(), token


def _line(token: JoinToken) -> bytes:
    return f"{token.text}\n".encode()

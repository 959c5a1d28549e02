"""How controllers become known to a host: a token in a private file, good once, for a credential of their own."""

import hashlib
import secrets
from pathlib import Path
from typing import Final, Protocol

from borough.adapters.credentials import files
from borough.auth.credentials import same_secret
from borough.core.errors import Forbidden

TOKEN_FILE: Final = "join.token"  # noqa: S105 - a file's name
_TOKEN_BYTES: Final = 32
_CREDENTIAL_PREFIX: Final = "bhc_"


class Controllers(Protocol):
    """Digests of credentials that were given out."""

    async def add(self, digest: str) -> None:
        """Let whoever has the credential of this digest in from now on."""

    async def all(self) -> frozenset[str]:
        """Return the digests."""


class HostDoor:
    """Gives credentials out and knows them again. Only their digests are kept."""

    def __init__(self, folder: Path, controllers: Controllers, known: frozenset[str]) -> None:
        self._path = folder / TOKEN_FILE
        self._controllers = controllers
        self._known = set(known)

    @classmethod
    async def open(cls, folder: Path, controllers: Controllers) -> "HostDoor":
        """Return the door of a host whose private folder this is; its token is made where there is none."""
        door = cls(folder, controllers, await controllers.all())
        files.private_content(door._path, _fresh_token)
        return door

    @property
    def token_file(self) -> Path:
        """Return where the token is."""
        return self._path

    def knows(self, secret: str) -> bool:
        """Tell whether ``secret`` is a credential that was given out."""
        return secret.startswith(_CREDENTIAL_PREFIX) and _digest(secret) in self._known

    async def join(self, token: str) -> str:
        """Return a credential for whoever has the host's join token; the token is another one afterwards."""
        wanted = files.private_content(self._path, _fresh_token).decode().strip()
        if not same_secret(token, wanted):
            raise Forbidden(
                "this is not the host's join token",
                code="token_refused",
                resolution=f"read it on the host: {self._path}; it is good once",
            )
        credential = f"{_CREDENTIAL_PREFIX}{secrets.token_urlsafe(_TOKEN_BYTES)}"
        digest = _digest(credential)
        files.replace_file(self._path, _fresh_token(), mode=files.PRIVATE)
        await self._controllers.add(digest)
        self._known.add(digest)
        return credential


def _fresh_token() -> bytes:
    return f"{secrets.token_urlsafe(_TOKEN_BYTES)}\n".encode()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()

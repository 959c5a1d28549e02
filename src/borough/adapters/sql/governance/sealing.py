"""How secrets are sealed: AES-256-GCM for each value, under a key that Argon2id makes of a passphrase (RFC 9106).

A sealed value is bound to its name, so that two cannot be exchanged in the file.
"""

import os
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from borough.core.errors import Unavailable

ALGORITHM: Final = "argon2id"
MEMORY_KIB: Final = 65_536
PASSES: Final = 3
LANES: Final = 4
"""RFC 9106's second recommended choice, for 64 MiB of memory."""
KEY_BYTES: Final = 32
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12
_CHECK: Final = b"borough secrets check 1"
_SECRET: Final = b"borough secret 1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class KdfParams:
    """How the key is made of the passphrase."""

    memory_kib: int = MEMORY_KIB
    passes: int = PASSES
    lanes: int = LANES
    salt: bytes = field(default_factory=lambda: os.urandom(SALT_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A value that nobody can read without the key."""

    nonce: bytes
    sealed: bytes


class SealingKey:
    """A key in memory, until it is wiped."""

    def __init__(self, passphrase: bytes, params: KdfParams) -> None:
        """Make the key; takes a good part of a second and 64 MiB."""
        self._key = bytearray(KEY_BYTES)
        kdf = Argon2id(
            salt=params.salt,
            length=KEY_BYTES,
            iterations=params.passes,
            lanes=params.lanes,
            memory_cost=params.memory_kib,
        )
        kdf.derive_into(passphrase, self._key)

    def __repr__(self) -> str:
        """Return nothing of the key."""
        return "SealingKey()"

    def wipe(self) -> None:
        """Overwrite the key; it opens and seals nothing from now on."""
        self._key[:] = bytes(KEY_BYTES)
        self._key = bytearray()  # a key of no length is refused, one of zeros would seal

    def check_value(self) -> Sealed:
        """Return what tells later whether a key is this one."""
        return self._seal(b"", _CHECK)

    def made(self, check: Sealed) -> bool:
        """Tell whether this key made ``check``."""
        try:
            return self._open(check, _CHECK) == b""
        except InvalidTag:
            return False

    def seal(self, name: str, value: bytes) -> Sealed:
        """Return ``value`` sealed under ``name``."""
        return self._seal(value, _SECRET + name.encode())

    def open(self, name: str, sealed: Sealed) -> bytes:
        """Return the value that was sealed under ``name``.

        Raises:
            Unavailable: it was changed since then (``secret_damaged``).
        """
        try:
            return self._open(sealed, _SECRET + name.encode())
        except InvalidTag:
            raise Unavailable(
                f"the secret {name!r} was changed outside of this program",
                code="secret_damaged",
                resolution="add it again, and find out who can write the file of the store",
            ) from None

    def _seal(self, value: bytes, bound_to: bytes) -> Sealed:
        nonce = os.urandom(NONCE_BYTES)
        return Sealed(nonce=nonce, sealed=AESGCM(self._key).encrypt(nonce, value, bound_to))

    def _open(self, sealed: Sealed, bound_to: bytes) -> bytes:
        return AESGCM(self._key).decrypt(sealed.nonce, sealed.sealed, bound_to)

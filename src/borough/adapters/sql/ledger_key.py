"""The key that signs checkpoints: a file of one line, owner-only, that says whose it is.

The line is ``PRIVATE+KEY+name+key id+base64``, the form in which signers of notes (c2sp.org/signed-note) commonly keep
an Ed25519 key: one byte for the algorithm and the 32 bytes of the seed.
"""

import base64
import binascii
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from borough.adapters.sql.private_files import private_file
from borough.core.errors import Conflict, Unavailable
from borough.governance.checkpoints import VerifierKey

_PREFIX: Final = "PRIVATE+KEY+"
_ED25519: Final = b"\x01"
_SEED_BYTES: Final = 32
_MOST_BYTES: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """Signs checkpoints; ``verifier`` is what those need who check them."""

    verifier: VerifierKey
    private: Ed25519PrivateKey = field(repr=False)

    def sign(self, text: bytes) -> bytes:
        """Return the signature over ``text``."""
        return self.private.sign(text)


def signing_key(path: Path, *, name: str, may_make: bool) -> SigningKey:
    """Return the key in the file at ``path``; where there is none and ``may_make``, a new one for ``name``.

    Raises:
        Conflict: the file is missing though it signed before (``ledger_key_missing``), holds no key
            (``ledger_key_broken``), or is not private (``store_not_private``).
        Unavailable: it cannot be read or written (``ledger_unavailable``).
    """
    if not may_make and not path.exists():
        raise Conflict(
            f"the key that signs this ledger is missing: {path}",
            code="ledger_key_missing",
            reason="it has signed checkpoints, and a new key would make them unverifiable",
            resolution="put the file back from a backup",
        )
    try:
        descriptor = private_file(path)
        with os.fdopen(descriptor, "r+b") as file:
            line = file.read(_MOST_BYTES)
            if not line and may_make:
                line = _formatted(name, secrets.token_bytes(_SEED_BYTES))
                file.write(line)
                file.flush()
                os.fsync(descriptor)
    except OSError as error:
        raise Unavailable(
            f"the ledger's key {path} cannot be read or written",
            code="ledger_unavailable",
            reason=str(error.strerror),
            resolution="make room and check the folder's owner and mode",
        ) from error
    return _parsed(line, path)


def _formatted(name: str, seed: bytes) -> bytes:
    key_id = _key(name, seed).verifier.key_id.hex()
    return f"{_PREFIX}{name}+{key_id}+{base64.b64encode(_ED25519 + seed).decode()}\n".encode()


def _parsed(line: bytes, path: Path) -> SigningKey:
    try:
        name, key_id, encoded = line.decode().removeprefix(_PREFIX).strip().split("+", 2)
        raw = base64.b64decode(encoded, validate=True)
        key = _key(name, raw[1:])
    except (ValueError, binascii.Error) as error:
        raise _no_key(path) from error
    if raw[:1] != _ED25519 or key.verifier.key_id.hex() != key_id:
        raise _no_key(path)
    return key


def _no_key(path: Path) -> Conflict:
    return Conflict(
        f"{path} holds no key that signs a ledger",
        code="ledger_key_broken",
        reason=f"it has to be one line: {_PREFIX}name+key id+base64",
        resolution="put the file back from a backup",
    )


def _key(name: str, seed: bytes) -> SigningKey:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return SigningKey(verifier=VerifierKey(name=name, public_key=public), private=private)
